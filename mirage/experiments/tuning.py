"""Running a `tune`: every candidate on the reserved seeds, and the best of each kept."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from mirage.experiments.experiment import GROUPS, RESERVED_SEEDS, Experiment
from mirage.experiments.tune import candidates
from mirage.options import require

log = logging.getLogger(__name__)


def tuned(experiment: Experiment, run: Callable[[Experiment], xr.Dataset]) -> Experiment:
    """The experiment with each compared option at its best settings; itself without a `tune`.

    `run` returns the results of an experiment's grid.
    """
    tune = experiment.tune
    if tune is None:
        return experiment
    tried = {}  # group → label → (name of the option, settings)
    for group in dict.fromkeys(key.split(".")[0] for key, _ in tune.settings):
        require(group in GROUPS, "tune.settings", group, f"expected one of {', '.join(GROUPS)}")
        given = getattr(experiment, group)
        options = given if isinstance(given, Mapping) else {"": given}
        tried[group] = {
            f"{name} {settings}": (name, settings)
            for name, option in options.items()
            for settings in candidates(option, group, tune.settings)
        }
    for key, values in tune.settings:
        used = any(key in s for labels in tried.values() for _, s in labels.values())
        require(used, f"tune.settings.{key}", list(values), "no option has this setting")
    expanded = {
        group: {label: _changed(experiment, group, *one) for label, one in labels.items()}
        for group, labels in tried.items()
    }
    trial = dataclasses.replace(
        experiment, **expanded, tune=None, seeds=tune.seeds, first_seed=RESERVED_SEEDS
    )
    log.info("tuning: %d candidates, %d seeds", len(trial.setups()), tune.seeds)
    measure = run(trial)[tune.measure]
    best: dict[tuple[str, ...], tuple[float, dict]] = {}
    for labels in itertools.product(*trial.compared.values()):
        place = dict(zip(trial.compared, labels, strict=True))
        score = tune.score(measure.sel(place).transpose(..., "seed").values)
        chosen = {group: tried[group][place[group]] for group in tried}
        names = tuple(
            chosen[group][0] if group in chosen else place[group] for group in experiment.compared
        )
        settings = {k: v for _, some in chosen.values() for k, v in some.items()}
        if names not in best or score < best[names][0]:
            best[names] = (score, settings)
    for names, (score, settings) in best.items():
        ends = [
            key
            for key, values in tune.settings
            if key in settings and len(values) > 2 and settings[key] in (values[0], values[-1])
        ]
        edge = f"; {' and '.join(ends)} at the end of the values tried" if ends else ""
        worst = "; every candidate diverged somewhere" if np.isinf(score) else ""
        log.info("tuned %s: %s%s%s", "/".join(names) or "", settings, edge, worst)
    return dataclasses.replace(
        experiment, tune=None, tuned={names: settings for names, (_, settings) in best.items()}
    )


def _changed(experiment: Experiment, group: str, name: str, settings: Mapping):
    given = getattr(experiment, group)
    option = given[name] if isinstance(given, Mapping) else given
    values = {key.split(".", 1)[1]: value for key, value in settings.items()}
    return dataclasses.replace(option, **values)
