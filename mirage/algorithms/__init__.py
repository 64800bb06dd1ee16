"""Algorithms: finite-d training, one a file, each `init` and `step`."""

from mirage.algorithms.amp import Amp
from mirage.algorithms.base import Algorithm, Problem, Trained, draw_problem
from mirage.algorithms.extragradient import Extragradient
from mirage.algorithms.full_batch_gd import FullBatchGd
from mirage.algorithms.full_spectrum import FullSpectrum
from mirage.algorithms.gd_and_power_iteration import GdAndPowerIteration
from mirage.algorithms.giant_step import GiantStep
from mirage.algorithms.kernel_ridge import KernelRidge
from mirage.algorithms.layerwise_gd import LayerwiseGd
from mirage.algorithms.linearised_amp import LinearisedAmp
from mirage.algorithms.lookahead import Lookahead
from mirage.algorithms.loop import train
from mirage.algorithms.online_sgd import OnlineSgd
from mirage.algorithms.order_parameter_chain import OrderParameterChain
from mirage.algorithms.power_iteration import PowerIteration
from mirage.algorithms.random_features import RandomFeatures
from mirage.algorithms.spectral import Spectral
from mirage.algorithms.three_layer import ThreeLayer
from mirage.algorithms.two_stage import TwoStage

__all__ = [
    "Algorithm",
    "Amp",
    "Extragradient",
    "FullBatchGd",
    "FullSpectrum",
    "GdAndPowerIteration",
    "GiantStep",
    "KernelRidge",
    "LayerwiseGd",
    "LinearisedAmp",
    "Lookahead",
    "OnlineSgd",
    "OrderParameterChain",
    "PowerIteration",
    "Problem",
    "RandomFeatures",
    "Spectral",
    "ThreeLayer",
    "Trained",
    "TwoStage",
    "draw_problem",
    "train",
]
