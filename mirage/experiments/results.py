"""From blocks of results to one labelled Dataset."""

import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from mirage.experiments.execute import Block, Clock, Executor, Family
from mirage.experiments.experiment import GROUPS, Experiment, Setup
from mirage.experiments.search import Bisection, Evaluations, SearchError, bisect
from mirage.experiments.tuning import tuned
from mirage.measures import SCALARS, cos_best, population_error, principal_cosines

log = logging.getLogger(__name__)

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
    "readout": (("neuron",), "output weights a of the trained network", "1"),
    "biases": (("neuron",), "biases of the trained network", "1"),
    "intercept": ((), "intercept of the trained network", "1"),
    "test_error": ((), "population error E(f - g)^2 of the trained network", "label^2"),
    "weights": (("neuron", "input"), "W after the last step", "1"),
}
COORDINATES: dict[str, tuple[str, str]] = {
    "d": ("input dimension", "1"),
    "alpha": ("samples per dimension n/d", "1"),
    "exponent": ("log n / log d", "1"),
    "n": ("samples", "1"),
    "seed": ("repetition", "1"),
    "step": ("gradient steps", "1"),
    "neuron": ("neuron", "1"),
    "other_neuron": ("neuron", "1"),
    "direction": ("direction of the target's subspace", "1"),
    "input": ("input coordinate", "1"),
    "epsilon": ("threshold that the measure is to stay under", "1"),
    "level": ("threshold that the measure is to reach", "1"),
    "trial": ("sample size tried by the search, smallest first", "1"),
}


class Table:
    """Arrays over (axes, d, sample size, seed, ...), NaN until filled."""

    def __init__(self, experiment: Experiment, samples: int):
        self.experiment = experiment
        self.cells = (len(experiment.dimensions), samples, experiment.seeds)
        self.shape = (*(len(names) for names in experiment.axes.values()), *self.cells)
        self.arrays: dict[str, np.ndarray] = {}

    def place(self, names: tuple[Any, ...]) -> tuple[int, ...]:
        """Where the setup of these names lies along the axes."""
        axes = self.experiment.axes.values()
        return tuple(options.index(n) for options, n in zip(axes, names, strict=True))

    def array(self, name: str, dtype: Any, extra: tuple[int, ...] = ()) -> np.ndarray:
        """The array of that name, grown with NaN to hold an `extra` shape beside the cells."""
        rank = len(self.shape)
        old = self.arrays.get(name, np.zeros((0,) * (rank + len(extra)), dtype))
        shape = (*self.shape, *(max(k, o) for k, o in zip(extra, old.shape[rank:], strict=True)))
        if old.shape != shape:
            grown = np.full(shape, np.nan, dtype)
            grown[tuple(slice(k) for k in old.shape)] = old
            self.arrays[name] = grown
        return self.arrays[name]

    def fill(
        self, names: tuple[Any, ...], d: int, sample: int, seeds: slice, values: dict[str, Any]
    ) -> None:
        """Enter the values (seeds, ...) of one setup at one d and sample size."""
        cell = (*self.place(names), self.experiment.dimensions.index(d), sample)
        for name, value in values.items():
            array = self.array(name, value.dtype, value.shape[1:])
            array[cell][(seeds, *(slice(k) for k in value.shape[1:]))] = value


def simulate(experiment: Experiment, folder: str | os.PathLike | None = None) -> xr.Dataset:
    """Run every cell of an experiment and return the labelled results with their provenance.

    A cell that diverged is NaN and has `diverged` set. With `runtime.profile` a trace of
    JAX's profiler goes to `folder`.
    """
    start = time.perf_counter()
    experiment.runtime.configure()
    with experiment.runtime.traced(folder):
        experiment = tuned(experiment, measured)
        executor = Executor(experiment)
        run = grid if experiment.search is None else search
        with executor.progress():
            dataset = run(experiment, executor)
    _describe(dataset, experiment)
    dataset.attrs = _provenance(experiment, executor, time.perf_counter() - start)
    return dataset


def measured(experiment: Experiment) -> xr.Dataset:
    """The results of an experiment's grid, without provenance."""
    executor = Executor(experiment)
    with executor.progress():
        return grid(experiment, executor)


def grid(experiment: Experiment, executor: Executor) -> xr.Dataset:
    """Every cell of a grid."""
    table = Table(experiment, len(experiment.sample_values))
    designs = np.full(table.shape[:-1], "", object)
    for block in executor.blocks():
        sizes = experiment.sizes(block.d)
        samples = [i for i, n in enumerate(sizes) if n == block.n]
        for names, values in _measured(block, executor.clock):
            for sample in samples:
                table.fill(names, block.d, sample, block.seeds, values)
                place = (*table.place(names), experiment.dimensions.index(block.d), sample)
                designs[place] = block.design.name()
    return _dataset(experiment, table, designs)


