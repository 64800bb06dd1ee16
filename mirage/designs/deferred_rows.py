"""Rows N(0, I_d) that are seen once and never drawn: exact in law, m numbers a coordinate a block.

A block of rows is known through V Xᵀ and X Xᵀ until it moves the m neurons by C X, and is then
forgotten. With an orthonormal basis P of the span of V, X = Gᵀ P + T F: G is N(0, 1), T a root of
a Wishart matrix (Bartlett 1933) and F a random frame off that span. Of F, which nothing else
depends on, C X = C Gᵀ P + L F' needs m vectors, L a root of C T (C T)ᵀ and F' a random frame.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage import lapack
from mirage.designs.windows import BlockOfRows, Window
from mirage.places import diagonal
from mirage.wishart import wishart_root


class DeferredRows(BlockOfRows):
    """Rows whose C X is drawn when it is asked for."""

    products: Float[Array, "k size"]
    gram: Float[Array, "size size"]
    along: Float[Array, "k size"]
    root: Float[Array, "size size"]
    basis: Float[Array, "k d"]
    frame: Float[Array, "few d"]

    def combine(self, c):
        off = lapack.triangular_factor((c @ self.root).T).T
        return (c @ self.along.T) @ self.basis + off @ self.frame


def deferred_rows(
    key: Key[Array, ""], window: Window, v: Float[Array, "k d"], *, size: int, moved: int
) -> DeferredRows:
    """A block of `size` rows for V, that is to move `moved` neurons; k + `moved` ≤ d.

    Rows of the block that other windows see are independent of those of this one, given V.
    """
    k, d = v.shape
    few = min(moved, size)
    key_along, key_root, key_frame = jax.random.split(jax.random.fold_in(key, window.block), 3)
    along: Any = jax.random.normal(key_along, (k, size), v.dtype)
    root = wishart_root(key_root, size=size, freedom=d - k, count=1)[0]
    # What is left of the frame is drawn anew in every window.
    key_frame = jax.random.fold_in(key_frame, window.first)
    stacked = jnp.concatenate([v, jax.random.normal(key_frame, (few, d), v.dtype)])
    basis, triangle = lapack.qr(stacked.T)
    # Signs that do not depend on how a reflection is chosen: the frame is uniform.
    signs = jnp.where(diagonal(triangle) < 0, -1, 1).astype(v.dtype)[k:]
    return DeferredRows(
        products=triangle[:k, :k].T @ along,
        gram=along.T @ along + root @ root.T,
        along=along,
        root=root,
        basis=basis[:, :k].T,
        frame=signs[:, None] * basis[:, k:].T,
    )
