"""Which loss sees a target with the fewest samples: its spectral threshold, and Huber's best δ."""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from mirage.channels.labels import LabelBins
from mirage.channels.preprocessing import Preprocessing, bounded_above, law_of, slope_of
from mirage.gaussian import Estimate
from mirage.losses import Huber, Loss
from mirage.targets import Target
from mirage.theory.spectral import pooled_threshold, threshold

# Huber's δ is looked for between these multiples of the median of |y − E y|.
RANGE = (0.02, 50.0)
GRID = 16


class LossThreshold(NamedTuple):
    """Thresholds in n/d of both ends of the spectrum of D with T = −ℓ'(0, y).

    None where T is not bounded on that side: the largest eigenvalues then follow the largest
    labels, and there is no transition.
    """

    upper: Estimate | None
    lower: Estimate | None

    @property
    def best(self) -> float:
        """The smaller of the two, inf where there is none."""
        known = [float(end.value) for end in (self.upper, self.lower) if end is not None]
        return min(known, default=math.inf)


def loss_threshold(target: Target, loss: Loss, bins: LabelBins) -> LossThreshold:
    """Both thresholds of a loss, its ℓ'(0, y) centred."""
    preprocessing = slope_of(loss)
    slopes = law_of(loss, bins)

    def negated(y):
        return -preprocessing(y)

    ends: list[tuple[Preprocessing, bool]] = [(preprocessing, False), (negated, True)]
    found = [
        threshold(slopes.negated() if flip else slopes) if bounded_above(target, end) else None
        for end, flip in ends
    ]
    return LossThreshold(*found)


def huber_threshold(bins: LabelBins, delta: float) -> float:
    """The smaller threshold of Huber's loss with this δ."""
    slopes = law_of(Huber(delta=float(delta)), bins).pooled()
    return min(pooled_threshold(slopes), pooled_threshold(slopes.negated()))


def best_delta(bins: LabelBins) -> tuple[float, float]:
    """The δ at which Huber's threshold is lowest, and that threshold; (nan, inf) if none is."""
    size = typical_label(bins)
    deltas = size * np.geomspace(*RANGE, GRID)
    values = np.array([huber_threshold(bins, delta) for delta in deltas])
    if not np.isfinite(values).any():
        return math.nan, math.inf
    best = int(np.nanargmin(values))
    low, high = deltas[max(best - 1, 0)], deltas[min(best + 1, GRID - 1)]
    found = minimize_scalar(
        lambda x: min(huber_threshold(bins, math.exp(x)), 1e12),
        bounds=(math.log(low), math.log(high)),
        method="bounded",
        options={"xatol": 0.01},
    )
    if found.fun >= values[best]:
        return float(deltas[best]), float(values[best])
    return math.exp(found.x), float(found.fun)


def typical_label(bins: LabelBins) -> float:
    """The median of |y − median y|."""
    weights, labels = bins.probability.ravel(), bins.labels.ravel()

    def median(values):
        order = np.argsort(values)
        return values[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)]

    size = median(np.abs(labels - median(labels)))
    return float(size) if size > 0 else float(np.abs(labels).max()) or 1.0
