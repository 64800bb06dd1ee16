"""Targets g(h): what is to be learnt, one family a file."""

from mirage.targets.base import Part, Target
from mirage.targets.expression import Expression
from mirage.targets.hierarchical import Hierarchical
from mirage.targets.kernels import FlippedParity, Kernel, Likelihood, Logistic, Poisson
from mirage.targets.links import Committee, PhaseRetrieval, SingleIndex
from mirage.targets.quadratic import Quadratic
from mirage.targets.signs import NoisySign, Parity
from mirage.targets.staircases import GrandStaircase, Staircase
from mirage.targets.sums import Hermite, Polynomial
from mirage.targets.trees import Tree

__all__ = [
    "Committee",
    "Expression",
    "FlippedParity",
    "GrandStaircase",
    "Hermite",
    "Hierarchical",
    "Kernel",
    "Likelihood",
    "Logistic",
    "NoisySign",
    "Parity",
    "Part",
    "PhaseRetrieval",
    "Poisson",
    "Polynomial",
    "Quadratic",
    "SingleIndex",
    "Staircase",
    "Target",
    "Tree",
]