def search(experiment: Experiment, executor: Executor) -> xr.Dataset:
    """The smallest sample size for every setup, threshold and d."""
    option = experiment.search
    assert isinstance(option, Bisection)
    kind, thresholds = option.over, option.thresholds
    cell = (*experiment.axes, option.threshold_name, "d")
    shape = (
        *(len(a) for a in experiment.axes.values()),
        len(thresholds),
        len(experiment.dimensions),
    )
    found = np.empty(shape, object)
    trials: dict[tuple[int, ...], Evaluations] = {}
    where = Table(experiment, 1)
    designs = np.full((*shape[:-2], shape[-1]), "", object)
    for batch, cells in executor.batches:
        column = experiment.dimensions.index(batch.d)
        for family in {id(f): f for f, _ in cells}.values():
            for lane, names in enumerate(family.names):
                trial = _evaluations(experiment, executor, batch, family, lane)
                place = where.place(names)
                for row, threshold in enumerate(thresholds):
                    found[(*place, row, column)] = bisect(
                        option, threshold, trial, experiment.root_seed
                    )
                trials[(*place, column)] = trial
                designs[(*place, column)] = batch.design.name()
    dataset = xr.Dataset(coords=experiment.axes)
    dataset.coords[option.threshold_name] = list(thresholds)
    dataset.coords["d"] = list(experiment.dimensions)
    words = f"smallest {kind} at which the {option.quantile:g} quantile of {option.measure} holds"
    for name, field, long_name in (
        (f"{kind}_min", "value", words),
        (f"{kind}_min_low", "low", f"lower end of its {option.confidence:.0%} interval"),
        (f"{kind}_min_high", "high", f"upper end of its {option.confidence:.0%} interval"),
        ("status", "status", "found, not reached, or below the lower end"),
        ("monotone", "monotone", "whether the criterion holds at every larger size tried"),
    ):
        values = np.vectorize(lambda f, field=field: getattr(f, field))(found)
        dataset[name] = (cell, values, {"long_name": long_name, "units": "1"})
    value = dataset[f"{kind}_min"].values
    if kind != "n":
        sizes = [
            experiment.size(v, experiment.dimensions[index[-1]]) if np.isfinite(v) else np.nan
            for index, v in np.ndenumerate(value)
        ]
        attrs = {"long_name": f"samples at {kind}_min", "units": "1"}
        dataset["n"] = (cell, np.reshape(sizes, shape), attrs)
    dataset["design"] = (
        (*experiment.axes, "d"),
        designs.astype(str),
        {"long_name": "design matrix", "units": "1"},
    )
    return xr.merge([dataset, _trials(experiment, trials, designs.shape)])


def _evaluations(experiment, executor, batch, family, lane) -> Evaluations:
    """The measure of one setup at any sample size, run when asked for."""
    option = experiment.search
    alone = Family((family.names[lane],), (family.setups[lane],))

    def evaluate(value):
        n = experiment.size(value, batch.d)
        seeds = np.full(experiment.seeds, np.nan)
        for block in executor.run(batch, [(alone, n)]):
            for _, values in _measured(block, executor.clock):
                if option.measure not in values:
                    raise SearchError(
                        f"search.measure={option.measure!r}: "
                        f"algorithm={alone.setup.algorithm.name()} does not give it; "
                        f"expected one of {', '.join(m for m in SCALARS if m in values)}"
                    )
                seeds[block.seeds] = values[option.measure]
        lost = int(np.isnan(seeds).sum())
        where = f"d={batch.d} {option.over}={value:.4g}"
        log.info(
            "%s: %s %.3g",
            where,
            option.measure,
            np.nanmedian(seeds) if lost < len(seeds) else np.nan,
        )
        if lost:
            log.warning("%s: %d of %d seeds diverged and count as failing", where, lost, len(seeds))
        return seeds

    return Evaluations(evaluate, lambda value: experiment.size(value, batch.d))


def _trials(experiment, trials, shape) -> xr.Dataset:
    """All that a search tried: sample values and what was measured there, NaN-padded."""
    option = experiment.search
    count = max(len(trial.values) for trial in trials.values())
    tried = np.full((*shape, count), np.nan)
    measured = np.full((*shape, count, experiment.seeds), np.nan)
    for place, trial in trials.items():
        sizes, values = trial.table()
        tried[place][: len(sizes)] = sizes
        measured[place][: len(sizes)] = values
    cell = (*experiment.axes, "d", "trial")
    words = f"{option.over} tried by the search"
    return xr.Dataset(
        {
            f"{option.over}_tried": (cell, tried, {"long_name": words, "units": "1"}),
            option.measure: (
                (*cell, "seed"),
                measured,
                {"long_name": VARIABLES[option.measure][1], "units": VARIABLES[option.measure][2]},
            ),
        },
        coords={
            "trial": np.arange(count),
            "seed": experiment.first_seed + np.arange(experiment.seeds),
        },
    )


def _measured(
    block: Block, clock: Clock
) -> Iterator[tuple[tuple[Any, ...], dict[str, np.ndarray]]]:
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


