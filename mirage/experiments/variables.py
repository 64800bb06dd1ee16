"""The variables of a result: what each is, and how it follows from what was run."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from mirage.channels.registry import channel_of
from mirage.experiments.execute import Block, Clock
from mirage.experiments.experiment import Setup
from mirage.measures import (
    Measure,
    bayes_error,
    cos_best,
    direction_overlap,
    escape,
    matrix_mse,
    population_error,
    principal_cosines,
    weighted_mse,
)
from mirage.options import require
from mirage.symmetries import aligned, found_rank

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
    "overlap_aligned": (
        ("neuron", "direction"),
        "W U^T after the last step, up to the target's symmetries: of the largest trace",
        "1",
    ),
    "rank_found": ((), "singular values of W U^T above 0.1", "1"),
    "features_found": ((), "eigenvalues beyond the edge of the bulk, as the labels tell it", "1"),
    "direction_overlap": (("direction",), "|P u|^2, P the projection on the rows of W", "1"),
    "matrix_mse": ((), "|P - U^T U|^2/r, P the projection on the rows of W", "1"),
    "weighted_mse": ((), "sum of a^2 (1 - |P u|^2) over that of a^2, a the strengths", "1"),
    "generalisation_error": ((), "error E(f - g)^2 of the posterior mean f(x)", "label^2"),
    "covariance": (
        ("neuron", "other_neuron"),
        "posterior covariance of the directions after the last step",
        "1",
    ),
    "steps_taken": ((), "steps before the algorithm stopped", "1"),
    "escape_samples": (
        (),
        "samples seen when a neuron first has algorithm.stop_cosine; inf where none has",
        "1",
    ),
    "diverged_at": (
        (),
        "steps, or samples seen in one pass, at the first save that was not finite",
        "1",
    ),
    "samples_seen": (("step",), "samples seen at each save", "1"),
    "growth_trajectory": (("step", "neuron"), "growth of the iterates in each step", "1"),
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
    "test_error_trajectory": (
        ("step",),
        "population error E(f - g)^2 of the network at each step",
        "label^2",
    ),
    "output_weights": (("neuron",), "output weights a while the first layer was trained", "1"),
    "feature_eigenvalue_trajectory": (
        ("step", "neuron"),
        "eigenvalues of the covariance of the features after each step, ascending",
        "1",
    ),
    "inside_trajectory": (
        ("step",),
        "share of |W|^2 in the span of the target's directions U after each step",
        "1",
    ),
    "found_trajectory": (
        ("step",),
        "share of the span of U in that of the leading singular vectors of W after each step",
        "1",
    ),
    "feature_overlap": (
        ("feature",),
        "squared correlation of h_i with the best combination of neurons of the second layer",
        "1",
    ),
    "feature_overlap_trajectory": (
        ("step", "feature"),
        "feature_overlap with the layers above trained after each step of the first",
        "1",
    ),
    "weights": (("neuron", "input"), "W after the last step", "1"),
}


# Numbers of W Uᵀ over all saves of a seed up to which every save of it is kept.
KEPT = 2**17
# A direction counts as found where a singular value of W Uᵀ is above this.
FOUND = 0.1


def described(measures: Iterable[Measure]) -> dict[str, tuple[tuple[str, ...], str, str]]:
    """`VARIABLES` and what a user's own measures add."""
    return VARIABLES | {one.name(): ((), one.long_name(), one.units) for one in measures}


def measured(
    block: Block, clock: Clock, measures: Iterable[Measure] = ()
) -> Iterator[tuple[tuple[Any, ...], dict[str, np.ndarray]]]:
    """The variables of every setup of a block, leading axis seeds."""
    start = time.perf_counter()
    for lane, all_names in enumerate(block.family.names):
        values = _variables(block.family.setups[lane], block.values, lane, measures)
        for names in all_names:
            yield names, values
    clock.lap("measure", start)


