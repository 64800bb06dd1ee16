"""From blocks of results to one labelled Dataset."""

import json
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from mirage.experiments.execute import Block, Executor
from mirage.experiments.experiment import GROUPS, Experiment, Setup
from mirage.measures import cos_best, population_error

# name → (extra dimensions, long name, units)
VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cos_best": ((), "max over neurons of |U w|/|w| after the last step", "1"),
    "cos_best_trajectory": (("step",), "max over neurons of |U w|/|w| after each step", "1"),
    "overlap": (("neuron", "direction"), "W U^T after the last step", "1"),
    "gram": (("neuron", "other_neuron"), "W W^T after the last step", "1"),
    "norm": (("neuron",), "|w| after the last step", "1"),
    "overlap_trajectory": (("step", "neuron", "direction"), "W U^T after each step", "1"),
    "norm_trajectory": (("step", "neuron"), "|w| after each step", "1"),
    "readout": (("neuron",), "output weights a after stage 2", "1"),
    "biases": (("neuron",), "biases of stage 2", "1"),
    "test_error": ((), "population error E(f - g)^2 after stage 2", "label^2"),
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
}


class Table:
    """Arrays over (compared options, d, sample size, seed, ...), NaN until filled."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.cells = (len(experiment.dimensions), len(experiment.sample_values), experiment.seeds)
        self.shape = (*(len(names) for names in experiment.axes.values()), *self.cells)
        self.arrays: dict[str, np.ndarray] = {}

    def place(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Where the setup of these names lies along the compared axes."""
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

    def fill(self, names: tuple[str, ...], block: Block, name: str, value: np.ndarray) -> None:
        """Enter the values (seeds, ...) of one setup."""
        extra = value.shape[1:]
        cell = (self.experiment.dimensions.index(block.d), block.sample)
        seeds = slice(block.seeds[0], block.seeds[-1] + 1)
        array = self.array(name, value.dtype, extra)
        array[(*self.place(names), *cell)][(seeds, *(slice(k) for k in extra))] = value


def simulate(experiment: Experiment) -> xr.Dataset:
    """Run every cell of an experiment and return the labelled results with their provenance.

    A cell that diverged is NaN and has `diverged` set.
    """
    start = time.perf_counter()
    experiment.runtime.configure()
    executor = Executor(experiment)
    table = Table(experiment)
    for block in executor.blocks():
        for lane, names in enumerate(block.family.names):
            for name, value in _saved(block.values, lane).items():
                table.fill(names, block, name, value)
    for names, setup in experiment.setups().items():
        _add_error(table, names, setup)
    dataset = _dataset(experiment, table)
    dataset.attrs = _provenance(experiment, executor, time.perf_counter() - start)
    return dataset


def _saved(values: dict[str, Any], lane: int) -> dict[str, np.ndarray]:
    """The variables of one setup, leading axis seeds."""
    values = jax.tree.map(lambda a: a[:, lane], values)
    trajectory = values.pop("trajectory")
    cosine = cos_best(trajectory["overlap"], trajectory["norm"])
    finite = np.isfinite(trajectory["norm"]).all(axis=(1, 2))
    finite &= np.isfinite(trajectory["overlap"]).all(axis=(1, 2, 3))
    return {
        **values,
        "norm": trajectory["norm"][:, -1],
        "norm_trajectory": trajectory["norm"],
        "overlap_trajectory": trajectory["overlap"],
        "cos_best": np.where(finite, cosine[:, -1], np.nan),
        "cos_best_trajectory": cosine,
        "diverged": np.where(finite, 0.0, 1.0),
    }


def _add_error(table: Table, names: tuple[str, ...], setup: Setup) -> None:
    """The population error of every cell of one setup that trained a readout."""
    if "readout" not in table.arrays:
        return
    place = table.place(names)
    m, r = setup.network.width, setup.target.rank
    extra = {"readout": (m,), "biases": (m,), "readout_overlap": (m, r), "readout_gram": (m, m)}
    cells = {}
    for name, shape in extra.items():
        values = table.arrays[name][(*place, ..., *(slice(k) for k in shape))]
        cells[name] = values.reshape(-1, *shape)
    error = population_error(
        setup.target,
        setup.activation,
        readout=cells["readout"],
        biases=cells["biases"],
        overlap=cells["readout_overlap"],
        gram=cells["readout_gram"],
    ).reshape(table.cells)
    diverged = table.arrays["diverged"][place]
    diverged[~np.isfinite(error)] = 1.0
    table.array("test_error", error.dtype)[place] = np.where(diverged, np.nan, error)


def _dataset(experiment: Experiment, table: Table) -> xr.Dataset:
    axes, kind = experiment.axes, experiment.sample_kind
    cell = (*axes, "d", kind, "seed")
    dataset = xr.Dataset(
        coords={
            **axes,
            "d": np.asarray(experiment.dimensions, np.int64),
            kind: np.asarray(experiment.sample_values),
            "seed": np.arange(experiment.seeds),
        }
    )
    for name, (extra, long_name, units) in VARIABLES.items():
        if name in table.arrays:
            attrs = {"long_name": long_name, "units": units}
            dataset[name] = ((*cell, *extra), table.arrays[name], attrs)
            for dim, size in zip(extra, table.arrays[name].shape[len(cell) :], strict=True):
                dataset.coords[dim] = np.arange(size)
    dataset["diverged"] = (
        cell,
        table.arrays["diverged"].astype(bool),
        {"long_name": "not finite at some step or after stage 2", "units": "1"},
    )
    if kind != "n":
        sizes = np.array([experiment.sizes(d) for d in experiment.dimensions])
        dataset["n"] = (("d", kind), sizes, {"long_name": "samples", "units": "1"})
    names = [s.design.name() for s in experiment.setups().values()]
    shape = tuple(len(options) for options in axes.values())
    grid = np.broadcast_to(
        np.array(names, object).reshape(*shape, 1, 1), (*shape, *table.shape[len(axes) : -1])
    )
    dataset["design"] = (cell[:-1], grid.astype(str), {"long_name": "design matrix", "units": "1"})
    for group in GROUPS:
        if group not in axes and group != "design":
            dataset.coords[group] = getattr(experiment, group).name()
            dataset.coords[group].attrs = {"long_name": group, "units": "1"}
    for group in axes:
        dataset.coords[group].attrs = {"long_name": group, "units": "1"}
    for name, (long_name, units) in COORDINATES.items():
        if name in dataset.coords:
            dataset.coords[name].attrs = {"long_name": long_name, "units": units}
    return dataset


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
        "wall_time_s": round(wall, 3),
        "compute_time_s": round(executor.clock.compute, 3),
        "compile_time_s": round(executor.clock.compile, 3),
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
