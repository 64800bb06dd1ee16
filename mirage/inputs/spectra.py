"""Gaussian rows with a covariance of trace d."""

import jax.numpy as jnp

from mirage.inputs.base import Drawn, normal


class Correlated(Drawn):
    """Gaussian rows with covariance Σ_ij = ρ^|i−j|, ρ the `correlation` of neighbours."""

    correlation: float = 0.5

    def __check_init__(self):
        self.check("correlation", -1 < self.correlation < 1, "expected a number between -1 and 1")

    def rows(self, key, shape):
        """z Lᵀ with the Cholesky factor L_ij = ρ^{i−j} √(1 − ρ²) (no root for j = 0), i ≥ j."""
        rho = jnp.asarray(self.correlation, jnp.float32)
        d = shape[1]
        lag = jnp.arange(d)[:, None] - jnp.arange(d)[None]
        power = jnp.where(lag == 0, 1.0, rho ** jnp.maximum(lag, 1).astype(jnp.float32))
        innovation = jnp.where(jnp.arange(d) == 0, 1.0, jnp.sqrt(1 - rho**2))
        factor = jnp.where(lag >= 0, power, 0.0) * innovation[None]
        return normal(key, shape) @ factor.T


class PowerLaw(Drawn):
    """Gaussian rows with covariance diag(λ_k), λ_k ∝ k^{−decay}, of trace d.

    With `directions=axes` the target sees the directions of largest variance.
    """

    decay: float = 0.5

    def __check_init__(self):
        self.check("decay", self.decay >= 0, "expected a number ≥ 0")

    def rows(self, key, shape):
        d = shape[1]
        variance = jnp.arange(1, d + 1, dtype=jnp.float32) ** -jnp.asarray(self.decay, jnp.float32)
        return normal(key, shape) * jnp.sqrt(variance / variance.mean())[None]
