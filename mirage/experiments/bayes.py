"""The options of `theory` for what Bayes-AMP and the posterior mean reach for d → ∞."""

import logging
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr

from mirage.channels.channel import Channel
from mirage.channels.overlaps import overlap_matrix
from mirage.channels.registry import channel_of
from mirage.experiments.experiment import Experiment, Setup
from mirage.experiments.predictions import along
from mirage.experiments.theory import Theory
from mirage.measures import target_integrals
from mirage.theory.bayes_optimal import optimal
from mirage.theory.overlap_curves import Curve, curve, found_from
from mirage.theory.state_evolution import threshold

log = logging.getLogger(__name__)
STARTS = ("uninformed", "informed", "given")
# Predictions beside cells are computed at their α and so many more between them.
BETWEEN = 24


def listed(value: Any) -> tuple[Any, ...]:
    """One start or several, as a tuple."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return tuple(value) if several else (value,)


class StateEvolution(Theory):
    """State evolution of Bayes-AMP: its fixed points over α from each `start`.

    Variables: `overlap` (alpha, start, direction, direction_2), the matrix Q; the
    `generalisation_error` E(E[y|ω] − g)² and whether the iteration `converged` (alpha, start); the
    `jump`s of each curve (start, jump, end), NaN-filled, located to `tolerance` in α; `alpha_c`.
    Beside simulated cells `alpha` is `alpha_theory` and names end in `_predicted`. `start` is
    `uninformed`, `informed`, or `given` with the overlap `given` (one number, one a direction, or
    a matrix), or a list of them.
    """

    start: Any = eqx.field(static=True, converter=listed, default=("uninformed", "informed"))
    given: Any = eqx.field(static=True, default=None)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        good = len(self.start) > 0 and all(one in STARTS for one in self.start)
        self.check("start", good, f"expected one of {', '.join(STARTS)} or a list of them")
        self.check("start", len(set(self.start)) == len(self.start), "a start is named twice")
        has = "given" not in self.start or self.given is not None
        self.check("given", has, "start=given needs an overlap: a number, a list or a matrix")
        self.check("tolerance", self.tolerance > 0, "expected a positive number")

    def serve(self, target):
        super().serve(target)
        channel_of(target)
        if self.given is not None:
            overlap_matrix(self.given, target.rank, key="theory.given")

    def compute(self, experiment):
        alphas = _alphas(experiment)

        def one(setup):
            return self.curves(channel_of(setup.target), setup, alphas)

        found = along(experiment, ("target",), one)
        return _beside_cells(found) if experiment.simulated else found

    def curves(self, channel: Channel, setup: Setup, alphas: np.ndarray) -> xr.Dataset:
        """The variables of one target."""
        found = {kind: self._curve(channel, alphas, kind) for kind in self.start}
        return _dataset(channel, setup, alphas, found).assign(alpha_c=_threshold(channel))

    def _curve(self, channel: Channel, alphas: np.ndarray, kind: str) -> Curve:
        if kind != "given":
            return curve(channel, alphas, start=kind, tolerance=self.tolerance)
        start = overlap_matrix(self.given, channel.rank, key="theory.given")
        if np.abs(start - np.diag(np.diag(start))).max() > 0:
            channel = channel.for_any_overlap()
        return curve(channel, alphas, start=start, tolerance=self.tolerance)


class BayesOptimal(StateEvolution):
    """State evolution, and beside it what the posterior mean reaches, computable or not.

    Besides the variables of `state_evolution`: `free_energy` (alpha, start), `overlap_bayes`
    (alpha, direction, direction_2) and `generalisation_error_bayes` (alpha), the branch on which
    the free energy is largest; `alpha_it` and `alpha_alg`, between which the target is hard: it
    can be learnt, and no known efficient algorithm does. NaN where there is no such phase among
    the α, inf where it does not end.
    """

    def curves(self, channel, setup, alphas):
        best = optimal(channel, alphas, tolerance=self.tolerance)
        found = {"uninformed": best.uninformed, "informed": best.informed}
        dataset = _dataset(channel, setup, alphas, found)
        square = target_integrals(setup.target).square
        directions = np.arange(channel.rank)
        return dataset.assign(
            free_energy=(("alpha", "start"), best.energies, _named("free energy per dimension")),
            overlap_bayes=(
                ("alpha", "direction", "direction_2"),
                best.overlap,
                _named("overlap of the posterior mean, d -> infinity"),
            ),
            generalisation_error_bayes=(
                "alpha",
                np.maximum(square - best.square, 0.0),
                _named("error E(E[y|data] - g)^2 of the posterior mean, d -> infinity", "label^2"),
            ),
            alpha_it=((), best.alpha_it, _named("n/d from which learning is possible")),
            alpha_alg=((), best.alpha_alg, _named("n/d from which AMP learns as well")),
            alpha_c=_threshold(channel),
        ).assign_coords(direction=directions, direction_2=directions)


def _alphas(experiment: Experiment) -> np.ndarray:
    """The n/d at which curves are wanted: those given, and more between them beside cells."""
    kind = experiment.sample_kind
    given = getattr(experiment, kind)
    if given is None:
        raise ValueError(
            "theory: state evolution needs values of n/d: expected alpha=... (a number or a list)"
        )
    if kind == "alpha":
        alphas = np.unique(np.asarray(given, np.float64))
    else:
        sizes = [(experiment.size(value, d), d) for d in experiment.dimensions for value in given]
        alphas = np.unique([n / d for n, d in sizes])
    if not experiment.simulated or len(alphas) == 1:
        return alphas
    return np.union1d(alphas, np.linspace(alphas[0], alphas[-1], BETWEEN))


def _dataset(
    channel: Channel, setup: Setup, alphas: np.ndarray, found: dict[str, Curve]
) -> xr.Dataset:
    square = target_integrals(setup.target).square
    curves = list(found.values())
    most = max(1, *(len(one.jumps) for one in curves))
    jumps = np.full((len(curves), most, 2), np.nan)
    for i, one in enumerate(curves):
        for j, jump in enumerate(one.jumps):
            jumps[i, j] = jump.low, jump.high
    overlap = np.stack([one.overlap for one in curves], axis=1)
    error = np.stack([np.maximum(square - one.square, 0.0) for one in curves], axis=1)
    converged = np.stack([one.converged for one in curves], axis=1)
    if not converged.all():
        log.warning("state evolution did not settle at %d points", int((~converged).sum()))
    directions = np.arange(setup.target.rank)
    emergence = (
        found_from(channel, found["uninformed"])
        if "uninformed" in found
        else np.full(len(directions), np.nan)
    )
    return xr.Dataset(
        {
            "alpha_found": (
                "direction",
                emergence,
                _named("n/d from which AMP without knowledge finds a direction"),
            ),
            "overlap": (
                ("alpha", "start", "direction", "direction_2"),
                overlap,
                _named("overlap Q of Bayes-AMP, d -> infinity"),
            ),
            "generalisation_error": (
                ("alpha", "start"),
                error,
                _named("error E(E[y|data] - g)^2 of Bayes-AMP, d -> infinity", "label^2"),
            ),
            "converged": (("alpha", "start"), converged, _named("whether the iteration settled")),
            "jump": (("start", "jump_number", "side"), jumps, _named("n/d of jumps of the curve")),
        },
        coords={
            "alpha": alphas,
            "start": list(found),
            "direction": directions,
            "direction_2": directions,
            "side": ["below", "above"],
        },
    )


def _threshold(channel: Channel) -> tuple[tuple[()], float, dict[str, str]]:
    return (), threshold(channel), _named("weak-recovery threshold n/d")


def _beside_cells(dataset: xr.Dataset) -> xr.Dataset:
    """Names that do not meet those of simulated variables."""
    alone = ("alpha_c", "alpha_found", "alpha_it", "alpha_alg", "jump")
    names = {str(name): f"{name}_predicted" for name in dataset.data_vars if name not in alone}
    return dataset.rename(names | {"alpha": "alpha_theory"})


def _named(long_name: str, units: str = "1") -> dict[str, str]:
    return {"long_name": long_name, "units": units}
