"""The option of `theory` for one-pass SGD: its order parameters for d → ∞."""

import logging
import math

import numpy as np
import xarray as xr
from scipy.special import ndtri

from mirage.algorithms.one_pass import OnePass
from mirage.experiments.experiment import Setup
from mirage.experiments.predictions import along
from mirage.experiments.theory import Theory

log = logging.getLogger(__name__)
# The median of |N(0, 1)|: √d times the overlap that half of the random neurons start below.
MEDIAN = float(ndtri(0.75))
# A run is followed for this many times the samples that it had.
BEYOND = 10.0


class OrderParameters(Theory):
    """Escape times of one neuron under one-pass SGD, by the closed equations of its overlap.

    Variable: `escape_samples_predicted` (d), the samples until the cosine is
    `algorithm.stop_cosine`, from the median |overlap| of a random start, 0.674/√d; inf where the
    equations never come there within ten times the samples of the run. NaN, with a word in the
    log, for other algorithms, several neurons or directions, or without `stop_cosine`.
    """

    def compute(self, experiment):
        groups = ("target", "loss", "activation", "network", "algorithm")
        most = {d: max(experiment.sizes(d)) for d in experiment.dimensions}
        return along(experiment, groups, lambda setup: _escape(setup, most))


def _escape(setup: Setup, most: dict[int, int]) -> xr.Dataset:
    values = np.full(len(most), np.nan)
    missing = _missing(setup)
    if missing:
        log.warning("no theory of the escape: it is for %s", missing)
    else:
        values = np.array([_samples(setup, d, n) for d, n in most.items()])
    words = "samples until a neuron has algorithm.stop_cosine, by the ODE"
    named = ("d", values, {"long_name": words, "units": "1"})
    return xr.Dataset({"escape_samples_predicted": named}, coords={"d": list(most)})


def _missing(setup: Setup) -> str:
    """What there is no prediction without; nothing where all is there."""
    network = setup.network
    needed = {
        "one-pass SGD": isinstance(setup.algorithm, OnePass),
        "one neuron": network.width == 1 and not network.symmetric,
        "one direction": setup.target.rank == 1,
        "output weights of one sign": network.output == "ones",
        "no biases": network.initial_bias_scale == 0,
        "algorithm.stop_cosine": getattr(setup.algorithm, "stop_cosine", None) is not None,
    }
    return ", ".join(words for words, there in needed.items() if not there)


def _samples(setup: Setup, d: int, n: int) -> float:
    algorithm, network = setup.algorithm, setup.network
    assert isinstance(algorithm, OnePass)
    assert algorithm.stop_cosine is not None
    # Its solver of ODEs is slow to import, and seldom needed.
    from mirage.theory.order_parameters import Dynamics, escape_time, rescaled

    dynamics = Dynamics(
        target=setup.target,
        loss=setup.loss,
        activation=setup.activation,
        readout=np.full(1, float(network.output_scale)),
        update=rescaled(algorithm.rule(d), dimension=d, batch_size=algorithm.batch_size),
        spherical=algorithm.spherical,
    )
    norm = 1.0 if algorithm.spherical else float(network.initial_norm)
    start = np.full((1, 1), norm * MEDIAN / math.sqrt(d))
    time = escape_time(
        dynamics,
        start,
        np.full((1, 1), norm**2),
        level=float(algorithm.stop_cosine),
        max_time=BEYOND * n / d,
    )
    return time * d
