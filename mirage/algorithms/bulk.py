"""Where the bulk of the label-weighted covariance ends, from the labels alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mirage.designs import Rows

# Halvings of the logarithm of τ − max T, and between which shares of the spread of T it lies.
HALVINGS, NEAR, FAR = 60, 1e-7, 1e5
# An eigenvalue so many fluctuations beyond the edge is no part of the bulk: of the largest
# eigenvalue of a bulk, one in a hundred is (Tracy and Widom 1996).
BEYOND = 2.0


class Edge(NamedTuple):
    """Where the bulk ends, and the scale of what its largest eigenvalue fluctuates by."""

    place: Float[Array, ""]
    scale: Float[Array, ""]

    def found(self, descending: Float[Array, " k"]) -> Int[Array, ""]:
        """How many eigenvalues lie beyond it."""
        return (descending > self.place + BEYOND * self.scale).sum(dtype=jnp.int32)


def bulk_edge(rows: Rows, t: Float[Array, "blocks size"], d: int) -> Edge:
    """The upper edge of (1/n) Σ_i T_i x_i x_iᵀ for x_i ~ N(0, I_d) that know nothing of T_i.

    It ends at min ψ over τ > max T, ψ(τ) = τ (d/n + (1/n) Σ T_i/(τ − T_i)) (Marchenko and Pastur
    1967), and its largest eigenvalue fluctuates by (ψ''(τ̄) τ̄⁴ d²/(2 n²))^{1/3} d^(−2/3) about it
    (El Karoui 2007).
    """
    n = rows.count.astype(t.dtype)
    valid = jax.vmap(rows.mask)(jnp.arange(rows.blocks))
    top = jnp.where(valid, t, -jnp.inf).max()
    spread = top - jnp.where(valid, t, jnp.inf).min()
    gap = jnp.where(valid, top - t, jnp.inf)

    def mean(function):
        """(1/n) Σ_i function(T_i), zero beyond the count."""
        return jnp.where(valid, function, 0).sum() / n

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        falls = mean((t / (jnp.exp(middle) + gap)) ** 2) > d / n  # ψ' < 0: τ̄ is beyond
        return jnp.where(falls, middle, low), jnp.where(falls, high, middle)

    ends = jnp.log(NEAR * spread), jnp.log(FAR * spread)
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, ends)
    s = jnp.exp((low + high) / 2)
    tau = top + s
    place = tau * (d / n + mean(t / (s + gap)))
    curvature = 2 * mean(t**2 / (s + gap) ** 3)
    scale = jnp.cbrt(curvature * tau**4 * (d / n) ** 2 / 2) * d ** (-2 / 3)
    return Edge(place, scale)
