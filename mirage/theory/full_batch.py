"""One step of first-layer descent on a whole batch of n = α d fresh samples, for d → ∞.

The gradients of n samples have in common that of the population, which lies in the span of U and
W, while what is left of each is orthogonal to that of the others. With C as for one sample alone
(`mirage.theory.order_parameters`; γ = γ0 n/d = γ0 α on the batch's mean loss), P = E[C (h, z)ᵀ] and
Σ the covariance of (h, z),

    M ← M − α E[C hᵀ],    Q ← Q − α E[C zᵀ + z Cᵀ] + α ν E[C Cᵀ] + α² P Σ⁺ Pᵀ,

a step dτ = α of the rates but for the last term. Exact where W does not depend on the batch: at
every step of one-pass descent, and at the first step on a batch that is used again (Dandi et al.
2024, arXiv 2402.03220). Spherical: rows move by the part of the gradient orthogonal to them and are
normalised.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mirage.arguments import positive
from mirage.options import require
from mirage.precision import double_precision
from mirage.theory.joint_quadrature import POINTS
from mirage.theory.order_parameters import (
    Dynamics,
    OrderParameters,
    averages,
    normalised,
    prepared,
)
from mirage.updates import Gradient


def full_batch_step(
    dynamics: Dynamics,
    overlap: Float[np.ndarray, "m r"],
    gram: Float[np.ndarray, "m m"],
    *,
    alpha: float,
    points: int = POINTS,
) -> OrderParameters:
    """M and Q after one step of gradient descent on a fresh batch of n = α d samples.

    `overlap` (m, r), `gram` (m, m), and so what is returned, in float64. The step on the batch's
    mean loss is γ = γ0 α, γ0 being the `step_size` of the update. ValueError as `trajectory`, for
    α ≤ 0, and for updates other than `Gradient`, which use the samples again.
    """
    positive(alpha=alpha)
    name = type(dynamics.update).__name__
    require(isinstance(dynamics.update, Gradient), "update", name, "expected Gradient")
    with double_precision():
        setup = prepared(dynamics, overlap, gram, points)
        m, q = _full_batch(*setup, jnp.asarray(float(alpha)))
    return OrderParameters(np.asarray(m), np.asarray(q))


@eqx.filter_jit
def _full_batch(dynamics, rule, state, alpha):
    m, q = state
    signal, drift, square = averages(dynamics, rule, m, q)
    eye = jnp.eye(m.shape[1], dtype=m.dtype)
    covariance = jnp.block([[eye, m.T], [m, q]])
    along = jnp.concatenate([signal, drift], axis=1)
    inverse = jnp.linalg.pinv(covariance, rtol=1e-10, hermitian=True)
    moved = alpha**2 * along @ inverse @ along.T + alpha * dynamics.noise * square
    kept = 1 + alpha * jnp.diag(drift) if dynamics.spherical else jnp.ones(len(q))
    across = alpha * kept[:, None] * drift.T
    new_m = kept[:, None] * m - alpha * signal
    new_q = jnp.outer(kept, kept) * q - across - across.T + moved
    return normalised(new_m, new_q) if dynamics.spherical else (new_m, new_q)
