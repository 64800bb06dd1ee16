"""The one loop: it steps, and saves what the order parameters need after every step."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mirage.algorithms.base import Algorithm, Problem
from mirage.algorithms.fresh import sampled_error
from mirage.designs import Memory

# Networks up to this width keep Q after every step, not only its diagonal.
GRAM_WIDTH = 32


def order_parameters(weights: Array, directions: Array) -> dict[str, Array]:
    """`overlap` = W Uᵀ (m, r) and `gram` = W Wᵀ (m, m)."""
    return {"overlap": weights @ directions.T, "gram": weights @ weights.T}


def train(
    key: Key[Array, ""],
    algorithm: Algorithm,
    problem: Problem,
    memory: Memory,
    *,
    sample_error: bool = False,
) -> dict[str, Any]:
    """Run an algorithm to its end.

    Returns `trajectory` (overlap (T+1, m, r), norm (T+1, m), gram (T+1, m, m) for at most
    `GRAM_WIDTH` neurons and what `observe` adds, the start included), the order parameters
    `overlap` and `gram` (as above) of the last weights, `weights` (m, d), the `outcome` of the last
    state, and of the network that `finish` ends with what its population error needs: `readout`,
    `biases`, `intercept`, `readout_overlap` and `readout_gram`, or, with `sample_error`, the
    `test_error` itself on fresh samples.
    """
    key_init, key_finish, key_error = jax.random.split(key, 3)
    start = algorithm.init(key_init, problem, memory)

    def observe(state):
        seen = order_parameters(state.weights, problem.directions)
        seen["norm"] = jnp.sqrt(jnp.diag(seen["gram"]))
        if len(seen["norm"]) > GRAM_WIDTH:
            del seen["gram"]
        return {**seen, **algorithm.observe(state)}

    def advance(carry):
        state, taken, trajectory = carry
        state, taken = algorithm.step(state, problem), taken + 1
        return (
            state,
            taken,
            jax.tree.map(lambda t, o: t.at[taken].set(o), trajectory, observe(state)),
        )

    def unfinished(carry):
        state, taken, _ = carry
        return (taken < algorithm.steps) & jnp.logical_not(algorithm.stopped(state))

    length = algorithm.steps + 1
    trajectory = jax.tree.map(
        lambda o: jnp.zeros((length, *o.shape), o.dtype).at[0].set(o), observe(start)
    )
    begin = (start, jnp.zeros((), jnp.int32), trajectory)
    state, taken, trajectory = jax.lax.while_loop(unfinished, advance, begin)
    # An algorithm that stopped stays where it is.
    reached = jnp.minimum(jnp.arange(length), taken)
    trajectory = jax.tree.map(lambda t: t[reached], trajectory)
    results = {
        "trajectory": trajectory,
        "steps_taken": taken,
        "weights": state.weights,
        **order_parameters(state.weights, problem.directions),
        **algorithm.outcome(state),
    }
    if "gram" not in trajectory:
        del results["gram"]
    trained = algorithm.finish(key_finish, state, problem)
    if trained is None:
        return results
    results |= {
        "readout": trained.readout,
        "biases": trained.biases,
        "intercept": trained.intercept,
    }
    if sample_error:
        return {**results, "test_error": sampled_error(key_error, problem, trained)}
    seen = order_parameters(trained.weights, problem.directions)
    return {**results, "readout_overlap": seen["overlap"], "readout_gram": seen["gram"]}
