"""Running a `tune`: every candidate on the reserved seeds, and the best of each kept."""

import dataclasses
import itertools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr

from mirage.experiments.experiment import RESERVED_SEEDS, Experiment
from mirage.experiments.tune import Tune, candidates
from mirage.options import require

log = logging.getLogger(__name__)


class TuningError(ValueError):
    """No candidate is any good."""


def tuned(experiment: Experiment, run: Callable[[Experiment], xr.Dataset]) -> Experiment:
    """The experiment with each compared option at its best settings; itself without a `tune`.

    `run` returns the results of an experiment's grid.
    """
    tune = experiment.tune
    if tune is None:
        return experiment
    tried = {}  # group → label → (name of the option, settings)
    for group in dict.fromkeys(key.split(".")[0] for key, _ in tune.settings):
        given = getattr(experiment, group)
        options = given if isinstance(given, Mapping) else {"": given}
        tried[group] = {
            f"{name} {settings}": (name, settings)
            for name, option in options.items()
            for settings in candidates(option, group, tune.settings)
        }
    expanded = {
        group: {label: _changed(experiment, group, *one) for label, one in labels.items()}
        for group, labels in tried.items()
    }
    trial = dataclasses.replace(
        experiment,
        **expanded,
        **experiment.narrowed(tune),
        tune=None,
        seeds=tune.seeds,
        first_seed=RESERVED_SEEDS,
    )
    log.info("tuning: %d setups, %d seeds", len(trial.setups()), tune.seeds)
    results = run(trial)
    has = tune.measure in results
    require(has, "tune.measure", tune.measure, "this algorithm has no such measure")
    best: dict[tuple[Any, ...], tuple[tuple[int, float], dict]] = {}
    axes = {**trial.compared, **{name: trial.axes[name] for name in tune.apart}}
    along = (*experiment.compared, *tune.apart)
    for labels in itertools.product(*axes.values()):
        place = dict(zip(axes, labels, strict=True))
        score = tune.score(results[tune.measure].sel(place).transpose(..., "seed").values)
        chosen = {group: tried[group][place[group]] for group in tried}
        names = tuple(chosen[axis][0] if axis in chosen else place[axis] for axis in along)
        settings = {k: v for _, some in chosen.values() for k, v in some.items()}
        if names not in best or score < best[names][0]:
            best[names] = (score, settings)
    for names, (score, settings) in best.items():
        _report("/".join(map(str, names)), score, settings, tune)
    found = {names: settings for names, (_, settings) in best.items()}
    return dataclasses.replace(experiment, tune=None, tuned=found, tuned_along=along)


def _report(name: str, score: tuple[int, float], settings: Mapping[str, Any], tune: Tune) -> None:
    """Log the best settings of one option; TuningError where every candidate diverged."""
    diverged, value = score
    if math.isinf(value):
        listed = ", ".join(f"{key}={list(values)}" for key, values in tune.settings)
        where = f" for {name}" if name else ""
        raise TuningError(f"tune.settings: every candidate diverged{where}; tried {listed}")
    ends = [
        key
        for key, values in tune.settings
        if key in settings and len(values) > 2 and settings[key] in (min(values), max(values))
    ]
    edge = f"; {' and '.join(ends)} at the end of the values tried" if ends else ""
    some = f"; {diverged} cells diverged" if diverged else ""
    log.info("tuned %s: %s%s%s", name, settings, edge, some)


def _changed(experiment: Experiment, group: str, name: str, settings: Mapping):
    given = getattr(experiment, group)
    option = given[name] if isinstance(given, Mapping) else given
    values = {key.split(".", 1)[1]: value for key, value in settings.items()}
    return dataclasses.replace(option, **values)
