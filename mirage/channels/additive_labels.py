"""The law of a label that is a sum over directions, y = Σ_k f_k(h_k) + √Δ ξ, at any rank.

The summands are independent, so the law of y, and of y weighted with a function of one h_k, is a
convolution of laws on the line: measures on a grid of labels, multiplied where they are Fourier
series. What costs 2^(number of directions) points otherwise costs a few transforms a direction.
"""

import functools
import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from mirage.channels.preprocessing import Law, Preprocessing
from mirage.precision import double_precision
from mirage.targets import Target

# Points on each direction, and where h ends: it leaves out a mass of 1e-11 a direction.
POINTS, HALF_WIDTH = 2**18, 6.8
# Labels on the grid, up to so many directions and beyond.
FINE, COARSE, MANY = 2**17, 2**16, 64
# First moments of y given h_k below this share of the largest possible are rounding.
EVEN = 1e-9
# Directions up to which E[h_j h_k | y] is computed for every pair.
MAX_PAIRS = 24
# Bins that a law keeps, and the share of labels at either end that none of 10⁹ samples would have.
BINS, RARE = 4096, 1e-9


class AdditiveLabels(NamedTuple):
    """On an even grid of labels: P(y) and, for every direction, E[h_k² − 1; y]; for every pair
    E[h_j h_k; y], or None where it is zero for all, as for even f_k.
    """

    labels: Float[np.ndarray, " grid"]
    probability: Float[np.ndarray, " grid"]
    own: Float[np.ndarray, "r grid"]
    pairs: dict[tuple[int, int], Float[np.ndarray, " grid"]] | None


def is_additive(target: Target) -> bool:
    """Whether the target is a sum of functions of one direction each, plus Gaussian noise."""
    active = [axis for _, axes in target.parts() for axis in axes]
    plain = type(target).draw is Target.draw
    return plain and len(active) == len(set(active)) == len(target.parts()) == target.rank


def check_additive(target: Target) -> None:
    """ValueError unless the target is a sum of functions of one direction each."""
    if not is_additive(target):
        raise ValueError(f"target={target.name()}: not a sum of functions of one direction each")


