"""Stage 2: the output weights, trained on fresh samples with the first layer frozen."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mirage import lapack
from mirage.activations import Activation
from mirage.algorithms.base import Problem
from mirage.designs import Rows
from mirage.options import Number
from mirage.places import at


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


class Readout(NamedTuple):
    """Output weights a, the intercept c, and the covariance of the features over the samples."""

    weights: Float[Array, " m"]
    intercept: Float[Array, ""]
    covariance: Float[Array, "m m"]


def ridge_rows(
    activation: Activation, biases: Float[Array, " m"]
) -> Callable[..., Float[Array, "k size"]]:
    """Of rows W x and y what `ridge_readout` sums: σ(w_j·x + b_j), then y, then 1."""

    def rows(z, y):
        features = activation(z + biases[:, None])
        return jnp.concatenate([features, y[None], jnp.ones_like(y)[None]])

    return rows


def ridge_readout(gram: Float[Array, "k k"], ridge: Number) -> Readout:
    """argmin_{a, c} Σ_i (a·σ_i + c − y_i)² + λ m ‖a‖² from Σ_i φ_i φ_iᵀ, φ = (σ, y, 1).

    In terms of the kernel σ·σ'/m this is kernel ridge regression with (K + λ I)⁻¹; the intercept
    is free: features and labels are centred on their sample means. k is m + 2.
    """
    n, m = gram[-1, -1], len(gram) - 2
    mean = gram[-1, :-1] / n
    centred = gram[:-1, :-1] / n - jnp.outer(mean, mean)
    covariance, moment = centred[:m, :m], centred[:m, m]
    penalty = ridge * m / n * jnp.eye(m, dtype=gram.dtype)
    a = lapack.solve(covariance + penalty, moment)
    return Readout(a, mean[m] - a @ mean[:m], covariance)


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
            slope = rows.keep(b, problem.loss.slope(a @ at(features, b), at(labels, b)))
            return total + at(features, b) @ slope

        return rows.fold(visit, jnp.zeros_like(a)) / n + weight_decay * a

    def step(_, carry):
        a, state = carry
        updates, state = descent.update(gradient(a), state, a)
        return optax.apply_updates(a, updates), state

    return jax.lax.fori_loop(0, steps, step, (start, descent.init(start)))[0]
