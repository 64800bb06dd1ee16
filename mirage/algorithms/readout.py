"""Stage 2: the output weights, trained on fresh samples with the first layer frozen."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mirage import lapack
from mirage.algorithms.base import Problem
from mirage.designs import Rows
from mirage.options import Number


def ridge_solution(
    rows: Rows,
    features: Float[Array, "blocks m size"],
    labels: Float[Array, "blocks size"],
    weight_decay: float,
) -> Float[Array, " m"]:
    """argmin_a (1/2n) Σ (a·φ_i − y_i)² + (β2/2)‖a‖², the limit of `readout_gd` for MSE."""
    n = rows.count.astype(features.dtype)
    gram = rows.gram(features, features) / n
    moment = rows.gram(features, labels[:, None])[:, 0] / n
    ridge = weight_decay * jnp.eye(gram.shape[0], dtype=gram.dtype)
    return lapack.solve(gram + ridge, moment)


def readout_gd(
    problem: Problem,
    rows: Rows,
    features: Float[Array, "blocks m size"],
    labels: Float[Array, "blocks size"],
    start: Float[Array, " m"],
    *,
    steps: int,
    step_size: Number | None,
    weight_decay: Number,
    optimizer: str,
) -> Float[Array, " m"]:
    """`steps` steps of a ← a − η2 (∇_a L̂(a) + β2 a), L̂ the mean loss over the rows.

    A step size of None is 1/(λ_max(ΦᵀΦ/n) + β2), at which GD on a loss with ℓ'' ≤ 1 descends.
    """
    n = rows.count.astype(features.dtype)
    if step_size is None:
        top = lapack.eigvalsh(rows.gram(features, features) / n)[-1]
        rate = 1 / jnp.maximum(top + weight_decay, jnp.finfo(top.dtype).tiny)
    else:
        rate = jnp.asarray(step_size, features.dtype)
    descent = getattr(optax, optimizer)(rate)

    def gradient(a):
        def visit(b, total):
            slope = rows.keep(b, problem.loss.slope(a @ features[b], labels[b]))
            return total + features[b] @ slope

        return rows.fold(visit, jnp.zeros_like(a)) / n + weight_decay * a

    def step(_, carry):
        a, state = carry
        updates, state = descent.update(gradient(a), state, a)
        return optax.apply_updates(a, updates), state

    return jax.lax.fori_loop(0, steps, step, (start, descent.init(start)))[0]
