"""Searches: the smallest sample size at which a criterion holds, with its uncertainty."""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np

from mirage.measures import scalars
from mirage.options import Option

OVER = ("exponent", "alpha", "n")
RESAMPLES = 2000


class SearchError(ValueError):
    """What is searched for is not among the results."""


def levels(value: Any) -> tuple[Any, ...]:
    """One threshold or several, as a tuple; empty for None."""
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    return (value,)


class Search(Option, abc.ABC):
    """The smallest sample size at which a quantile over seeds of a measure meets a threshold.

    `over` says what is searched (`exponent`, `alpha` or `n`), between `low` and `high`, to within
    `tolerance` (a ratio for alpha and n). The criterion is that the `quantile` over seeds of
    `measure` be `at_most` or `at_least` a threshold, one or several. A seed that diverged fails
    the criterion. `confidence` is that of the bootstrap interval over seeds.
    """

    group: ClassVar[str] = "search"

    over: str = eqx.field(static=True, default="exponent")
    low: float = eqx.field(static=True, default=1.0)
    high: float = eqx.field(static=True, default=2.0)
    tolerance: float = eqx.field(static=True, default=0.01)
    measure: str = eqx.field(static=True, default="test_error")
    at_most: Any = eqx.field(static=True, converter=levels, default=0.1)
    at_least: Any = eqx.field(static=True, converter=levels, default=None)
    quantile: float = eqx.field(static=True, default=0.5)
    confidence: float = eqx.field(static=True, default=0.95)

    def __check_init__(self):
        self.check("over", self.over in OVER, f"expected one of {', '.join(OVER)}")
        known = ", ".join(scalars())
        self.check("measure", self.measure in scalars(), f"expected one of {known}")
        self.check("low", self.low > 0, "expected a positive number")
        accepted = f"the search goes from low={self.low:g} up to high: expected more than that"
        self.check("high", self.high > self.low, accepted)
        self.check("tolerance", self.tolerance > 0, "expected a positive number")
        for key in ("quantile", "confidence"):
            self.check(key, 0 < getattr(self, key) < 1, "expected a number between 0 and 1")
        both = bool(self.at_most) and bool(self.at_least)
        key = "at_least" if both else "at_most"
        accepted = "expected at_most or at_least, and not both"
        self.check(key, bool(self.thresholds) and not both, accepted)
        for key in ("at_most", "at_least"):
            values = getattr(self, key)
            good = all(
                isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < math.inf
                for v in values
            )
            self.check(key, good, "expected a positive number or a list of them")
            self.check(key, len(set(values)) == len(values), "the same value is given twice")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds in the order given."""
        return self.at_most or self.at_least

    @property
    def threshold_name(self) -> str:
        """The dimension of the thresholds: `epsilon` for errors to stay under, else `level`."""
        return "epsilon" if self.at_most else "level"

    def words(self) -> str:
        """The criterion in words."""
        share = "median" if self.quantile == 0.5 else f"{self.quantile:g} quantile"
        bound = "at most" if self.at_most else "at least"
        return f"{share} of {self.measure} over seeds {bound} {self.threshold_name}"

    def holds(self, values: np.ndarray, threshold: float) -> np.ndarray:
        """Whether the quantile over the last axis meets the threshold; NaN counts as failing."""
        met = values <= threshold if self.at_most else values >= threshold
        # Of an observed value, not one between two: a median of finite and infinite stays defined.
        needed = math.ceil(self.quantile * (values.shape[-1] - 1)) + 1
        return met.sum(axis=-1) >= needed

    def scale(self, value: float) -> float:
        """The coordinate that is halved: the exponent itself, the logarithm of alpha or n."""
        return value if self.over == "exponent" else math.log(value)

    def unscale(self, coordinate: float) -> float:
        """The inverse of `scale`."""
        return coordinate if self.over == "exponent" else math.exp(coordinate)


class Bisection(Search):
    """Up from the lower end in strides until the criterion holds, then halving."""

    strides: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        self.check("strides", self.strides >= 1, "expected a whole number ≥ 1")


@dataclasses.dataclass(frozen=True)
class Found:
    """The threshold in sample size and its confidence interval.

    `status` is `found`; `not reached` where the criterion fails up to the upper end (`value` is
    NaN); or `below` where it holds at the lower end already (`value` is that end). `monotone` is
    False where the criterion was seen to fail above a size at which it holds.
    """

    value: float
    low: float
    high: float
    status: str
    monotone: bool


class Evaluations:
    """The measure of every seed at the sample sizes tried so far, each size tried once."""

    def __init__(self, evaluate: Callable[[float], np.ndarray], size: Callable[[float], int]):
        self._evaluate, self._size = evaluate, size
        self.values: dict[float, np.ndarray] = {}

    def at(self, value: float) -> np.ndarray:
        """The measure of every seed, evaluated unless this n was before."""
        same = [known for known in self.values if self._size(known) == self._size(value)]
        if not same:
            self.values[value] = np.asarray(self._evaluate(value), np.float64)
        return self.values[same[0] if same else value]

    def apart(self, a: float, b: float) -> bool:
        """Whether a whole number of samples lies between two sample values."""
        return abs(self._size(a) - self._size(b)) > 1

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Sample values in order (k,) and what was measured there (k, seeds)."""
        order = sorted(self.values)
        return np.array(order), np.stack([self.values[value] for value in order])


