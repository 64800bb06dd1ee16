"""The options of `theory` for targets of many features: learning curves and spectra, d → ∞."""

import abc
import logging
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr

from mirage.channels.additive_labels import FeatureLaw, additive_labels, feature_law, is_additive
from mirage.channels.preprocessing import bounded_above, slope_of
from mirage.channels.registry import channel_of
from mirage.experiments.experiment import Experiment, Setup
from mirage.experiments.predictions import along
from mirage.experiments.theory import Theory
from mirage.measures import weighted_mse
from mirage.targets import Target
from mirage.theory.bayes_optimal import optimal
from mirage.theory.scaling_laws import (
    feature_overlaps,
    feature_thresholds,
    local_slope,
    optimal_thresholds,
    rate,
    readout_risk,
)
from mirage.theory.spectral import bulk_density, predict

log = logging.getLogger(__name__)
# n/d at which curves are computed, and points at which a density is.
ALPHAS, POINTS = np.geomspace(0.3, 5000.0, 141), 400
# Features whose optimal threshold is computed: each takes a transform of all behind it.
OPTIMAL = 12


class Additive(Theory, abc.ABC):
    """Base of the predictions for targets that are sums of functions of one direction each."""

    def serve(self, target: Target) -> None:
        if not is_additive(target) or target.amplitudes() is None:
            raise ValueError(
                f"theory={self.name()}: target={target.name()} is not a sum of features of given "
                "strengths; expected target=hierarchical"
            )

    def compute(self, experiment):
        return along(experiment, ("target", "loss"), lambda s: self.predictions(experiment, s))

    @abc.abstractmethod
    def predictions(self, experiment: Experiment, setup: Setup) -> xr.Dataset:
        """The variables of one target and loss."""


def law_of_features(setup: Setup) -> FeatureLaw:
    """The law of T(y) = −ℓ'(0, y) with every feature; ValueError where T has no upper bound."""
    preprocessing = slope_of(setup.loss)
    if not bounded_above(setup.target, preprocessing):
        raise ValueError(
            f"loss={setup.loss.name()}: T(y) = -l'(0, y) grows without bound, and so does the "
            "bulk; expected a loss like preprocessed or huber"
        )
    centred = bool(setup.loss.centring())
    return feature_law(additive_labels(setup.target), preprocessing, centred=centred)


class ScalingLaws(Additive):
    """Learning curves of the spectral estimator of every loss, feature by feature.

    Variables (alpha_theory): `direction_overlap_predicted` (direction), `weighted_mse_predicted`,
    its `local_slope`, `excess_risk_predicted` of the best readout on what was found; and
    (direction) `feature_threshold` of the estimator and `optimal_threshold`, that of the posterior
    with all stronger features given, and the `rate` −1 + 1/(2γ) for m⋆ → ∞. With
    `bayes_optimal`, for up to three features with noise and two without: `weighted_mse_bayes`
    (alpha) of the posterior mean, from its free energy; minutes for more than one feature.
    """

    bayes_optimal: bool = eqx.field(static=True, default=False)

    def serve(self, target):
        super().serve(target)
        if self.bayes_optimal:
            channel_of(target)
        if np.isnan(_rate(target)):
            log.warning(
                "target.gamma=%g: the sum of k^(-2 gamma) has no limit for gamma <= 1/2, so there "
                "is no scaling law for many features; the curves are those of %d",
                getattr(target, "gamma", np.nan),
                target.rank,
            )

    def predictions(self, experiment, setup):
        target = setup.target
        amplitudes = target.amplitudes()
        assert amplitudes is not None
        law = law_of_features(setup)
        overlap = feature_overlaps(law, ALPHAS)
        error = weighted_mse(amplitudes, overlap)
        on_alpha, on_both = ("alpha_theory",), ("alpha_theory", "direction")
        named = {
            "direction_overlap_predicted": (on_both, overlap, "|P u|^2 of every feature"),
            "weighted_mse_predicted": (on_alpha, error, "weighted MSE"),
            "local_slope": (on_alpha, local_slope(ALPHAS, error), "d log weighted MSE/d log n/d"),
            "excess_risk_predicted": (
                on_alpha,
                readout_risk(target, overlap),
                "E(f - g)^2 of the best f of P x",
            ),
            "feature_threshold": (
                ("direction",),
                feature_thresholds(law),
                "n/d from which the spectral estimator sees a feature",
            ),
            "optimal_threshold": (
                ("direction",),
                optimal_thresholds(target, count=min(target.rank, OPTIMAL)),
                "n/d from which the posterior sees a feature, stronger ones given",
            ),
            "rate": ((), _rate(target), "exponent of n/d for infinitely many features"),
        }
        coordinates = {"alpha_theory": ALPHAS, "direction": np.arange(target.rank)}
        if self.bayes_optimal:
            alphas = _alphas(self, experiment)
            best = optimal(channel_of(target), alphas, tolerance=1e-3).overlap
            best_error = weighted_mse(amplitudes, np.diagonal(best, axis1=1, axis2=2))
            named["weighted_mse_bayes"] = (
                ("alpha",),
                best_error,
                "weighted MSE of the posterior mean, d -> infinity",
            )
            coordinates["alpha"] = alphas
        found = named["optimal_threshold"][1]
        padded = np.pad(found, (0, target.rank - len(found)), constant_values=np.nan)
        named["optimal_threshold"] = (("direction",), padded, named["optimal_threshold"][2])
        return _dataset(named, coordinates)


class Spectrum(Additive):
    """The spectrum of D at every n/d of the experiment: bulk and outliers.

    Variables: `bulk_density` at `bulk_point` (alpha, point), `bulk_edge` (alpha) and
    `outlier_predicted` (alpha, direction), NaN for a feature in the bulk.
    """

    def predictions(self, experiment, setup):
        law = law_of_features(setup)
        alphas = _alphas(self, experiment)
        r = setup.target.rank
        laws = [law.alone(k) for k in range(r)] if law.pairs is None else [law.together()]
        found = [predict(one, alphas) for one in laws]
        edge = found[0].edge
        outlier = np.concatenate(
            [np.where(one.overlap > 0, one.outlier, np.nan) for one in found], axis=1
        )
        low = -predict(law.negated().alone(0), alphas).edge
        point = low[:, None] + np.linspace(-0.02, 1.02, POINTS) * (edge - low)[:, None]
        density = [
            bulk_density(law.alone(0), float(a), x) for a, x in zip(alphas, point, strict=True)
        ]
        named = {
            "bulk_point": (("alpha", "point"), point, "eigenvalues"),
            "bulk_density": (("alpha", "point"), np.stack(density), "density of the bulk"),
            "bulk_edge": (("alpha",), edge, "upper end of the bulk"),
            "outlier_predicted": (("alpha", "direction"), outlier, "eigenvalue of a feature"),
        }
        return _dataset(named, {"alpha": alphas, "direction": np.arange(r)})


def _alphas(theory: Theory, experiment: Experiment) -> np.ndarray:
    if experiment.sample_kind != "alpha":
        raise ValueError(f"theory={theory.name()}: expected sample sizes as alpha")
    return np.asarray([float(a) for a in experiment.sample_values])


def _rate(target: Target) -> float:
    return rate(float(getattr(target, "gamma", np.nan)))


def _dataset(named: dict[str, Any], coords: dict[str, Any]) -> xr.Dataset:
    variables = {
        name: (dims, values, {"long_name": words, "units": "1"})
        for name, (dims, values, words) in named.items()
    }
    return xr.Dataset(variables, coords=coords)
