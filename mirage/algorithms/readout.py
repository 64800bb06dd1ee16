"""Stage 2: the output weights, trained on fresh samples with the first layer frozen."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from mirage.algorithms.base import Problem
from mirage.designs import Rows

BLOCK = 2048


def fresh_features(
    key: Key[Array, ""],
    problem: Problem,
    weights: Float[Array, "m d"],
    biases: Float[Array, " m"],
) -> tuple[Rows, Float[Array, "blocks m size"], Float[Array, "blocks size"]]:
    """Features σ(w_j·x + b_j) and labels of as many fresh samples as there were before.

    No x is drawn: (U x, W x) is Gaussian with covariance [U; W][U; W]ᵀ = RᵀR, R from the QR
    decomposition of [U; W]ᵀ, which also holds for neurons that coincide.
    """
    old = problem.matrix.rows
    rows = Rows.of(old.count, capacity=old.blocks * old.size, size=BLOCK)
    stacked = jnp.concatenate([problem.directions, weights])
    root = jnp.linalg.qr(stacked.T, mode="r").T  # (r + m, min(r + m, d))
    r = problem.directions.shape[0]
    key_x, key_y = jax.random.split(key)

    def sample(block):
        normal = jax.random.normal(
            jax.random.fold_in(key_x, block), (root.shape[1], BLOCK), root.dtype
        )
        return root @ normal

    def features(block):
        return problem.activation(sample(block)[r:] + biases[:, None])

    def label(block):
        return problem.target.draw(jax.random.fold_in(key_y, block), sample(block)[:r].T)

    return rows, rows.map(features), rows.map(label)


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
    return jnp.linalg.solve(gram + ridge, moment)


def readout_gd(
    problem: Problem,
    rows: Rows,
    features: Float[Array, "blocks m size"],
    labels: Float[Array, "blocks size"],
    start: Float[Array, " m"],
    *,
    steps: int,
    step_size: float | None,
    weight_decay: float,
    optimizer: str,
) -> Float[Array, " m"]:
    """`steps` steps of a ← a − η2 (∇_a L̂(a) + β2 a), L̂ the mean loss over the rows.

    A step size of None is 1/(λ_max(ΦᵀΦ/n) + β2), at which GD on a loss with ℓ'' ≤ 1 descends.
    """
    n = rows.count.astype(features.dtype)
    if step_size is None:
        top = jnp.linalg.eigvalsh(rows.gram(features, features) / n)[-1]
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
