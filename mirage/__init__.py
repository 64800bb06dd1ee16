"""mirage: how many samples a Gaussian multi-index target needs, by simulation and by theory."""

from typing import Any

from mirage.config import ConfigError, compose
from mirage.experiments import Experiment, load, save, simulate

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "Experiment",
    "compose",
    "diagnose",
    "figures",
    "load",
    "save",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import `mirage.figures` (and Matplotlib with it) and `mirage.diagnose` when asked for."""
    if name in ("figures", "diagnose"):
        import importlib

        return importlib.import_module(f"mirage.{name}")
    raise AttributeError(f"module 'mirage' has no attribute {name!r}")