def _variables(
    setup: Setup, values: dict[str, Any], lane: int, measures: Iterable[Measure]
) -> dict[str, np.ndarray]:
    """What is recorded of one setup: its results and the measures that follow from them."""
    values = jax.tree.map(lambda a: a[:, lane], values)
    trajectory = values.pop("trajectory")
    if "steps_taken" in values:
        values["steps_taken"] = values["steps_taken"].astype(np.float32)
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
        "cos_best": np.where(finite, cosine[:, -1], np.nan),
        "cos_best_trajectory": cosine,
    }
    if overlap[0].size <= KEPT:
        saved["overlap_trajectory"] = overlap
    if "gram" in trajectory:
        principal = principal_cosines(inside, trajectory["gram"])
        smallest = principal[..., -1] if principal.shape[-1] == overlap.shape[-1] else 0 * cosine
        saved["subspace_cosine"] = np.where(finite, smallest[:, -1], np.nan)
        saved["subspace_cosine_trajectory"] = smallest
    if "gram" in values and setup.target.amplitudes() is not None:
        saved |= _features(setup, inside[:, -1], values["gram"])
    if "gram" in values:
        for one in measures:
            saved[one.name()] = _own(one, setup, inside[:, -1], values["gram"], finite)
    if "features_found" in values:
        values["features_found"] = values["features_found"].astype(np.float32)
    if "samples_seen" in trajectory:
        saved["samples_seen"] = trajectory["samples_seen"].astype(np.float64)
    level = getattr(setup.algorithm, "stop_cosine", None)
    if level is not None:
        saved["escape_samples"] = escape(saved["samples_seen"], cosine, float(level))
    if "distance" in trajectory:
        saved["distance_trajectory"] = trajectory["distance"]
    if "eigenvalue" in trajectory:
        saved["eigenvalue"] = trajectory["eigenvalue"][:, -1]
        saved["eigenvalue_trajectory"] = trajectory["eigenvalue"]
    if "feature_eigenvalue" in trajectory:
        saved["feature_eigenvalue_trajectory"] = trajectory["feature_eigenvalue"]
    for name in ("growth", "inside", "found", "feature_overlap"):
        if name in trajectory:
            saved[f"{name}_trajectory"] = trajectory[name]
    if "covariance" in values:
        saved |= _estimates(setup, values["overlap"], values["gram"], values["covariance"], finite)
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
    if "readout" in trajectory and "gram" in trajectory:
        saved["test_error_trajectory"] = _errors(setup, trajectory, inside)
    if "test_error" in trajectory:
        saved["test_error_trajectory"] = trajectory["test_error"]
    if "test_error" in values:
        finite &= np.isfinite(values["test_error"])
        values["test_error"] = np.where(finite, values["test_error"], np.nan)
    saved["diverged_at"] = _diverged_at(norm, overlap, saved.get("samples_seen"))
    return {**values, **saved, "diverged": np.where(finite, 0.0, 1.0)}


def _errors(setup, trajectory, overlap) -> np.ndarray:
    """The population error at every save, (seeds, saves)."""
    shape = trajectory["norm"].shape[:2]

    def flat(array):
        return array.reshape(-1, *array.shape[2:])

    named = {name: flat(trajectory[name]) for name in ("readout", "biases", "intercept", "gram")}
    error = population_error(setup.target, setup.activation, overlap=flat(overlap), **named)
    return error.reshape(shape)


def _own(measure: Measure, setup: Setup, overlap, gram, finite) -> np.ndarray:
    """A user's measure of the cells that are finite, NaN for the others."""
    found = np.full(len(finite), np.nan)
    if finite.any():
        m, q = overlap[finite].astype(np.float64), gram[finite].astype(np.float64)
        values = np.asarray(measure(overlap=m, gram=q, target=setup.target), np.float64)
        shape, accepted = values.shape, f"expected one number a cell, the shape {(len(m),)}"
        require(shape == (len(m),), f"measures: the shape of {measure.name()}", shape, accepted)
        found[finite] = values
    return found


def _features(setup, overlap, gram) -> dict[str, np.ndarray]:
    """What is recorded of a target whose features have strengths."""
    own = direction_overlap(overlap, gram)
    return {
        "direction_overlap": own,
        "matrix_mse": matrix_mse(overlap, gram),
        "weighted_mse": weighted_mse(setup.target.amplitudes(), own),
    }


def _diverged_at(norm, overlap, seen) -> np.ndarray:
    """The first save that is not finite, as a number of steps or of samples; NaN for none."""
    lost = ~(np.isfinite(norm).all(axis=-1) & np.isfinite(overlap).all(axis=(-2, -1)))
    first = lost.argmax(axis=1)
    at = first.astype(np.float64) if seen is None else seen[np.arange(len(first)), first]
    return np.where(lost.any(axis=1), at, np.nan)


def _estimates(setup, overlap, gram, covariance, finite) -> dict[str, np.ndarray]:
    """What is recorded of rows of W that estimate the directions themselves."""
    error = bayes_error(
        channel_of(setup.target), setup.target, overlap=overlap, gram=gram, covariance=covariance
    )
    rank = found_rank(overlap.astype(np.float64), threshold=FOUND).astype(np.float64)
    return {
        "overlap_aligned": aligned(overlap.astype(np.float64), setup.target),
        "rank_found": np.where(finite, rank, np.nan),
        "generalisation_error": np.where(finite, error, np.nan),
    }
