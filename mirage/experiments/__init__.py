"""Experiments: grid → compile groups → execute → store."""

from mirage.experiments.experiment import Experiment
from mirage.experiments.simulate import simulate
from mirage.experiments.store import load, save

__all__ = ["Experiment", "load", "save", "simulate"]
