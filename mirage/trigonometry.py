"""cos and sin for float32 in a few vector operations.

XLA's CPU backend computes cos and sin one element at a time, at several times the cost of tanh.
Here, as in the Cephes library (Moshier, `sinf.c`), a Cody-Waite reduction z = kπ + r with
|r| ≤ π/2, and then minimax polynomials in r²:

    cos z = (−1)^k cos r,    sin z = (−1)^k sin r.

The absolute error stays below 3e-7 up to |z| = 25,000, where neighbouring float32 are already
2e-3 apart. Beyond, it grows, but the values stay within [−1, 1] up to rounding. Infinities and
NaN give NaN. Other types than float32 go to jax.numpy.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# π in three parts, the first two of 8 and 11 bits: k times either is exact for k < 2^13.
PI = (3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7)
# cos r = 1 + r² P(r²) to 3e-10, sin r = r + r³ Q(r²) to 5e-9 for |r| ≤ 1.575; constants first.
P = (-0.5, 4.166664183e-2, -1.388839562e-3, 2.476146619e-5, -2.606937528e-7)
Q = (-1.6666656733e-1, 8.3330124617e-3, -1.9806249475e-4, 2.5992430892e-6)


def _reduce(z: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """r and the sign (−1)^k. For huge z, r is kept where the polynomials stay within [−1, 1]."""
    k = jnp.round(z * (1 / math.pi))
    r = z
    for part in PI:
        r = r - k * part
    half = k / 2
    sign = jnp.where(half == jnp.floor(half), 1.0, -1.0).astype(z.dtype)
    return jnp.clip(r, -1.575, 1.575), sign


def _polynomial(coefficients: tuple[float, ...], u: Float[Array, "*shape"]):
    """Σ_i coefficients[i] u^i."""
    total = jnp.full_like(u, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * u + coefficient
    return total


@jax.custom_jvp
def cos(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """cos z, elementwise."""
    if z.dtype != jnp.float32:
        return jnp.cos(z)
    r, sign = _reduce(z)
    u = r * r
    return sign * (1 + u * _polynomial(P, u))


@jax.custom_jvp
def sin(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """sin z, elementwise."""
    if z.dtype != jnp.float32:
        return jnp.sin(z)
    r, sign = _reduce(z)
    u = r * r
    return sign * (r + r * u * _polynomial(Q, u))


cos.defjvps(lambda tangent, _, z: -sin(z) * tangent)
sin.defjvps(lambda tangent, _, z: cos(z) * tangent)
