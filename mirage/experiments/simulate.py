"""From an experiment to its labelled results."""

import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Mapping

import xarray as xr

from mirage.experiments.execute import UNKEPT, Executor, Keeper, unwatched
from mirage.experiments.experiment import GROUPS, Experiment
from mirage.experiments.parts import joined
from mirage.experiments.provenance import provenance
from mirage.experiments.results import AllFailedError, grid
from mirage.experiments.searching import search
from mirage.experiments.theory import Theory
from mirage.experiments.tuning import tuned
from mirage.options import require

log = logging.getLogger(__name__)

COORDINATES: dict[str, tuple[str, str]] = {
    "d": ("input dimension", "1"),
    "alpha": ("samples per dimension n/d", "1"),
    "exponent": ("log n / log d", "1"),
    "n": ("samples", "1"),
    "seed": ("repetition", "1"),
    "step": ("gradient steps", "1"),
    "direction_2": ("direction of the target's subspace", "1"),
    "start": ("start of the iteration", "1"),
    "neuron": ("neuron", "1"),
    "other_neuron": ("neuron", "1"),
    "direction": ("direction of the target's subspace", "1"),
    "feature": ("non-linear feature of the target", "1"),
    "input": ("input coordinate", "1"),
    "ritz": ("Lanczos step", "1"),
    "epsilon": ("threshold that the measure is to stay under", "1"),
    "level": ("threshold that the measure is to reach", "1"),
    "alpha_theory": ("samples per dimension n/d of predictions", "1"),
    "exponent_theory": ("log n / log d of predictions", "1"),
    "d_theory": ("input dimension of predictions", "1"),
    "degree": ("Hermite degree", "1"),
    "sign": ("sign of the output weight", "1"),
    "end": ("end of the spectrum", "1"),
    "delta": ("Huber's delta", "label"),
    "trial": ("sample size tried by the search, smallest first", "1"),
}


def simulate(
    experiment: Experiment | Mapping[str, Experiment],
    folder: str | os.PathLike | None = None,
    *,
    keeper: Keeper = UNKEPT,
) -> xr.Dataset:
    """Run every cell of an experiment and return the labelled results with their provenance.

    A cell that diverged is NaN and has `diverged` set. What `theory` predicts stands beside the
    cells, or alone where the experiment has no sample size. Several experiments by name are run
    one after the other and joined along the dimension `part`. With `runtime.profile` a trace of
    JAX's profiler goes to `folder`. `keeper` says where cells are stored as they are done, so that
    the same call goes on where an interrupted one was. ValueError for what is no experiment.
    """
    parts = list(experiment.values()) if isinstance(experiment, Mapping) else [experiment]
    known = len(parts) > 0 and all(isinstance(part, Experiment) for part in parts)
    require(known, "experiment", experiment, "expected an Experiment, or some of them by name")
    if isinstance(experiment, Mapping):
        results, lost = {}, None
        for name, part in experiment.items():
            log.info("part %s", name)
            try:
                results[name] = simulate(part, folder, keeper=keeper.part(name))
            except AllFailedError as error:
                lost = error
        if not results:
            assert lost is not None
            raise lost
        return joined(results, {name: experiment[name] for name in results})
    start = time.perf_counter()
    experiment.runtime.configure()
    dataset, executor = xr.Dataset(), None
    with experiment.runtime.traced(folder):
        if experiment.simulated:
            experiment = tuned(experiment, functools.partial(run_grid, keeper=keeper.part("tune")))
            # A search chooses what it asks next by what it found: it cannot leave cells out.
            goes_on = keeper.goes_on and experiment.search is None
            executor = Executor(experiment, dataclasses.replace(keeper, goes_on=goes_on))
            run = grid if experiment.search is None else search
            with executor.progress():
                dataset = run(experiment, executor)
        if experiment.theory is not None:
            dataset = _with_theory(dataset, experiment, experiment.theory, keeper)
    _describe(dataset, experiment)
    dataset.attrs = provenance(experiment, executor, time.perf_counter() - start)
    if executor is not None and executor.failures:
        dataset.attrs["failures"] = json.dumps([dataclasses.asdict(f) for f in executor.failures])
    return dataset


def _with_theory(
    dataset: xr.Dataset, experiment: Experiment, theory: Theory, keeper: Keeper
) -> xr.Dataset:
    """The results with predictions, which hold for Gaussian inputs and orthonormal directions."""
    for setup in experiment.setups().values():
        if not (setup.inputs.standard_gaussian and setup.directions.orthonormal):
            log.warning("no theory: it is for Gaussian inputs and orthonormal directions")
            return dataset
    compute = functools.partial(theory.compute, experiment)
    journal = keeper.journal
    predicted = compute() if journal is None else journal.dataset("theory", compute)
    return xr.merge([dataset, predicted], compat="no_conflicts")


def run_grid(experiment: Experiment, *, keeper: Keeper = UNKEPT) -> xr.Dataset:
    """The results of an experiment's grid, without provenance; an error of any cell is raised."""
    keeper = dataclasses.replace(keeper, watch=unwatched, goes_on=False)
    executor = Executor(experiment, keeper)
    with executor.progress():
        return grid(experiment, executor)


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
