"""Running a `search`: the smallest sample size of every setup, threshold and d."""

import logging

import numpy as np
import xarray as xr

from mirage.experiments.execute import Executor
from mirage.experiments.experiment import Experiment
from mirage.experiments.families import Family
from mirage.experiments.results import Table
from mirage.experiments.search import Bisection, Evaluations, SearchError, bisect
from mirage.experiments.variables import described, measured
from mirage.measures import scalars

log = logging.getLogger(__name__)


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
    for batch, cells in executor.plan.batches:
        column = experiment.dimensions.index(batch.d)
        for family in {id(f): f for f, _ in cells}.values():
            for lane, all_names in enumerate(family.names):
                trial = _evaluations(experiment, executor, batch, family, lane)
                smallest = [
                    bisect(option, threshold, trial, experiment.root_seed)
                    for threshold in thresholds
                ]
                for place in map(where.place, all_names):
                    for row, one in enumerate(smallest):
                        found[(*place, row, column)] = one
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
    dataset["design" if "design" not in experiment.axes else "resolved_design"] = (
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
            for _, values in measured(block, executor.clock, experiment.measures):
                if option.measure not in values:
                    raise SearchError(
                        f"search.measure={option.measure!r}: "
                        f"algorithm={alone.setup.algorithm.name()} does not give it; "
                        f"expected one of {', '.join(m for m in scalars() if m in values)}"
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
    _, long_name, units = described(experiment.measures)[option.measure]
    words = f"{option.over} tried by the search"
    return xr.Dataset(
        {
            f"{option.over}_tried": (cell, tried, {"long_name": words, "units": "1"}),
            option.measure: (
                (*cell, "seed"),
                measured,
                {"long_name": long_name, "units": units},
            ),
        },
        coords={
            "trial": np.arange(count),
            "seed": experiment.first_seed + np.arange(experiment.seeds),
        },
    )
