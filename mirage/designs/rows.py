"""Rows in blocks of a fixed size: the one way in which sums over samples are taken."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mirage.arguments import whole
from mirage.places import at, pieces, put

# Numbers in a block of a seed where kernels are slow to start: enough to fill an accelerator.
FILLING = 2**20


def grains(size: int, numbers: int) -> int:
    """How many times `size` rows, of so many `numbers` each, make a block.

    One on a CPU, where a small block stays in cache. ValueError for no row or no number.
    """
    whole(1, size=size, numbers=numbers)
    if jax.default_backend() == "cpu":
        return 1
    return max(1, FILLING // (size * numbers))


def block_count(capacity: int, size: int) -> int:
    """How many blocks hold `capacity` rows; at least two.

    XLA compiles an array of one block to other code, with other rounding.
    """
    return max(2, -(-capacity // size))


class Rows(eqx.Module):
    """The first `count` of `blocks * size` rows, visited block by block.

    `count` is known at run time only, so one compiled function serves every sample size. Every
    sum runs over whole blocks in order, rows beyond `count` set to zero: it has the same bits
    whatever the capacity, which matters because the dynamics amplify rounding.

    Random numbers are drawn by `grain`, of which a block holds a whole number: they are the same
    whatever the size of the blocks, which a device may choose.

    `bound` ≥ `count` is where the loops end: cells of several sample sizes that run side by side
    share it, and so each block.

    Arrays over rows have shape `(blocks, ..., size)`: within a block the rows come last, which
    keeps the loops over a few columns vectorised.
    """

    count: Int[Array, ""]
    bound: Int[Array, ""]
    blocks: int = eqx.field(static=True)
    size: int = eqx.field(static=True)
    grain: int = eqx.field(static=True)

    @classmethod
    def of(
        cls, count: Any, *, capacity: int, size: int, grains: int = 1, bound: Any = None
    ) -> "Rows":
        """Rows for `count` ≤ `capacity` samples; the bound is the count unless given.

        A block is `grains` times `size` rows, which share the key of their random numbers.
        """
        count = jnp.asarray(count, jnp.int32)
        bound = count if bound is None else jnp.asarray(bound, jnp.int32)
        whole = grains * size
        return cls(count, bound, blocks=block_count(capacity, whole), size=whole, grain=size)

    def mask(self, block: Any) -> Bool[Array, " size"]:
        """Which rows of a block are among the first `count`."""
        first = jnp.asarray(block, self.count.dtype) * self.size
        return first + jnp.arange(self.size, dtype=self.count.dtype) < self.count

    def keep(self, block: Any, values: Array) -> Array:
        """`values` of a block, `(..., size)`, with the rows beyond `count` set to zero."""
        mask = self.mask(block).reshape((1,) * (values.ndim - 1) + (self.size,))
        return jnp.where(mask, values, jnp.zeros((), values.dtype))

    def drawn(self, draw: Callable[..., Array], block: Any, *arrays: Array, axis: int = -1):
        """`draw(grain, *arrays)`, with `grain` rows along `axis`, for all grains of a block.

        The arrays `(size, ...)` are what the block's rows have already, handed over by grain.
        """
        count = self.size // self.grain
        if count == 1:
            return draw(block, *arrays)
        of_grains = [a.reshape(count, self.grain, *a.shape[1:]) for a in arrays]
        numbers = jnp.asarray(block, jnp.int32) * count + jnp.arange(count, dtype=jnp.int32)
        parts = jax.vmap(draw)(numbers, *of_grains)  # (count, ..., grain, ...)
        axis = axis % (parts.ndim - 1)
        together = jnp.moveaxis(parts, 0, axis)
        return together.reshape(*together.shape[:axis], self.size, *together.shape[axis + 2 :])

    def fold(self, visit: Callable[[Any, Any], Any], start: Any) -> Any:
        """`start = visit(block, start)` for each block up to the bound, in order."""
        return jax.lax.fori_loop(0, pieces(self.bound, self.size), visit, start)

    def map(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """`function(block, *blocks of arrays)` for each block; zero beyond the count."""
        like = jax.eval_shape(function, self.count, *(a[0] for a in arrays))

        def visit(block, out):
            value = function(block, *(at(a, block) for a in arrays))
            return put(out, block, self.keep(block, value))

        return self.fold(visit, jnp.zeros((self.blocks, *like.shape), like.dtype))

    def no_sums(self, like: Any) -> Any:
        """The empty sums over rows of arrays like those in a tree."""
        return jax.tree.map(lambda a: jnp.zeros(a.shape[:-1], a.dtype), like)

    def add(self, block: Any, sums: Any, values: Any) -> Any:
        """`sums` plus the sums over a block's rows of a tree of arrays `(..., size)`."""
        return jax.tree.map(lambda s, v: s + self.keep(block, v).sum(axis=-1), sums, values)

    def nothing_held(self, like: Any) -> Any:
        """Room for a tree of arrays over rows like those, of one block, in a tree."""
        return jax.tree.map(lambda a: jnp.zeros((self.blocks, *a.shape), a.dtype), like)

    def put(self, block: Any, held: Any, values: Any) -> Any:
        """`held` with one block replaced by a tree of arrays `(..., size)`."""
        return jax.tree.map(lambda h, v: put(h, block, self.keep(block, v)), held, values)

    def mean(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """The mean over rows of `function(*blocks of arrays)`, whose last axis is rows."""
        like = jax.eval_shape(function, *(a[0] for a in arrays))

        def visit(block, total):
            return self.add(block, total, function(*(at(a, block) for a in arrays)))

        total = self.fold(visit, self.no_sums(like))
        return total / self.count.astype(total.dtype)

    def gram_of(self, function: Callable[[Any], Float[Array, "k size"]]) -> Float[Array, "k k"]:
        """Σ_i φ_i φ_iᵀ over rows, φ = `function(block)` made block by block."""

        def visit(block, total):
            features = self.keep(block, function(block))
            return total + features @ features.T

        like = jax.eval_shape(function, self.count)
        return self.fold(visit, jnp.zeros((like.shape[0], like.shape[0]), like.dtype))

    def gram(
        self, left: Float[Array, "blocks k size"], right: Float[Array, "blocks l size"]
    ) -> Float[Array, "k l"]:
        """left rightᵀ, summed over rows."""
        start = jnp.zeros((left.shape[1], right.shape[1]), left.dtype)
        return self.fold(lambda b, total: total + at(left, b) @ at(right, b).T, start)