def additive_labels(target: Target, *, known: int = 0) -> AdditiveLabels:
    """The law of what is left of the label when its first `known` directions are known.

    ValueError for a target that is not such a sum, and for one of more than `MAX_PAIRS`
    directions with a summand that is not even.
    """
    check_additive(target)
    above = (np.arange(POINTS // 2) + 0.5) * (2 * HALF_WIDTH / POINTS)
    h = np.concatenate([-above[::-1], above])
    weights = np.exp(-(h**2) / 2)
    weights /= weights.sum()
    weightings = np.array([weights, weights * (h**2 - 1), weights * h])
    with double_precision():
        parts = sorted(target.parts(), key=lambda part: part[1])[known:]
        values = [np.asarray(part(jnp.asarray(h[:, None])), np.float64) for part, _ in parts]
    r = len(values)
    size = FINE if r <= MANY else COARSE
    # Wide enough for all extremes together, and the noise's: nothing comes round.
    room = 8 * target.noise**0.5
    low = sum(v.min() for v in values) - room
    width = (sum(np.ptp(v) for v in values) + 2 * room) / (size - 4)
    if not np.isfinite(width) or width == 0:
        raise ValueError(f"target={target.name()}: the label is constant, or not finite")
    step = max(width, 1e-300)

    def transforms(value):
        """The Fourier series of a summand's measure, and of that weighted with h² − 1 and with h:
        each point is shared by two labels. Of an even summand half the points say all, and the
        last, which is zero, is left out.
        """
        weighted = weightings
        if np.array_equal(value, value[::-1]):
            value, weighted = value[: POINTS // 2], 2 * weightings[:2, : POINTS // 2]
        place = (value - value.min()) / step
        first = place.astype(np.int64)
        share = place - first
        for weight in weighted:
            measure = np.bincount(first, weight * (1 - share), minlength=size)
            measure += np.bincount(first + 1, weight * share, minlength=size)
            yield np.fft.rfft(measure)

    found = [list(transforms(value)) for value in values]
    series = np.array([one[0] for one in found])
    frequencies = 2 * np.pi * np.arange(size // 2 + 1) / (size * step)
    noise = np.exp(-target.noise * frequencies**2 / 2 + 1j * 0)
    if target.noise:  # the grid begins `room` below
        noise = noise * np.exp(-1j * frequencies * room)

    def back(spectrum):
        return np.fft.irfft(spectrum, size)

    others = _all_but_one(series, noise)
    own = np.array([back(one[1] * rest) for one, rest in zip(found, others, strict=True)])
    probability = np.maximum(back(others[0] * series[0]), 0.0)
    first = {k: one[2] for k, one in enumerate(found) if len(one) > 2}
    odd = [k for k, spectrum in first.items() if np.abs(spectrum).max() > EVEN]
    pairs = None
    if len(odd) > 1:
        if r > MAX_PAIRS:
            raise ValueError(
                f"target={target.name()}: {r} directions and links that are not even; "
                f"expected at most {MAX_PAIRS}"
            )
        pairs = {}
        for j, k in itertools.combinations(odd, 2):
            rest = [series[i] for i in range(r) if i not in (j, k)]
            pairs[j, k] = back(functools.reduce(np.multiply, rest, first[j] * first[k] * noise))
    return AdditiveLabels(low + step * np.arange(size), probability, own, pairs)


def _all_but_one(
    series: Complex[np.ndarray, "r frequencies"], start: Complex[np.ndarray, " frequencies"]
) -> Complex[np.ndarray, "r frequencies"]:
    """For every row the product of all others: no division, as rows have zeros."""
    before = np.empty_like(series)
    product = start
    for k in range(len(series)):
        before[k] = product
        product = product * series[k]
    after = np.ones_like(start)
    for k in reversed(range(len(series))):
        before[k] *= after
        after = after * series[k]
    return before


class FeatureLaw(NamedTuple):
    """The law of T with every direction: T_b, P(b) and E[h_k² − 1; b], E[h_j h_k; b] or None."""

    values: Float[np.ndarray, " bins"]
    probability: Float[np.ndarray, " bins"]
    own: Float[np.ndarray, "r bins"]
    pairs: dict[tuple[int, int], Float[np.ndarray, " bins"]] | None

    def negated(self) -> "FeatureLaw":
        """That of −T, whose upper end is the lower one of T."""
        return self._replace(values=-self.values)

    def alone(self, k: int) -> Law:
        """T and one direction."""
        moments = self.own[k][None, :, None, None]
        return Law(self.values[None], self.probability[None], moments)

    def together(self) -> Law:
        """T and all directions."""
        r = len(self.own)
        moments = np.zeros((len(self.values), r, r))
        moments[:, np.arange(r), np.arange(r)] = self.own.T
        for (j, k), values in (self.pairs or {}).items():
            moments[:, j, k] = moments[:, k, j] = values
        return Law(self.values[None], self.probability[None], moments[None])


def feature_law(
    labels: AdditiveLabels, preprocessing: Preprocessing, *, centred: bool = True
) -> FeatureLaw:
    """The law of T(y), minus its mean if `centred`, neighbours in y joined to `BINS` bins.

    Bins are fine where T changes and where labels are likely. Tails rarer than `RARE` are left out:
    an eigenvalue must lie beyond the largest T, and where T comes near its bound with the rarest
    labels alone, as y/(1 + |y|) does, the limit n → ∞ is one that no n in reach comes near.
    """
    p = labels.probability
    below, above = np.cumsum(p), np.cumsum(p[::-1])[::-1]
    met = (p > 0) & (np.minimum(below, above) > RARE * below[-1])
    probability = labels.probability[met]
    values = np.asarray(preprocessing(labels.labels[met]), np.float64)
    if centred:
        values = values - probability @ values / probability.sum()
    change = np.abs(np.diff(values, prepend=values[0]))
    measure = np.cumsum(probability) / probability.sum()
    measure = measure + np.cumsum(change) / max(change.sum(), 1e-300)
    places = np.minimum((measure / measure[-1] * BINS).astype(np.int64), BINS - 1)
    starts = np.flatnonzero(np.diff(places, prepend=-1))

    def join(array):
        return np.add.reduceat(array, starts, axis=-1)

    mass = join(probability)
    pairs = labels.pairs and {pair: join(v[met]) for pair, v in labels.pairs.items()}
    return FeatureLaw(join(probability * values) / mass, mass, join(labels.own[:, met]), pairs)
