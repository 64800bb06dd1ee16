"""The one loop: it steps, and saves what the order parameters need after every step."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mirage.algorithms.base import Algorithm, Problem
from mirage.designs import Memory


def order_parameters(weights: Array, directions: Array) -> dict[str, Array]:
    """`overlap` = W Uᵀ (m, r) and `gram` = W Wᵀ (m, m)."""
    return {"overlap": weights @ directions.T, "gram": weights @ weights.T}


def train(
    key: Key[Array, ""], algorithm: Algorithm, problem: Problem, memory: Memory
) -> dict[str, Any]:
    """Run an algorithm to its end.

    Returns `trajectory` (overlap (T+1, m, r) and norm (T+1, m), the start included), the order
    parameters `overlap` and `gram` of the last weights, `weights` (m, d), and whatever
    `finish` adds.
    """
    key_init, key_finish = jax.random.split(key)
    start = algorithm.init(key_init, problem, memory)

    def observe(state):
        seen = order_parameters(state.weights, problem.directions)
        return {"overlap": seen["overlap"], "norm": jnp.sqrt(jnp.diag(seen["gram"]))}

    def body(state, _):
        state = algorithm.step(state, problem)
        return state, observe(state)

    state, saved = jax.lax.scan(body, start, None, length=algorithm.steps)
    trajectory = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), observe(start), saved)
    return {
        "trajectory": trajectory,
        "weights": state.weights,
        **order_parameters(state.weights, problem.directions),
        **algorithm.finish(key_finish, state, problem),
    }
