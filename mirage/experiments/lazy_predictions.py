"""The options of `theory` for networks beside their lazy limit: one giant step, random features."""

import math
from typing import Any

import numpy as np
import xarray as xr

from mirage.algorithms import GiantStep as GiantStepAlgorithm
from mirage.algorithms import KernelRidge, RandomFeatures
from mirage.experiments.experiment import Experiment, Setup
from mirage.experiments.predictions import along
from mirage.experiments.theory import Theory
from mirage.measures import target_integrals
from mirage.theory.giant_step import overlap_law, slope_moments
from mirage.theory.lazy import degree_variances, kernel_series, ridge_error, sphere_spectrum

GROUPS = ("target", "loss", "activation", "network", "algorithm")
# log n / log d at which curves are computed, and dimensions far above those of any cell.
EXPONENTS = np.linspace(0.5, 3.25, 111)
LARGE = (10**3, 10**5)
SIGNS = (1, -1)


class GiantStep(Theory):
    """The law of the neurons' overlaps after `algorithm=giant_step`, by the sign of a_j.

    Variables: `overlap_mean_predicted` and `overlap_deviation_predicted` (d, sample size, sign,
    direction), NaN for other algorithms and more than one step; and `plateau` (degree), the
    variance of the target above a degree.
    """

    def compute(self, experiment):
        laws = along(experiment, GROUPS, lambda setup: _law(experiment, setup))
        return xr.merge([laws, along(experiment, ("target",), _plateau)], compat="no_conflicts")


def _law(experiment: Experiment, setup: Setup) -> xr.Dataset:
    kind, rank = experiment.sample_kind, setup.target.rank
    sizes: list[float] = list(getattr(experiment, kind) or [])
    found = np.full((2, len(experiment.dimensions), len(sizes), len(SIGNS), rank), np.nan)
    algorithm, network = setup.algorithm, setup.network
    if isinstance(algorithm, GiantStepAlgorithm) and algorithm.steps == 1:
        moments = slope_moments(setup.target, setup.loss, centred=algorithm.centred)
        for index in np.ndindex(found.shape[1:4]):
            d, sign = experiment.dimensions[index[0]], SIGNS[index[2]]
            found[:, *index] = overlap_law(
                moments,
                setup.activation,
                step=algorithm.step_size * network.output_scale * sign,
                norm=network.initial_norm,
                d=d,
                n=experiment.size(sizes[index[1]], d),
            )
    dims = ("d", kind, "sign", "direction")
    return xr.Dataset(
        {
            "overlap_mean_predicted": (dims, found[0], _named("mean of w.u after the step")),
            "overlap_deviation_predicted": (
                dims,
                found[1],
                _named("standard deviation of w.u after the step, over neurons and samples"),
            ),
        },
        coords={"d": list(experiment.dimensions), kind: sizes, "sign": list(SIGNS)},
    )


class LazyLimit(Theory):
    """The error of ridge regression on random features and their kernel, by Hermite degrees.

    Variables: `test_error_predicted` (d, exponent_theory) of `algorithm=random_features` and
    `kernel_ridge`, NaN for others; `test_error_limit` (d_theory, exponent_theory), that of
    `kernel_ridge` at large d; `plateau` (degree), the variance of the target above a degree.
    """

    def compute(self, experiment):
        errors = along(experiment, GROUPS, lambda setup: _errors(experiment, setup))
        return xr.merge([errors, along(experiment, ("target",), _plateau)], compat="no_conflicts")


def _errors(experiment: Experiment, setup: Setup) -> xr.Dataset:
    algorithm, network = setup.algorithm, setup.network
    of_kernel = isinstance(algorithm, KernelRidge)
    cells = np.full((len(experiment.dimensions), len(EXPONENTS)), np.nan)
    large = np.full((len(LARGE), len(EXPONENTS)), np.nan)
    if isinstance(algorithm, RandomFeatures | KernelRidge):
        ridge = float(algorithm.ridge)
        scales = {"norm": network.initial_norm, "bias_scale": network.bias_scale}
        series, total = kernel_series(setup.activation, **scales)
        variances = degree_variances(setup.target)
        above = target_integrals(setup.target)
        above = max(above.square - above.mean**2 - variances.sum(), 0.0)

        def curve(d):
            spectrum = sphere_spectrum(series, total, d)
            settings: dict[str, Any] = {"ridge": ridge, "noise": above}
            settings["noise"] += setup.target.noise
            settings["width"] = math.inf if of_kernel else network.width
            found = [ridge_error(spectrum, variances, n=d**k, **settings) for k in EXPONENTS]
            return np.array(found) + above

        cells = np.stack([curve(d) for d in experiment.dimensions])
        if of_kernel:
            large = np.stack([curve(d) for d in LARGE])
    words = "predicted population error of ridge regression"
    return xr.Dataset(
        {
            "test_error_predicted": (("d", "exponent_theory"), cells, _named(words, "label^2")),
            "test_error_limit": (
                ("d_theory", "exponent_theory"),
                large,
                _named(f"{words} with the kernel, at large d", "label^2"),
            ),
        },
        coords={
            "d": list(experiment.dimensions),
            "d_theory": list(LARGE),
            "exponent_theory": EXPONENTS,
        },
    )


def _plateau(setup: Setup) -> xr.Dataset:
    known, variances = target_integrals(setup.target), degree_variances(setup.target)
    left = np.maximum(known.square - known.mean**2 - np.cumsum(variances), 0)
    named = ("degree", left, _named("variance of the target above a Hermite degree", "label^2"))
    return xr.Dataset({"plateau": named}, coords={"degree": np.arange(len(left))})


def _named(long_name: str, units: str = "1") -> dict[str, str]:
    return {"long_name": long_name, "units": units}
