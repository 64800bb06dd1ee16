"""What a label says of three directions when it depends on h1 and on the sign of h2 h3."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mirage.channels.channel import Output, mixture
from mirage.channels.sign_pairs import pair_output

# Nodes on each side of h1 = 0, and how far out the belief on h1 is followed.
SIDE_NODES, REACH = 32, 6.0


def given_first(
    h1: Float[Array, " k *batch"],
    log_weights: Float[Array, " k *batch"],
    signs: Float[Array, " k *batch"],
    omega: Float[Array, " three *batch"],
    covariance: Float[Array, "3 3"],
) -> Output:
    """The channel Z = Σ_k w_k N(h1_k; ω1, V11) P(sign(h2 h3) = s_k | h1_k).

    Given h1 the others are Gaussian with mean ω_23 + c (h1 − ω1), c = V_{23,1}/V11, and covariance
    V_23 − V11 c cᵀ. A component of log weight −∞ is none.
    """
    v = covariance[0, 0]
    c = covariance[1:, 0] / v
    rest = covariance[1:, 1:] - v * c[:, None] * c[None]
    ahead = h1 - omega[0][None]
    means = omega[1:, None] + c.reshape(2, *(1,) * h1.ndim) * ahead[None]
    log_pair, inner, bend = pair_output(signs, means, rest)
    # The chain rule through the conditional mean: ∂/∂ω1 = (h1 − ω1)/V11 − c · ∂/∂ω_23.
    score = jnp.concatenate([(ahead / v - jnp.tensordot(c, inner, axes=1))[None], inner])
    cross = -jnp.tensordot(c, bend, axes=1)
    corner = jnp.tensordot(-c, cross, axes=1) - 1 / v
    curvature = jnp.concatenate(
        [
            jnp.concatenate([corner[None], cross])[None],
            jnp.concatenate([cross[:, None], bend], axis=1),
        ]
    )
    present = jnp.isfinite(log_weights)
    log_density = -(ahead**2) / (2 * v) - 0.5 * jnp.log(2 * math.pi * v)
    log_weights = jnp.where(present, log_weights + log_density + log_pair, -jnp.inf)
    return mixture(log_weights, score, curvature)


def both_sides(
    omega: Float[Array, "*batch"], variance: Float[Array, ""]
) -> tuple[Float[Array, " k *batch"], Float[Array, " k *batch"], Float[Array, " k *batch"]]:
    """Nodes of h1, logs of their widths and signs: Gauss-Legendre on each side of h1 = 0.

    For functions that jump at 0 and are smooth besides, under the belief N(ω, variance).
    """
    x, w = np.polynomial.legendre.leggauss(SIDE_NODES)
    column = (-1, *(1,) * omega.ndim)
    points = jnp.asarray((x + 1) / 2, omega.dtype).reshape(column)
    weights = jnp.asarray(w / 2, omega.dtype).reshape(column)
    s = jnp.sqrt(variance)
    nodes, widths, signs = [], [], []
    for sign in (1.0, -1.0):
        near = -sign * omega / s  # where this side begins, in standard units
        begin = jnp.maximum(near, -REACH)
        # Far from the belief its tail falls off within 1/begin.
        end = jnp.maximum(begin, 0) + REACH / (1 + jnp.maximum(begin, 0) / 4)
        nodes.append((omega + sign * s * begin)[None] + sign * s * (end - begin)[None] * points)
        widths.append(jnp.log(s * (end - begin))[None] + jnp.log(weights))
        signs.append(jnp.full_like(nodes[-1], sign))
    return jnp.concatenate(nodes), jnp.concatenate(widths), jnp.concatenate(signs)
