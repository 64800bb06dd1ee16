"""The probability that two correlated Gaussian numbers have the same sign, with derivatives."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float

from mirage.tails import log_tails

NODES = 20
# Correlations are kept this far from ±1.
APART = 1e-6


class SignPair(NamedTuple):
    """log P of same signs, with first and second derivatives of log P in the two means."""

    log_probability: Float[Array, "*batch"]
    first: tuple[Float[Array, "*batch"], Float[Array, "*batch"]]
    second: tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]


def same_sign(
    a: Float[Array, "*batch"], b: Float[Array, "*batch"], correlation: Float[Array, "*#batch"]
) -> SignPair:
    """P(z1 z2 > 0) for z1, z2 of unit variance, means a, b and a correlation ρ.

        P = Φ(a)Φ(b) + Φ(−a)Φ(−b) + (1/π) ∫_0^{asin ρ} exp(−(a² + b² − 2ab sin t)/(2 cos² t)) dt

    (Plackett 1954; the integral as in Drezner and Wesolowsky 1990). The products are added in
    logs and the integral is taken relative to them, so that nothing under- or overflows.
    `second` is (aa, ab, bb).
    """
    dtype = a.dtype
    # One correlation for the whole batch stays one number: its sines are taken once.
    rho = jnp.clip(correlation, -1 + APART, 1 - APART)
    rho = rho.reshape(*(1,) * (a.ndim - rho.ndim), *rho.shape)
    s = jnp.sqrt((1 - rho) * (1 + rho))
    (below_a, above_a), (below_b, above_b) = log_tails(a), log_tails(b)
    apart = jnp.logaddexp(below_a + below_b, above_a + above_b)
    x, w = np.polynomial.legendre.leggauss(NODES)
    points = jnp.asarray((x + 1) / 2, dtype).reshape(-1, *(1,) * a.ndim)
    weights = jnp.asarray(w / (2 * math.pi), dtype).reshape(points.shape)
    t = points * jnp.arcsin(rho)[None]
    squares, product = (a**2 + b**2)[None], (2 * a * b)[None]
    exponent = -(squares - product * jnp.sin(t)) / (2 * jnp.cos(t) ** 2)
    # Where P is large the integral is small; the bound keeps what cannot matter from overflowing.
    together = jnp.exp(jnp.minimum(exponent - apart[None], 80.0))
    ratio = jnp.arcsin(rho) * (weights * together).sum(axis=0)
    smallest = 100 * float(jnp.finfo(dtype).eps)
    log_p = apart + jnp.log(jnp.maximum(1 + ratio, smallest))

    def slope(mean, other):  # ∂P/∂mean = φ(mean) erf((other − ρ mean)/(s √2))
        density = jnp.exp(-(mean**2) / 2 - log_p) / math.sqrt(2 * math.pi)
        return density * erf((other - rho * mean) / (s * math.sqrt(2)))

    exponent = -(a**2 + b**2 - 2 * rho * a * b) / (2 * s**2)
    density = jnp.exp(exponent - log_p) / (math.pi * s)  # twice the joint density, over P
    first_a, first_b = slope(a, b), slope(b, a)
    second = (
        -a * first_a - rho * density - first_a**2,
        density - first_a * first_b,
        -b * first_b - rho * density - first_b**2,
    )
    return SignPair(log_p, (first_a, first_b), second)


def pair_output(sign, omega, covariance):
    """log P(sign(h1 h2) = sign) for h ~ N(ω, V), score (2, ...) and curvature (2, 2, ...)."""
    s1, s2 = jnp.sqrt(covariance[0, 0]), jnp.sqrt(covariance[1, 1])
    pair = same_sign(omega[0] / s1, sign * omega[1] / s2, sign * covariance[0, 1] / (s1 * s2))
    (a, b), (aa, ab, bb) = pair.first, pair.second
    ab = sign * ab / (s1 * s2)
    score = jnp.stack([a / s1, sign * b / s2])
    curvature = jnp.stack([jnp.stack([aa / s1**2, ab]), jnp.stack([ab, bb / s2**2])])
    return pair.log_probability, score, curvature