def _dataset(experiment: Experiment, table: Table, designs: np.ndarray) -> xr.Dataset:
    axes, kind = experiment.axes, experiment.sample_kind
    cell = (*axes, "d", kind, "seed")
    dataset = xr.Dataset(
        coords={
            **axes,
            "d": np.asarray(experiment.dimensions, np.int64),
            kind: np.asarray(experiment.sample_values),
            "seed": experiment.first_seed + np.arange(experiment.seeds),
        }
    )
    longest: dict[str, int] = {}
    for name, (extra, _, _) in VARIABLES.items():
        if name in table.arrays:
            shape = table.arrays[name].shape[len(cell) :]
            longest |= {k: max(v, longest.get(k, 0)) for k, v in zip(extra, shape, strict=True)}
    for name, (extra, long_name, units) in VARIABLES.items():
        if name in table.arrays:
            attrs = {"long_name": long_name, "units": units}
            # Setups of other widths may lack a variable: all get the longest dimensions.
            dtype = table.arrays[name].dtype
            padded = table.array(name, dtype, tuple(longest[dim] for dim in extra))
            dataset[name] = ((*cell, *extra), padded, attrs)
            for dim, size in zip(extra, table.arrays[name].shape[len(cell) :], strict=True):
                dataset.coords[dim] = np.arange(size)
    dataset["diverged"] = (
        cell,
        table.arrays["diverged"].astype(bool),
        {"long_name": "not finite at some step or in the trained network", "units": "1"},
    )
    if kind != "n":
        sizes = np.array([experiment.sizes(d) for d in experiment.dimensions])
        dataset["n"] = (("d", kind), sizes, {"long_name": "samples", "units": "1"})
    attrs = {"long_name": "design matrix", "units": "1"}
    dataset["design"] = (cell[:-1], designs.astype(str), attrs)
    costs = {names: _costs(experiment, setup) for names, setup in experiment.setups().items()}
    for name, long_name, units in (
        ("gradient_evaluations", "gradients of one sample's loss, both stages", "1"),
        ("flops", "floating-point operations of the products with X and of the readout", "1"),
    ):
        values = np.stack([cost[name] for cost in costs.values()]).reshape(table.shape[:-1])
        dataset[name] = (cell[:-1], values, {"long_name": long_name, "units": units})
    return dataset


def _costs(experiment: Experiment, setup: Setup) -> dict[str, np.ndarray]:
    """Gradient evaluations and flops of one setup, (d, sample size)."""
    costs = [
        [setup.algorithm.cost(n=n, d=d, network=setup.network) for n in experiment.sizes(d)]
        for d in experiment.dimensions
    ]
    return {
        name: np.array([[float(getattr(cost, name)) for cost in row] for row in costs])
        for name in ("gradient_evaluations", "flops")
    }


def _describe(dataset: xr.Dataset, experiment: Experiment) -> None:
    """Coordinates for what was one option alone, and words for every coordinate."""
    axes = experiment.axes
    for group in GROUPS:
        if group not in axes and group != "design":
            dataset.coords[group] = getattr(experiment, group).name()
            dataset.coords[group].attrs = {"long_name": group, "units": "1"}
    for name in axes:
        words = experiment.varied.get(name, name)
        dataset.coords[name].attrs = {"long_name": words, "units": "1"}
    for name, (long_name, units) in COORDINATES.items():
        if name in dataset.coords:
            dataset.coords[name].attrs = {"long_name": long_name, "units": units}


def _provenance(experiment: Experiment, executor: Executor, wall: float) -> dict[str, Any]:
    device = jax.devices()[0]
    packages = ("mirage", "jax", "jaxlib", "equinox", "optax", "numpy", "xarray")
    return {
        "experiment": experiment.name,
        "config": experiment.config,
        "root_seed": experiment.root_seed,
        "plan": json.dumps(executor.plan()),
        "device": f"{executor.mesh.size} x {device.device_kind} ({device.platform})",
        "versions": json.dumps({p: version(p) for p in packages}),
        "python": platform.python_version(),
        "git_commit": _git_commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "tuned": json.dumps({"/".join(map(str, k)): v for k, v in experiment.tuned.items()}),
        **_criterion(experiment),
        "wall_time_s": round(wall, 3),
        "compute_time_s": round(executor.clock.compute, 3),
        "compile_time_s": round(executor.clock.seconds["compile"], 3),
        "times_s": json.dumps({k: round(v, 3) for k, v in executor.clock.seconds.items()}),
        "compilations": json.dumps(executor.clock.compilations),
    }


def _git_commit() -> str:
    """The commit of the checkout this package is run from; empty when it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _criterion(experiment: Experiment) -> dict[str, Any]:
    """What a search searched for, and the κ of a target that has one, for the theory beside it."""
    if experiment.search is None:
        return {}
    search = experiment.search
    facts = {"criterion": search.words(), "confidence": search.confidence}
    kappa = getattr(experiment.target, "condition_number", None)
    return {
        **facts,
        "search_high": search.high,
        **({} if kappa is None else {"condition_number": kappa}),
    }
