"""How much a network has of the target's features, linear and non-linear."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage import lapack
from mirage.algorithms.base import Problem
from mirage.algorithms.fresh import TEST_ROWS, fresh_moments

# Of the largest eigenvalue of a covariance of features: what lies below is rounding.
ROUNDING = 1e-6


def linear_overlaps(
    weights: Float[Array, "m d"], directions: Float[Array, "r d"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How much of W lies in the span of an orthonormal U, and how much of that in the span of W.

    ‖W Uᵀ‖²_F / ‖W‖²_F, and ‖V Uᵀ‖²_F / r with V the r leading right singular vectors of W (as many
    as there are, if fewer).
    """
    m, d = weights.shape
    rank = len(directions)
    inside = jnp.sum((weights @ directions.T) ** 2) / jnp.sum(weights**2)
    if d <= m:
        leading = lapack.eigh(weights.T @ weights)[1][:, -rank:].T
    else:
        values, vectors = lapack.eigh(weights @ weights.T)
        values, vectors = values[-rank:], vectors[:, -rank:]
        kept = values > ROUNDING * values[-1]
        scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
        leading = scale[:, None] * (vectors.T @ weights)
    return inside, jnp.sum((leading @ directions.T) ** 2) / rank


def feature_overlap(
    key: Key[Array, ""],
    problem: Problem,
    weights: Float[Array, "m d"],
    features: Callable[[Float[Array, "m size"]], Float[Array, "p size"]],
) -> Float[Array, " q"]:
    """The squared correlation of each h_i with the best combination of p features of W x.

    Over fresh samples, N of them, with 1 − R² multiplied by (N − 1)/(N − p − 1), as it is fitted.
    """

    def rows(z, h):
        ours, wanted = features(z), problem.target.features(h).T
        return jnp.concatenate([wanted, ours, jnp.ones_like(ours[:1])])

    gram = fresh_moments(key, problem, weights, rows)
    mean = gram[-1, :-1] / TEST_ROWS
    covariance = gram[:-1, :-1] / TEST_ROWS - jnp.outer(mean, mean)
    q = jax.eval_shape(problem.target.features, jnp.zeros((1, len(problem.directions)))).shape[-1]
    ours, both, own = covariance[q:, q:], covariance[q:, :q], jnp.diag(covariance)[:q]
    p = len(ours)
    small = ROUNDING * jnp.trace(ours) * jnp.eye(p, dtype=ours.dtype)
    explained = jnp.sum(both * lapack.solve(ours + small, both), axis=0) / own
    return jnp.clip(1 - (1 - explained) * (TEST_ROWS - 1) / (TEST_ROWS - p - 1), 0, 1)
