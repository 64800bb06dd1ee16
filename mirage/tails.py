"""Logarithms of both tails of a Gaussian number, in few operations.

jax.scipy has log Φ as three branches, each of them computed: an asymptotic series, and twice both
the error function and its complement. What a label's sign says needs log Φ(x) and log Φ(−x), for
every sample at every step, and the nearer of the two follows from the farther one.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# log Φ(−z) + z²/2 = log t + Σ_k COEFFICIENTS[k] T_k(2t − 1) with t = 1/(1 + REACH z), z ≥ 0: to
# 2e-16, and with the first `SINGLE` of them to 3e-8.
REACH = 0.3
COEFFICIENTS = (
    -1.454598696679957,
    0.721324526635581,
    0.04849322749028088,
    -0.0065410972895193036,
    -0.0020158135714552004,
    9.926786541495312e-05,
    9.697389574155494e-05,
    -5.428048703917971e-07,
    -5.238521280804281e-06,
    -8.100051502522517e-08,
    3.0593068667199014e-07,
    5.112413996054205e-09,
    -1.8674441571088344e-08,
    -1.2013188601999435e-12,
    1.1502250974537095e-09,
    -3.683292143798775e-11,
    -6.868719987348647e-11,
    5.348704586433058e-12,
    3.78231288169292e-12,
    -5.258387980799998e-13,
    -1.7784121409873706e-13,
    4.014449852118668e-14,
    6.027403739763999e-15,
    -2.316783375745561e-15,
)
SINGLE = 11


@functools.cache
def _powers(dtype: np.dtype) -> tuple[float, ...]:
    """The same sum in powers of 2t − 1, the constant first."""
    count = len(COEFFICIENTS) if dtype == np.float64 else SINGLE
    return tuple(np.polynomial.chebyshev.cheb2poly(COEFFICIENTS[:count]).tolist())


def scaled_log_tail(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log Φ(−z) + z²/2 for z ≥ 0, elementwise: without the two large terms."""
    t = 1 / (1 + REACH * z)
    *others, total = _powers(z.dtype)
    for coefficient in reversed(others):
        total = total * (2 * t - 1) + coefficient
    return jnp.log(t) + total


@jax.custom_jvp
def log_tails(x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """log Φ(x) and log Φ(−x), elementwise, without loss however far out x is."""
    z = jnp.abs(x)
    far = scaled_log_tail(z) - z**2 / 2
    near = jnp.log1p(-jnp.exp(far))
    return jnp.where(x > 0, near, far), jnp.where(x > 0, far, near)


@jax.custom_jvp
def inverse_mills_ratio(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """φ(x)/Φ(x), the slope of log Φ, elementwise."""
    z = jnp.abs(x)
    scaled = scaled_log_tail(z)
    near = jnp.log1p(-jnp.exp(scaled - z**2 / 2)) + z**2 / 2
    return jnp.exp(-jnp.where(x > 0, near, scaled)) / math.sqrt(2 * math.pi)


# Derivatives that AD would take of |x| are wrong at 0.
@log_tails.defjvp
def _(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return log_tails(x), (inverse_mills_ratio(x) * tangent, -inverse_mills_ratio(-x) * tangent)


inverse_mills_ratio.defjvps(lambda tangent, m, x: -m * (x + m) * tangent)
