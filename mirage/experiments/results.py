"""The results of a grid as one labelled Dataset."""

from typing import Any

import numpy as np
import xarray as xr

from mirage.experiments.execute import Executor
from mirage.experiments.experiment import Experiment, Setup
from mirage.experiments.variables import described, measured


class AllFailedError(Exception):
    """No cell of a grid has a result: the error of the first."""


class Table:
    """Arrays over (axes, d, sample size, seed, ...), NaN until filled."""

    def __init__(self, experiment: Experiment, samples: int):
        self.experiment = experiment
        self.cells = (len(experiment.dimensions), samples, experiment.seeds)
        self.shape = (*(len(names) for names in experiment.axes.values()), *self.cells)
        self.arrays: dict[str, np.ndarray] = {}
        self.filled = np.zeros(self.shape, bool)

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
        self.filled[cell][seeds] = True
        for name, value in values.items():
            array = self.array(name, value.dtype, value.shape[1:])
            array[cell][(seeds, *(slice(k) for k in value.shape[1:]))] = value


def grid(experiment: Experiment, executor: Executor) -> xr.Dataset:
    """Every cell of a grid."""
    table = Table(experiment, len(experiment.sample_values))
    designs = np.full(table.shape[:-1], "", object)
    for block in executor.blocks():
        sizes = experiment.sizes(block.d)
        samples = [i for i, n in enumerate(sizes) if n == block.n]
        for names, values in measured(block, executor.clock, experiment.measures):
            for sample in samples:
                table.fill(names, block.d, sample, block.seeds, values)
                place = (*table.place(names), experiment.dimensions.index(block.d), sample)
                designs[place] = block.design.name()
    if not table.filled.any():
        raise AllFailedError(executor.failures[0].error)
    return _dataset(experiment, table, designs)


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
    variables = described(experiment.measures)
    for name, (extra, _, _) in variables.items():
        if name in table.arrays:
            shape = table.arrays[name].shape[len(cell) :]
            longest |= {k: max(v, longest.get(k, 0)) for k, v in zip(extra, shape, strict=True)}
    for name, (extra, long_name, units) in variables.items():
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
        table.filled & (table.arrays["diverged"] == 1),
        {"long_name": "not finite at some step or in the trained network", "units": "1"},
    )
    if not table.filled.all():
        dataset["failed"] = (cell, ~table.filled, {"long_name": "raised an error", "units": "1"})
    if kind != "n":
        sizes = np.array([experiment.sizes(d) for d in experiment.dimensions])
        dataset["n"] = (("d", kind), sizes, {"long_name": "samples", "units": "1"})
    attrs = {"long_name": "design matrix", "units": "1"}
    # Where designs are compared, `design` is what was asked for.
    name = "design" if "design" not in axes else "resolved_design"
    dataset[name] = (cell[:-1], designs.astype(str), attrs)
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
    costs = []
    for d in experiment.dimensions:
        size = {"d": d, "network": setup.network, "rank": setup.target.at(d).rank}
        costs.append([setup.algorithm.cost(n=n, **size) for n in experiment.sizes(d)])
    return {
        name: np.array([[float(getattr(cost, name)) for cost in row] for row in costs])
        for name in ("gradient_evaluations", "flops")
    }
