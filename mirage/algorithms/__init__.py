"""Algorithms: finite-d training, one a file, each `init` and `step`."""

from mirage.algorithms.base import Algorithm, Problem, draw_problem
from mirage.algorithms.layerwise_gd import LayerwiseGd
from mirage.algorithms.loop import train
from mirage.algorithms.power_iteration import PowerIteration

__all__ = ["Algorithm", "LayerwiseGd", "PowerIteration", "Problem", "draw_problem", "train"]
