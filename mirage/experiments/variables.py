"""The variables of a result: what each is, and how it follows from what was run."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mirage.experiments.execute import Block, Clock
from mirage.experiments.experiment import Setup
from mirage.measures import cos_best, population_error, principal_cosines

# name → (extra dimensions, long name, units)
VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cos_best": ((), "max over neurons of |U w|/|w| after the last step", "1"),
    "cos_best_trajectory": (("step",), "max over neurons of |U w|/|w| after each step", "1"),
    "subspace_cosine": ((), "smallest principal cosine of W and U after the last step", "1"),
    "subspace_cosine_trajectory": (
        ("step",),
        "smallest principal cosine of W and U after each step",
        "1",
    ),
    "overlap": (("neuron", "direction"), "W U^T after the last step", "1"),
    "gram": (("neuron", "other_neuron"), "W W^T after the last step", "1"),
    "norm": (("neuron",), "|w| after the last step", "1"),
    "overlap_trajectory": (("step", "neuron", "direction"), "W U^T after each step", "1"),
    "norm_trajectory": (("step", "neuron"), "|w| after each step", "1"),
    "distance_trajectory": (
        ("step",),
        "|W - P|/|P| of the GD iterate W and the power iterate P after each step",
        "1",
    ),
    "eigenvalue": (("neuron",), "eigenvalues whose eigenvectors are the rows of W", "label"),
    "eigenvalue_trajectory": (("step", "neuron"), "eigenvalues after each step", "label"),
    "ritz_value": (("ritz",), "eigenvalues on the whole Krylov space", "label"),
    "readout": (("neuron",), "output weights a of the trained network", "1"),
    "biases": (("neuron",), "biases of the trained network", "1"),
    "intercept": ((), "intercept of the trained network", "1"),
    "test_error": ((), "population error E(f - g)^2 of the trained network", "label^2"),
    "weights": (("neuron", "input"), "W after the last step", "1"),
}


def measured(block: Block, clock: Clock) -> Iterator[tuple[tuple[Any, ...], dict[str, np.ndarray]]]:
    """The variables of every setup of a block, leading axis seeds."""
    start = time.perf_counter()
    for lane, names in enumerate(block.family.names):
        yield names, _variables(block.family.setups[lane], block.values, lane)
    clock.lap("measure", start)


def _variables(setup: Setup, values: dict[str, Any], lane: int) -> dict[str, np.ndarray]:
    """What is recorded of one setup: its results and the measures that follow from them."""
    values = jax.tree.map(lambda a: a[:, lane], values)
    trajectory = values.pop("trajectory")
    overlap, norm = trajectory["overlap"], trajectory["norm"]
    finite = np.isfinite(norm).all(axis=(1, 2)) & np.isfinite(overlap).all(axis=(1, 2, 3))
    inside = overlap
    if "direction_gram" in values:  # measures are of the span of U, whatever its rows
        root = np.linalg.cholesky(values.pop("direction_gram").astype(np.float64))
        inside = np.swapaxes(np.linalg.solve(root[:, None], np.swapaxes(overlap, -1, -2)), -1, -2)
    cosine = cos_best(inside, norm)
    saved = {
        "norm": norm[:, -1],
        "norm_trajectory": norm,
        "overlap_trajectory": overlap,
        "cos_best": np.where(finite, cosine[:, -1], np.nan),
        "cos_best_trajectory": cosine,
    }
    if "gram" in trajectory:
        principal = principal_cosines(inside, trajectory["gram"])
        smallest = principal[..., -1] if principal.shape[-1] == overlap.shape[-1] else 0 * cosine
        saved["subspace_cosine"] = np.where(finite, smallest[:, -1], np.nan)
        saved["subspace_cosine_trajectory"] = smallest
    if "distance" in trajectory:
        saved["distance_trajectory"] = trajectory["distance"]
    if "eigenvalue" in trajectory:
        saved["eigenvalue"] = trajectory["eigenvalue"][:, -1]
        saved["eigenvalue_trajectory"] = trajectory["eigenvalue"]
    if "readout_gram" in values:
        values["test_error"] = population_error(
            setup.target,
            setup.activation,
            readout=values["readout"],
            biases=values["biases"],
            intercept=values["intercept"],
            overlap=values.pop("readout_overlap"),
            gram=values.pop("readout_gram"),
        )
    if "test_error" in values:
        finite &= np.isfinite(values["test_error"])
        values["test_error"] = np.where(finite, values["test_error"], np.nan)
    return {**values, **saved, "diverged": np.where(finite, 0.0, 1.0)}
