"""The sign of a product of two correlated Gaussian numbers: its probability, with derivatives."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, log_ndtr
from jaxtyping import Array, Float

NODES = 20
# Correlations are kept this far from ±1.
APART = 1e-6


class SignPair(NamedTuple):
    """log P of a sign, with first and second derivatives of log P in the two means."""

    log_probability: Float[Array, "*batch"]
    first: tuple[Float[Array, "*batch"], Float[Array, "*batch"]]
    second: tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]


def sign_of_product(
    sign: Float[Array, "*batch"],
    a: Float[Array, "*batch"],
    b: Float[Array, "*batch"],
    correlation: Float[Array, ""],
) -> SignPair:
    """P(sign(z1 z2) = s) for z1, z2 of unit variance, means a, b and a correlation ρ.

        P = Φ(a)Φ(sb) + Φ(−a)Φ(−sb) + (s/π) ∫_0^{asin ρ} exp(−(a² + b² − 2ab sin t)/(2 cos² t)) dt

    (Plackett 1954; the integral as in Drezner and Wesolowsky 1990). The products are added in
    logs and the integral is taken relative to them, so that nothing under- or overflows. Its nodes
    are the same for the whole batch: their sines are taken once. `second` is (aa, ab, bb).
    """
    dtype = a.dtype
    rho = jnp.clip(correlation, -1 + APART, 1 - APART)
    s = jnp.sqrt((1 - rho) * (1 + rho))
    turned = sign * b
    apart = jnp.logaddexp(log_ndtr(a) + log_ndtr(turned), log_ndtr(-a) + log_ndtr(-turned))
    x, w = np.polynomial.legendre.leggauss(NODES)
    column = (-1, *(1,) * a.ndim)
    t = (jnp.asarray((x + 1) / 2, dtype) * jnp.arcsin(rho)).reshape(column)
    weights = jnp.asarray(w / (2 * math.pi), dtype).reshape(column)
    squares, product = (a**2 + b**2)[None], (2 * a * b)[None]
    exponent = (product * jnp.sin(t) - squares) * (0.5 / jnp.cos(t) ** 2)
    # Where P is large the integral is small; the bound keeps what cannot matter from overflowing.
    together = jnp.exp(jnp.minimum(exponent - apart[None], 80.0))
    ratio = sign * jnp.arcsin(rho) * (weights * together).sum(axis=0)
    smallest = 100 * float(jnp.finfo(dtype).eps)
    log_p = apart + jnp.log(jnp.maximum(1 + ratio, smallest))

    def slope(mean, other):  # ∂P/∂mean = s φ(mean) erf((other − ρ mean)/√(2 (1 − ρ²)))
        density = jnp.exp(-(mean**2) / 2 - log_p) / math.sqrt(2 * math.pi)
        return sign * density * erf((other - rho * mean) / (s * math.sqrt(2)))

    exponent = -(a**2 + b**2 - 2 * rho * a * b) / (2 * s**2)
    density = sign * jnp.exp(exponent - log_p) / (math.pi * s)  # twice the joint density, over P
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
    pair = sign_of_product(sign, omega[0] / s1, omega[1] / s2, covariance[0, 1] / (s1 * s2))
    (a, b), (aa, ab, bb) = pair.first, pair.second
    ab = ab / (s1 * s2)
    score = jnp.stack([a / s1, b / s2])
    curvature = jnp.stack([jnp.stack([aa / s1**2, ab]), jnp.stack([ab, bb / s2**2])])
    return pair.log_probability, score, curvature
