"""Quadratic forms of a given condition number."""

import equinox as eqx
import jax.numpy as jnp

from mirage.targets.base import Target


class Quadratic(Target):
    """c Σ_k κ^{−(k−1)/(r−1)} h_k²: strengths from 1 to 1/κ in equal ratios, c for the variance.

    For the square loss Σ_ℓ has these eigenvalues, up to a factor, so that κ is its
    `condition_number`. The default is √(5/2)(h1² + ½ h2²), the poster's Exp 1.
    """

    rank: int = eqx.field(static=True, default=2)
    condition_number: float = 2.0
    variance: float = 6.25

    def __check_init__(self):
        self.check("rank", self.rank >= 1, "expected a whole number ≥ 1")
        self.check("condition_number", self.condition_number >= 1, "expected a number ≥ 1")
        self.check("variance", self.variance > 0, "expected a positive number")

    def _coefficients(self):
        power = jnp.arange(self.rank) / max(self.rank - 1, 1)
        strengths = jnp.asarray(self.condition_number) ** -power
        # Var Σ c_k h_k² = 2 Σ c_k²
        return strengths * jnp.sqrt(self.variance / (2 * (strengths**2).sum()))

    def parts(self):
        c = self._coefficients()
        return [(lambda h, k=k: c[k] * h[..., 0] ** 2, (k,)) for k in range(self.rank)]

    def __call__(self, h):
        return h**2 @ self._coefficients().astype(h.dtype)
