"""Experiments: grid → compile groups → execute → store."""

from mirage.experiments import (  # their options
    bayes,
    dynamics,
    hierarchy_predictions,
    lazy_predictions,
    predictions,
)
from mirage.experiments.experiment import Experiment
from mirage.experiments.simulate import simulate
from mirage.experiments.store import load, save

__all__ = [
    "Experiment",
    "bayes",
    "dynamics",
    "hierarchy_predictions",
    "lazy_predictions",
    "load",
    "predictions",
    "save",
    "simulate",
]
