"""One seed at one d: its keys, its data, its training, for the cells that share one X."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from mirage import threefry
from mirage.algorithms import draw_problem, train
from mirage.experiments.experiment import Experiment, Setup
from mirage.experiments.plan import Batch, cells_at_once

# The random streams of a cell, by name and not by order of use.
STREAMS = ("matrix", "labels", "training", "directions", "target")


def seed_keys(experiment: Experiment, d: int, seeds: np.ndarray) -> np.ndarray:
    """Keys for each (root seed, d, seed), whatever else is in the grid: one a random stream.

    Their data, (seeds, streams, 2): made ahead, so that no program has to be compiled with them.
    """
    root = threefry.fold_in(np.array([0, experiment.root_seed], np.uint32), np.array(d, np.uint32))
    of_seeds = threefry.fold_in(root, seeds.astype(np.uint32))
    return threefry.fold_in(of_seeds[:, None], np.arange(len(STREAMS), dtype=np.uint32)[None])


def stream(keys: Key[Array, " streams"], name: str) -> Key[Array, ""]:
    """The key of one named random stream of a cell."""
    return keys[STREAMS.index(name)]


def run_seed(
    static: Setup, batch: Batch, keep_weights: bool, keys, drawn, seed, sizes, lanes, inputs
) -> dict[str, Any]:
    """Train every lane of a family on the first n rows of one seed, for each n of `sizes`.

    Results are (sizes × lanes, ...), the lanes of one size next to each other.
    """
    d, design, n_max = batch.d, batch.design, batch.n_max
    matrix_key = stream(keys, "matrix")

    def run(cell):
        numbers, n = cell
        setup = eqx.combine(numbers, static)
        right, left = setup.columns
        size = {"n_max": n_max, "d": d, "right": right, "left": left, "bound": sizes.max()}
        directions = setup.directions.draw(stream(keys, "directions"), setup.target.rank, d)
        target = setup.target.drawn(stream(keys, "target"))
        problem, memory = draw_problem(
            stream(keys, "labels"),
            design.matrix(drawn, seed, n, inputs, **size),
            directions,
            target,
            one_pass=setup.algorithm.one_pass,
            inputs=inputs,
            inputs_key=matrix_key,
            loss=setup.loss,
            activation=setup.activation,
            network=setup.network,
        )
        orthonormal = setup.directions.orthonormal
        # An integral over (M, Q) is taken after all seeds, and knows nothing that one has drawn.
        integrable = orthonormal and inputs.standard_gaussian and not target.draws
        key_train = stream(keys, "training")
        result = train(key_train, setup.algorithm, problem, memory, sample_error=not integrable)
        if not keep_weights:
            result.pop("weights", None)
        if not orthonormal:
            result["direction_gram"] = directions @ directions.T
        return result

    count = jax.tree.leaves(lanes)[0].shape[0]
    every = jax.tree.map(lambda a: jnp.tile(a, (len(sizes), *[1] * (a.ndim - 1))), lanes)
    cells = (every, jnp.repeat(sizes, count))
    at_once = cells_at_once(static, design)
    return jax.lax.map(run, cells, batch_size=at_once) if at_once > 1 else jax.lax.map(run, cells)
