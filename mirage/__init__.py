"""mirage: how many samples a Gaussian multi-index target needs, by simulation and by theory."""

from mirage import figures
from mirage.config import ConfigError, compose
from mirage.experiments import Experiment, load, save, simulate

__version__ = "0.1.0"
__all__ = ["ConfigError", "Experiment", "compose", "figures", "load", "save", "simulate"]
