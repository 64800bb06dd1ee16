"""Experiments: grid → compile groups → execute → store."""

from mirage.experiments import bayes, dynamics, lazy_predictions, predictions  # their options
from mirage.experiments.experiment import Experiment
from mirage.experiments.simulate import simulate
from mirage.experiments.store import load, save

__all__ = [
    "Experiment",
    "bayes",
    "dynamics",
    "lazy_predictions",
    "load",
    "predictions",
    "save",
    "simulate",
]
