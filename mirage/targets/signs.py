"""Targets that take a sign: parity, and a sign with noise inside it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from mirage.targets.base import Target


class Parity(Target):
    """sign(h1 h2 ... hk). k = 2 is easy (alpha_c = π²/4), k ≥ 3 hard (Troiani et al. 2024)."""

    k: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        self.check("k", 1 <= self.k <= 20, "expected a whole number from 1 to 20")

    @property
    def rank(self):
        return self.k

    def __call__(self, h):
        return jnp.sign(h).prod(axis=-1)


class NoisySign(Target):
    """y = sign(h + √inner_noise ξ), ξ ~ N(0, 1): noise inside the sign (a probit label).

    g(h) = E[y | h] = erf(h/√(2 inner_noise)). `noise` is label noise on top.
    """

    inner_noise: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        self.check("inner_noise", self.inner_noise >= 0, "expected a variance ≥ 0")

    @property
    def rank(self):
        return 1

    def __call__(self, h):
        h = h[..., 0]
        if self.inner_noise == 0:
            return jnp.sign(h)
        return erf(h / (2 * self.inner_noise) ** 0.5)

    def draw(self, key, h):
        inner, outer = jax.random.split(key)
        xi = jax.random.normal(inner, h.shape[:-1], h.dtype)
        y = jnp.sign(h[..., 0] + self.inner_noise**0.5 * xi)
        if self.noise == 0:
            return y
        return y + self.noise**0.5 * jax.random.normal(outer, y.shape, y.dtype)
