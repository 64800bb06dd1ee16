"""Tuning: each compared option with its own best settings, picked on seeds not reported."""

import abc
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np

from mirage.measures import scalars
from mirage.options import Option, require

Settings = tuple[tuple[str, tuple[Any, ...]], ...]


def listed(settings: Any) -> Settings:
    """`{group: {setting: values}}` or `{"group.setting": values}` as pairs of key and values."""
    if settings is None:
        return ()
    if not isinstance(settings, Mapping):
        return settings
    pairs: list[tuple[str, tuple[Any, ...]]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            pairs += [(f"{key}.{inner}", values) for inner, values in listed(value)]
        else:
            several = isinstance(value, Sequence) and not isinstance(value, str)
            pairs.append((str(key), tuple(value) if several else (value,)))
    return tuple(pairs)


def names(value: Any) -> tuple[str, ...]:
    """One name or several as a tuple; what is neither is left to the checks."""
    if value is None or (isinstance(value, Sequence) and not isinstance(value, str)):
        return tuple(value or ())
    return (value,)


class Tune(Option, abc.ABC):
    """Which settings to try, on how many seeds, and what is best.

    `settings` gives the values of each (`{algorithm: {step_size: [1, 2]}, loss: {delta: [1]}}`);
    a setting that an option does not have is not tried for it. `measure` is what is compared,
    its median over seeds; its logarithm (its value for a cosine) is averaged over d, sample size
    and whatever else the experiment varies. `within` narrows these (`{width: [16], alpha: [10]}`)
    where to tune at every cell would cost too much. For each value of the varied settings in
    `apart` (`[width]`) the best is picked by itself.
    """

    group: ClassVar[str] = "tune"

    settings: Settings = eqx.field(static=True, converter=listed)
    seeds: int = eqx.field(static=True, default=5)
    measure: str = eqx.field(static=True, default="test_error")
    within: Settings = eqx.field(static=True, converter=listed, default=None)  # type: ignore[assignment]
    apart: tuple[str, ...] = eqx.field(static=True, converter=names, default=())

    def __check_init__(self):
        self.check("seeds", self.seeds >= 1, "expected a whole number ≥ 1")
        known = ", ".join(scalars())
        self.check("measure", self.measure in scalars(), f"expected one of {known}")
        accepted = "expected {group: {setting: [values]}}"
        good = isinstance(self.settings, tuple) and len(self.settings) > 0
        self.check("settings", good, accepted)
        for key, values in self.settings:
            require("." in key and len(values) > 0, f"tune.settings.{key}", list(values), accepted)
        named = all(isinstance(name, str) for name in self.apart)
        self.check("apart", named, "expected the name of a varied setting, or a list of them")
        accepted = "expected {dimension: [values]}"
        self.check("within", isinstance(self.within, tuple), accepted)
        for key, values in self.within:
            require(len(values) > 0, f"tune.within.{key}", list(values), accepted)

    def score(self, values: np.ndarray) -> tuple[int, float]:
        """What is minimised, for measured values (..., seeds): how many cells diverged (their
        median did), then the mean over the others; inf where none is left.
        """
        median = np.median(np.where(np.isnan(values), np.inf, values), axis=-1)
        kept = median[np.isfinite(median)]
        diverged = median.size - kept.size
        if kept.size == 0:
            return diverged, math.inf
        if self.measure != "test_error":
            return diverged, float(-kept.mean())
        return diverged, float(np.log(np.maximum(kept, np.finfo(float).tiny)).mean())


class Grid(Tune):
    """Every combination of the values."""


def candidates(option: Any, group: str, settings: Settings) -> list[dict[str, Any]]:
    """The combinations of those settings of a group that an option has, as `group.setting`."""
    have = [
        (key, values)
        for key, values in settings
        if key.split(".")[0] == group and key.split(".", 1)[1] in option.settings()
    ]
    keys = [key for key, _ in have]
    return [
        dict(zip(keys, values, strict=True)) for values in itertools.product(*(v for _, v in have))
    ]
