"""mirage: how many samples a Gaussian multi-index target needs, by simulation and by theory."""

from typing import Any

from mirage.config import ConfigError, compose
from mirage.experiments import Experiment, load, save, simulate

__version__ = "0.1.0"
__all__ = ["ConfigError", "Experiment", "compose", "figures", "load", "save", "simulate"]


def __getattr__(name: str) -> Any:
    """Import `mirage.figures`, and Matplotlib with it, when it is first asked for."""
    if name == "figures":
        import importlib

        return importlib.import_module("mirage.figures")
    raise AttributeError(f"module 'mirage' has no attribute {name!r}")
