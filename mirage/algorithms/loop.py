"""The one loop: it steps, and saves what the order parameters need at every mark of a schedule."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from mirage.algorithms.base import Algorithm, Problem, Trained, order_parameters
from mirage.algorithms.fresh import sampled_error
from mirage.designs import Memory, Window
from mirage.places import at, diagonal, full_pieces, pieces, put

# Networks up to this width keep Q at every save, not only its diagonal.
GRAM_WIDTH = 32
# The error of a network up to this width is left to an integral over every pair of neurons.
INTEGRAL_WIDTH = 128


def train(
    key: Key[Array, ""],
    algorithm: Algorithm,
    problem: Problem,
    memory: Memory,
    *,
    sample_error: bool = False,
) -> dict[str, Any]:
    """Run an algorithm to its end.

    Returns `trajectory` (overlap (saves, m, r), norm (saves, m), gram (saves, m, m) for at most
    `GRAM_WIDTH` neurons and what `observe` adds, the start included: after every step, or with
    `samples_seen` at every save of a one-pass algorithm), the order parameters `overlap` and
    `gram` of the last weights, `weights` (m, d) where there are any, the `outcome` of the last
    state, and of the network that `finish` ends with what its population error needs: `readout`,
    `biases`, `intercept`, `readout_overlap` and `readout_gram`, or, with `sample_error` and for
    more than `INTEGRAL_WIDTH` neurons, the `test_error` itself on fresh samples. Where the
    readout of every save is observed, its error is sampled likewise, with `sample_error` or
    where Q is not kept.
    """
    key_init, key_finish, key_error = jax.random.split(key, 3)
    start = algorithm.init(key_init, problem, memory)
    marks = algorithm.schedule(problem.matrix.rows.count)

    def observe(state):
        seen = algorithm.order_parameters(state, problem)
        seen["norm"] = jnp.sqrt(diagonal(seen["gram"]))
        if len(seen["norm"]) > GRAM_WIDTH:
            del seen["gram"]
        seen |= algorithm.observe(state)
        if "readout" in seen and (sample_error or "gram" not in seen):
            network = [seen.pop(name) for name in ("biases", "readout", "intercept")]
            network = Trained(state.weights, *network)
            seen["test_error"] = sampled_error(key_error, problem, network)
        return seen

    def advance(carry):
        save, state, taken, trajectory = carry
        new = _advanced(algorithm, problem, state, at(marks, save), at(marks, save + 1))
        stopped = algorithm.stopped(state)
        if stopped is False:
            state, taken = new, taken + 1
        else:  # an algorithm that stopped stays where it is, whoever goes on beside it
            state = jax.tree.map(lambda a, b: jnp.where(stopped, a, b), state, new)
            taken = taken + jnp.where(stopped, 0, 1)
        trajectory = jax.tree.map(lambda t, o: put(t, save + 1, o), trajectory, observe(state))
        return save + 1, state, taken, trajectory

    def unfinished(carry):
        save, state, _, _ = carry
        stopped = algorithm.stopped(state)
        more = save < len(marks) - 1
        return more if stopped is False else more & any_lane(~jnp.asarray(stopped))

    trajectory = jax.tree.map(
        lambda o: jnp.zeros((len(marks), *o.shape), o.dtype).at[0].set(o), observe(start)
    )
    zero = jnp.zeros((), jnp.int32)
    state, taken = start, zero
    if len(marks) > 1:  # a step that is never taken may ask more of X than there is room for
        _, state, taken, trajectory = jax.lax.while_loop(
            unfinished, advance, (zero, start, zero, trajectory)
        )
    reached = jnp.minimum(jnp.arange(len(marks)), taken)
    trajectory = jax.tree.map(lambda t: t[reached], trajectory)
    results = {
        "trajectory": trajectory,
        "steps_taken": taken,
        **algorithm.order_parameters(state, problem),
        **algorithm.outcome(state),
    }
    if hasattr(state, "weights"):
        results["weights"] = state.weights
    if algorithm.one_pass:
        trajectory["samples_seen"] = marks[reached]
        del results["steps_taken"]
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
    if trained.weights is None:
        seen = algorithm.order_parameters(state, problem)
    elif sample_error or len(trained.readout) > INTEGRAL_WIDTH:
        return {**results, "test_error": sampled_error(key_error, problem, trained)}
    else:
        seen = order_parameters(trained.weights, problem.directions)
    return {**results, "readout_overlap": seen["overlap"], "readout_gram": seen["gram"]}


def _advanced(
    algorithm: Algorithm,
    problem: Problem,
    state: Any,
    done: Int[Array, ""],
    until: Int[Array, ""],
) -> Any:
    """The state at the next mark: a step later, or after the samples between, block by block."""
    if not algorithm.one_pass:
        return algorithm.step(state, problem)
    size = algorithm.block

    def visit(block, state):
        first = block * size
        window = Window(block, jnp.maximum(done - first, 0), jnp.minimum(until - first, size))
        seen = eqx.tree_at(lambda p: p.window, problem, window, is_leaf=lambda x: x is None)
        return algorithm.step(state, seen)

    return jax.lax.fori_loop(full_pieces(done, size), pieces(until, size), visit, state)


@jax.custom_batching.custom_vmap
def any_lane(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """The flag; under `vmap` whether any lane has it, so that a loop goes on for all together."""
    return flag


@any_lane.def_vmap
def _any_lane_batched(_size, _batched, flag):
    return flag.any(), False
