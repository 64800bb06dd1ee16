"""Algorithms: finite-d training, one a file, each `init` and `step`."""

from mirage.algorithms.amp import Amp
from mirage.algorithms.base import Algorithm, Problem, Trained, draw_problem
from mirage.algorithms.first_layer_gd import FirstLayerGd
from mirage.algorithms.gd_and_power_iteration import GdAndPowerIteration
from mirage.algorithms.layerwise_gd import LayerwiseGd
from mirage.algorithms.linearised_amp import LinearisedAmp
from mirage.algorithms.loop import train
from mirage.algorithms.power_iteration import PowerIteration
from mirage.algorithms.spectral import Spectral

__all__ = [
    "Algorithm",
    "Amp",
    "FirstLayerGd",
    "GdAndPowerIteration",
    "LayerwiseGd",
    "LinearisedAmp",
    "PowerIteration",
    "Problem",
    "Spectral",
    "Trained",
    "draw_problem",
    "train",
]
