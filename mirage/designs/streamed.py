"""Design `streamed`: X is drawn block by block wherever a block is used, and never stored."""

from typing import Any

import equinox as eqx
import jax

from mirage.designs.base import Design
from mirage.designs.dense import BLOCK, DrawnMatrix
from mirage.designs.rows import Rows, grains
from mirage.inputs import Inputs


class StreamedMatrix(DrawnMatrix):
    """X drawn block by block, wherever a block is used."""

    rows: Rows
    inputs: Inputs
    source: Any
    d: int = eqx.field(static=True)

    def block(self, b):
        # The barrier makes both products use one drawing.
        return jax.lax.optimization_barrier(self.rows.drawn(self.grain, b, axis=0))

    def grain(self, g):
        return self.inputs.block(self.source, g, size=self.rows.grain, d=self.d)


class Streamed(Design):
    """The X of `dense`, never kept: memory for X is one block, whatever n; time is for drawing.

    With another number of rows a `block` it is another X of the same law.
    """

    block: int = eqx.field(static=True, default=BLOCK)

    def __check_init__(self):
        self.check("block", self.block >= 1, "expected a whole number ≥ 1")

    def draw(self, key, inputs, *, n_max, d):
        return inputs.source(key, "train")

    def matrix(self, drawn, seed, n, inputs, *, n_max, d, right, left, bound=None):
        count = grains(self.block, d)
        rows = Rows.of(n, capacity=n_max, size=self.block, grains=count, bound=bound)
        source = jax.tree.map(lambda array: array[seed], drawn)
        return StreamedMatrix(rows=rows, inputs=inputs, source=source, d=d)

    def seconds(self, *, n, d, right, left, steps):
        # Drawing X again for every step, and for the labels; the arithmetic of both products.
        return n * d * (1.3e-8 * (1 + steps) + 3e-11 * (right + left))

    def bytes_drawn(self, *, n_max, d):
        return 16

    def bytes_working(self, *, n_max: int, d: int, right: int, left: int) -> int:
        return 4 * (16 * n_max + max(16, 2 * grains(self.block, d)) * self.block * d)
