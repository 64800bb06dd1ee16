"""Inputs: what the rows of X are, and the directions in them that a target sees."""

from mirage.inputs.base import PARTS, Inputs
from mirage.inputs.directions import Axes, Directions, Given, Random
from mirage.inputs.entries import Gaussian, Rademacher, Student, Uniform
from mirage.inputs.file import File
from mirage.inputs.spectra import Correlated, PowerLaw

__all__ = [
    "PARTS",
    "Axes",
    "Correlated",
    "Directions",
    "File",
    "Gaussian",
    "Given",
    "Inputs",
    "PowerLaw",
    "Rademacher",
    "Random",
    "Student",
    "Uniform",
]
