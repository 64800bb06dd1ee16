"""mirage: how many samples a Gaussian multi-index target needs, by simulation and by theory."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirage import diagnose, figures
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
# Where each is, loaded when it is asked for.
_HOMES = {
    "ConfigError": "mirage.config",
    "compose": "mirage.config",
    "Experiment": "mirage.experiments",
    "load": "mirage.experiments",
    "save": "mirage.experiments",
    "simulate": "mirage.experiments",
}


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"mirage.{name}")
    raise AttributeError(f"module 'mirage' has no attribute {name!r}")
