"""The predictions an experiment can ask for, computed for d → ∞ and saved beside its cells."""

import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr

from mirage.channels.labels import LabelBins, LabelTables, label_bins
from mirage.experiments.experiment import Experiment, Setup
from mirage.experiments.label_dataset import label_dataset
from mirage.experiments.theory import Theory
from mirage.losses import Huber, PseudoHuber
from mirage.targets import Target
from mirage.theory.loss_design import loss_threshold
from mirage.theory.spectral_curves import spectral_curves
from mirage.theory.weak_recovery import staircase

log = logging.getLogger(__name__)
# n/d at which curves are computed, the same for every experiment so that runs can be joined.
ALPHAS = np.geomspace(0.1, 1000.0, 161)


def known(target: Target) -> tuple[LabelBins, float]:
    """Label bins of a target and alpha_c of its first step (inf where it depends on nothing).

    Kept for the last few targets; errors as for `label_table`.
    """
    try:
        return _known(target)
    except TypeError:  # a target with arrays among its settings has no hash
        return _known.__wrapped__(target)


@functools.lru_cache(maxsize=8)
def _known(target: Target) -> tuple[LabelBins, float]:
    tables = LabelTables(target)
    steps = staircase(tables)
    bins = label_bins(tables(np.zeros((0, target.rank))))
    return bins, steps[0].alpha_c if steps else np.inf


def along(
    experiment: Experiment, groups: Sequence[str], compute: Callable[[Setup], xr.Dataset]
) -> xr.Dataset:
    """A dataset for every combination of the axes that change an option of the groups."""
    axes = {
        name: values
        for name, values in experiment.axes.items()
        if experiment.varied.get(name, name).split(".")[0] in groups
    }
    setups = {
        tuple(name for name, axis in zip(names, experiment.axes, strict=True) if axis in axes): s
        for names, s in reversed(experiment.setups().items())
    }
    if not axes:
        return compute(next(iter(setups.values())))
    parts = [
        compute(setups[names]).expand_dims({k: [v] for k, v in zip(axes, names, strict=True)})
        for names in itertools.product(*axes.values())
    ]
    return xr.merge(parts, join="outer", compat="no_conflicts").reindex(axes)


class Spectral(Theory):
    """The spectral threshold and curve of every loss, and alpha_c of every target.

    Variables: `spectral_threshold` (end), `cos_best_predicted` (alpha_theory), `alpha_c`. Targets
    of a rank above what can be integrated get NaN, with a word in the log.
    """

    def compute(self, experiment):
        curves = along(experiment, ("target", "loss"), _curves)
        return xr.merge([curves, along(experiment, ("target",), _limit)], compat="no_conflicts")


def _curves(setup: Setup) -> xr.Dataset:
    threshold, cosine = np.full(2, np.nan), np.full(len(ALPHAS), np.nan)
    try:
        bins, _ = known(setup.target)
        curves = spectral_curves(setup.target, setup.loss, bins, ALPHAS)
        threshold = np.array([np.nan if e is None else float(e.value) for e in curves.threshold])
        cosine = curves.cos_best
    except ValueError as error:
        log.warning("no theory: %s", error)
    words = "eigenvalues of D with T(y) = -l'(0, y) leave the bulk"
    return xr.Dataset(
        {
            "spectral_threshold": ("end", threshold, _named(f"n/d from which {words}")),
            "cos_best_predicted": (
                "alpha_theory",
                cosine,
                _named("cos(best) of the spectral estimator, d -> infinity"),
            ),
        },
        coords={"end": ["upper", "lower"], "alpha_theory": ALPHAS},
    )


def _limit(setup: Setup) -> xr.Dataset:
    try:
        _, alpha_c = known(setup.target)
    except ValueError:  # said in the log by `_curves`
        alpha_c = np.nan
    return xr.Dataset({"alpha_c": ((), alpha_c, _named("weak-recovery threshold n/d"))})


class LabelInformation(Theory):
    """p(y) and G(y) = E[hhᵀ − I | y] of every target, on a grid of labels of its own."""

    def compute(self, experiment):
        return along(experiment, ("target",), _information)


def _information(setup: Setup) -> xr.Dataset:
    information = label_dataset(known(setup.target)[0]).reset_coords("label")
    return information.merge(_limit(setup))


class LossDesign(Theory):
    """The spectral threshold of Huber's and the pseudo-Huber loss against δ, and of the losses.

    Variables: `threshold` (family, delta), `spectral_threshold` (end) of every compared loss,
    `alpha_c`. `low` and `high` bound δ, `points` are spaced evenly in its logarithm.
    """

    low: float = eqx.field(static=True, default=0.1)
    high: float = eqx.field(static=True, default=10.0)
    points: int = eqx.field(static=True, default=40)

    def __check_init__(self):
        self.check("low", self.low > 0, "expected a positive number")
        self.check("high", self.high > self.low, "expected more than low")
        self.check("points", self.points >= 2, "expected a whole number ≥ 2")

    def compute(self, experiment):
        deltas = np.geomspace(self.low, self.high, self.points)

        def design(setup):
            bins, _ = known(setup.target)
            families: dict[str, Any] = {"huber": Huber, "pseudo_huber": PseudoHuber}
            threshold = [
                [loss_threshold(setup.target, f(delta=float(d)), bins).best for d in deltas]
                for f in families.values()
            ]
            named = (("family", "delta"), threshold, _named("n/d of the transition"))
            coords = {"family": list(families), "delta": deltas}
            return xr.Dataset({"threshold": named}, coords=coords).merge(_limit(setup))

        losses = along(experiment, ("target", "loss"), _curves)[["spectral_threshold"]]
        return xr.merge([along(experiment, ("target",), design), losses], compat="no_conflicts")


def _named(long_name: str) -> dict[str, str]:
    return {"long_name": long_name, "units": "1"}
