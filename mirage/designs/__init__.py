"""Designs: X as an object with two products, drawn and stored or never drawn at all."""

from mirage.designs.base import Design, Matrix, Memory
from mirage.designs.deferred import Deferred
from mirage.designs.dense import Dense
from mirage.designs.rows import Rows

__all__ = ["Deferred", "Dense", "Design", "Matrix", "Memory", "Rows"]
