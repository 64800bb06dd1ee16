"""Designs: X as an object with two products, drawn and kept, drawn each time, or never drawn."""

from mirage.designs.auto import Auto
from mirage.designs.base import Design, DesignChoice, Matrix, Memory
from mirage.designs.deferred import Deferred
from mirage.designs.dense import Dense
from mirage.designs.rows import Rows, grains
from mirage.designs.streamed import Streamed
from mirage.designs.windows import BlockOfRows, Window

__all__ = [
    "Auto",
    "BlockOfRows",
    "Deferred",
    "Dense",
    "Design",
    "DesignChoice",
    "Matrix",
    "Memory",
    "Rows",
    "Streamed",
    "Window",
    "grains",
]
