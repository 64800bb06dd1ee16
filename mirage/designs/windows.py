"""Rows that are seen once: a window of a block of X, as what a network makes of it."""

import abc
from typing import NamedTuple

import equinox as eqx
from jaxtyping import Array, Float, Int


class Window(NamedTuple):
    """What is seen at a time: the rows `first` to `last` − 1 of a block, which is one grain."""

    block: Int[Array, ""]
    first: Int[Array, ""]
    last: Int[Array, ""]


class BlockOfRows(eqx.Module):
    """A block X of rows: `products` V Xᵀ with the V asked of it, `gram` X Xᵀ, and C X."""

    products: eqx.AbstractVar[Float[Array, "k size"]]
    gram: eqx.AbstractVar[Float[Array, "size size"]]

    @abc.abstractmethod
    def combine(self, c: Float[Array, "m size"]) -> Float[Array, "m d"]:
        """C X, once and for rows of the window alone: C is zero at the others."""


class DrawnRows(BlockOfRows):
    """Rows that were drawn."""

    x: Float[Array, "size d"]
    products: Float[Array, "k size"]
    gram: Float[Array, "size size"]

    @classmethod
    def of(cls, x: Float[Array, "size d"], v: Float[Array, "k d"]) -> "DrawnRows":
        return cls(x, v @ x.T, x @ x.T)

    def combine(self, c):
        return c @ self.x
