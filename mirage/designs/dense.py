"""Design `dense`: X is drawn once and stored."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mirage.designs.base import Design, Matrix
from mirage.designs.rows import Rows, block_count, grains
from mirage.designs.windows import DrawnRows
from mirage.places import at

# 512 rows of a few hundred columns are a megabyte: they stay in cache for the second product.
BLOCK = 512


class DrawnMatrix(Matrix):
    """X as blocks of rows, each read once for both products of a step."""

    @abc.abstractmethod
    def block(self, b: Any) -> Float[Array, "size d"]:
        """The b-th block of rows."""

    @abc.abstractmethod
    def grain(self, g: Any) -> Float[Array, "grain d"]:
        """The g-th grain of rows."""

    def _forward(self, x, v):
        """V Xᵀ on a block. The barrier keeps XLA to x vᵀ, half the cost of v xᵀ on a CPU."""
        return jax.lax.optimization_barrier(x @ v.T).T

    def memory(self):
        return None

    def window(self, window, v):
        return DrawnRows.of(self.grain(window.block), v)

    def forward(self, v, memory):
        return self.rows.map(lambda b: self._forward(self.block(b), v)), memory

    def backward(self, g, memory):
        d = jax.eval_shape(self.block, self.rows.count).shape[-1]
        start = jnp.zeros((g.shape[1], d), g.dtype)
        return self.rows.fold(lambda b, total: total + at(g, b) @ self.block(b), start), memory

    def covariance(self, weight, data, memory):
        def visit(b, total):
            x = self.block(b)
            w = self.rows.keep(b, weight(*(at(array, b) for array in data)))
            return total + (w[:, None] * x).T @ x

        d = jax.eval_shape(self.block, self.rows.count).shape[-1]
        return self.rows.fold(visit, jnp.zeros((d, d), jnp.float32))

    def gram(self, function, v, data, memory):
        def features(b):
            return function(self._forward(self.block(b), v), *(at(array, b) for array in data))

        return self.rows.gram_of(features), memory

    def sweep(self, function, v, data, memory):
        """Both products on each block while it is in cache: X is read once."""

        def visit(b, carry):
            x = self.block(b)
            g, summed, kept = function(self._forward(x, v), *(at(array, b) for array in data))
            product, sums, held = carry
            product = product + self.rows.keep(b, g) @ x
            return product, self.rows.add(b, sums, summed), self.rows.put(b, held, kept)

        z = jax.ShapeDtypeStruct((v.shape[0], self.rows.size), v.dtype)
        g, summed, kept = jax.eval_shape(function, z, *(array[0] for array in data))
        start = jnp.zeros((g.shape[0], v.shape[1]), v.dtype)
        start = (start, self.rows.no_sums(summed), self.rows.nothing_held(kept))
        return *self.rows.fold(visit, start), memory


class DenseMatrix(DrawnMatrix):
    """X in memory, one seed of several: no seed is ever copied out of the array."""

    rows: Rows
    stored: Float[Array, "seeds blocks size d"]
    seed: Int[Array, ""]

    def block(self, b):
        return at(self.stored, self.seed, b)

    def grain(self, g):
        size = self.rows.grain
        count = self.rows.size // size
        return jax.lax.dynamic_slice_in_dim(self.block(g // count), g % count * size, size)


class Dense(Design):
    """X drawn block by block and kept. Its rows for a smaller n are the first for a larger one."""

    def draw(self, key, inputs, *, n_max, d):
        source = inputs.source(key, "train")

        def grain(index):
            return inputs.block(source, index, size=BLOCK, d=d)

        count = grains(BLOCK, d)
        blocks = block_count(n_max, count * BLOCK)
        return jax.lax.map(grain, jnp.arange(blocks * count)).reshape(blocks, count * BLOCK, d)

    def matrix(self, drawn, seed, n, inputs, *, n_max, d, right, left, bound=None):
        rows = Rows.of(n, capacity=n_max, size=BLOCK, grains=grains(BLOCK, d), bound=bound)
        return DenseMatrix(rows=rows, stored=drawn, seed=jnp.asarray(seed, jnp.int32))

    def bytes_drawn(self, *, n_max, d):
        size = BLOCK * grains(BLOCK, d)
        return 4 * d * size * block_count(n_max, size)

    def bytes_working(self, *, n_max: int, d: int, right: int, left: int) -> int:
        return 4 * (16 * n_max + max(8, 2 * grains(BLOCK, d)) * BLOCK * d)

    def seconds(self, *, n, d, right, left, steps):
        # Drawing X and its pages; reading it once a step; the arithmetic of both products.
        return n * d * (1.8e-8 + 4.2e-10 * steps + 3e-11 * (right + left))