def bisect(search: Bisection, threshold: float, evaluations: Evaluations, seed: int) -> Found:
    """Find the smallest sample value at which the criterion holds, and its interval.

    Halves the bracket to `tolerance`, then does the same at both ends of the bootstrap interval.
    """

    def holds(value):
        return bool(search.holds(evaluations.at(value), threshold))

    ladder = np.linspace(search.scale(search.low), search.scale(search.high), search.strides + 1)
    steps = iter(map(search.unscale, ladder))
    above = next((v for v in steps if holds(v)), None)
    if above is not None and above > search.low:
        # One stride beyond, to see that the criterion goes on holding.
        evaluations.at(next(steps, above))
    failed = [v for v in evaluations.values if above is not None and v < above and not holds(v)]
    while above is not None and failed and _wide(search, evaluations, failed[-1], above):
        failed.sort()
        middle = search.unscale((search.scale(failed[-1]) + search.scale(above)) / 2)
        if holds(middle):
            above = middle
        else:
            failed.append(middle)
    while (size := _unresolved(search, threshold, evaluations, seed)) is not None:
        evaluations.at(size)
    return _found(search, threshold, evaluations, seed)


def crossings(search: Search, threshold: float, values: np.ndarray, seed: int) -> np.ndarray:
    """For every bootstrap resample of seeds, the index of the first size at which it holds.

    `values` is (sizes, seeds); an index of len(sizes) says that it holds at none of them.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(values.shape[1], size=(RESAMPLES, values.shape[1]))
    passed = np.stack([search.holds(row[picks], threshold) for row in values])  # (sizes, resamples)
    return np.where(passed.any(axis=0), passed.argmax(axis=0), len(values))


def _wide(search, evaluations, below, above, tolerance=0.0) -> bool:
    tolerance = max(tolerance, search.tolerance) * (1 + 1e-9)
    far = search.scale(above) - search.scale(below) > tolerance
    return far and evaluations.apart(above, below)


def _interval(search, threshold, evaluations, seed) -> tuple[np.ndarray, int, int]:
    """The sizes tried, and the indices of the first that holds at both ends of the interval."""
    sizes, values = evaluations.table()
    first = crossings(search, threshold, values, seed)
    tail = (1 - search.confidence) / 2
    low, high = np.quantile(first, [tail, 1 - tail], method="nearest")
    return sizes, int(low), int(high)


def _unresolved(search, threshold, evaluations, seed) -> float | None:
    """The next size to try for the ends of the interval; None when both are resolved."""
    sizes, *ends = _interval(search, threshold, evaluations, seed)
    # An interval need not be known better than to a quarter of its length.
    last = sizes[min(ends[1], len(sizes) - 1)]
    share = (search.scale(last) - search.scale(sizes[max(ends[0] - 1, 0)])) / 4
    stride = (search.scale(search.high) - search.scale(search.low)) / search.strides
    for end in ends:
        if end == len(sizes):
            further = search.unscale(search.scale(sizes[-1]) + stride)
            above = min(further, search.high)
            if evaluations.apart(above, sizes[-1]):
                return above
        elif end > 0 and _wide(search, evaluations, sizes[end - 1], sizes[end], share):
            return search.unscale((search.scale(sizes[end - 1]) + search.scale(sizes[end])) / 2)
    return None


def _found(search, threshold, evaluations, seed) -> Found:
    sizes, low, high = _interval(search, threshold, evaluations, seed)
    passed = search.holds(evaluations.table()[1], threshold)
    # The interval runs from the last size that fails to the first that holds.
    lower = float(sizes[max(low - 1, 0)])
    upper = float(sizes[high]) if high < len(sizes) else math.inf
    if not passed.any():
        return Found(math.nan, lower, upper, "not reached", True)
    first = int(passed.argmax())
    status = "below" if first == 0 else "found"
    return Found(float(sizes[first]), lower, upper, status, bool(passed[first:].all()))
