"""Tuning: each compared option with its own best settings, picked on seeds not reported."""

import abc
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np

from mirage.measures import SCALARS
from mirage.options import Option

log = logging.getLogger(__name__)

Settings = tuple[tuple[str, tuple[Any, ...]], ...]


def listed(settings: Any) -> Settings:
    """`{group: {setting: values}}` or `{"group.setting": values}` as pairs of key and values."""
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


class Tune(Option, abc.ABC):
    """Which settings to try, on how many seeds, and what is best.

    `settings` gives the values of each (`{algorithm: {step_size: [1, 2]}, loss: {delta: [1]}}`);
    a setting that an option does not have is not tried for it. `measure` is what is compared,
    its median over seeds; its logarithm (its value for a cosine) is averaged over d, sample size
    and whatever else the experiment varies.
    """

    group: ClassVar[str] = "tune"

    settings: Settings = eqx.field(static=True, converter=listed)
    seeds: int = eqx.field(static=True, default=5)
    measure: str = eqx.field(static=True, default="test_error")

    def __check_init__(self):
        self.check("seeds", self.seeds >= 1, "expected a whole number ≥ 1")
        known = ", ".join(SCALARS)
        self.check("measure", self.measure in SCALARS, f"expected one of {known}")
        accepted = "expected {group: {setting: [values]}}"
        self.check(
            "settings", isinstance(self.settings, tuple) and len(self.settings) > 0, accepted
        )
        for key, values in self.settings:
            self.check("settings", "." in key and len(values) > 0, accepted)

    def score(self, values: np.ndarray) -> float:
        """What is minimised, for measured values (..., seeds); a diverged cell is the worst."""
        median = np.median(np.where(np.isnan(values), np.inf, values), axis=-1)
        if self.measure != "test_error":
            return float(-np.where(np.isfinite(median), median, 0.0).mean())
        with np.errstate(divide="ignore"):
            return float(np.log(median).mean())


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
