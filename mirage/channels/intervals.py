"""The probability that a Gaussian number lies in an interval, in logs, with its derivatives."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.tails import log_tails, scaled_log_tail

# What stands for infinity among the ends of intervals: derivatives want numbers.
FAR = 1e6


def interval_output(
    lower: Float[Array, "*batch"],
    upper: Float[Array, "*batch"],
    omega: Float[Array, "*batch"],
    variance: Float[Array, ""],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """log P(lower < h < upper), h ~ N(ω, V), and its two derivatives in ω.

        P = Φ(β) − Φ(α),  s ∂ log P = (φ(α) − φ(β))/P,
        V ∂² log P = (α φ(α) − β φ(β))/P − (s ∂ log P)²,

    α = (lower − ω)/s, β = (upper − ω)/s, s = √V. All is taken relative to the density at the end
    next to ω, on the side of the lower tail, so that nothing cancels or underflows far away.
    """
    s = jnp.sqrt(variance)
    alpha = (jnp.maximum(lower, -FAR) - omega) / s
    beta = (jnp.minimum(upper, FAR) - omega) / s
    mirrored = alpha + beta > 0
    a, b = jnp.where(mirrored, -beta, alpha), jnp.where(mirrored, -alpha, beta)
    # b may lie above 0, where Φ(b) ≥ 1/2 needs no scaling.
    below_b, _ = log_tails(b)
    scaled = jnp.where(b > 0, below_b + b**2 / 2, scaled_log_tail(-jnp.minimum(b, 0)))
    exponent = (a - b) * (-a - b) / 2  # φ(a)/φ(b) = exp(−(a² − b²)/2), a + b ≤ 0
    exponent = -jnp.abs(exponent)
    ratio = jnp.exp(scaled_log_tail(-jnp.minimum(a, 0)) - scaled + exponent)
    rest = jnp.log1p(-jnp.minimum(ratio, 1 - jnp.finfo(a.dtype).eps))
    log_p = jnp.where(b > 0, below_b, scaled - b**2 / 2) + rest
    at_b = jnp.exp(-scaled - rest - math.log(2 * math.pi) / 2)
    at_a = at_b * jnp.exp(exponent)
    first = at_a - at_b
    second = jnp.where(at_a > 0, a, 0) * at_a - jnp.where(at_b > 0, b, 0) * at_b - first**2
    return log_p, jnp.where(mirrored, -first, first) / s, second / variance
