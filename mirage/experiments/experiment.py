"""An experiment: what is compared, on which grid of cells."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mirage.activations import Activation, Cos
from mirage.algorithms import Algorithm, LayerwiseGd
from mirage.designs import Dense, Design
from mirage.losses import Huber, Loss
from mirage.network import Network, TwoLayer
from mirage.options import Option, require
from mirage.runtime import Default, Runtime
from mirage.targets import Hermite, Target

GROUPS: dict[str, type[Option]] = {
    "target": Target,
    "loss": Loss,
    "activation": Activation,
    "network": Network,
    "algorithm": Algorithm,
    "design": Design,
}
SAMPLES = ("alpha", "exponent", "n")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """One choice in every group."""

    target: Target
    loss: Loss
    activation: Activation
    network: TwoLayer
    algorithm: Algorithm
    design: Design


def sample_size(kind: str, value: float, d: int) -> int:
    """n from `alpha` (⌊alpha d⌋), `exponent` (⌊d^exponent⌋) or `n`, safe from float error."""
    if kind == "n":
        return int(value)
    size = value * d if kind == "alpha" else math.exp(min(value * math.log(d), 100.0))
    return math.floor(size * (1 + 1e-12) + 1e-9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A grid of cells: compared options × d × sample size × seed.

    Each group (`target`, `loss`, `activation`, `network`, `algorithm`, `design`) is one option,
    or a mapping of names to options to compare. Of `alpha` (n/d), `exponent` (n = d^exponent)
    and `n` exactly one is given; it and `d` take a number or several. Raises ValueError, naming
    the key, for anything that cannot be run.
    """

    target: Target | Mapping[str, Target] = Hermite()
    loss: Loss | Mapping[str, Loss] = Huber()
    activation: Activation | Mapping[str, Activation] = Cos()
    network: TwoLayer | Mapping[str, TwoLayer] = TwoLayer()
    algorithm: Algorithm | Mapping[str, Algorithm] = LayerwiseGd()
    design: Design | Mapping[str, Design] = Dense()
    d: int | Sequence[int]
    alpha: float | Sequence[float] | None = None
    exponent: float | Sequence[float] | None = None
    n: int | Sequence[int] | None = None
    seeds: int = 10
    root_seed: int = 0
    runtime: Runtime = Default()
    save_weights: bool = False
    name: str = "recovery"
    config: str = ""

    def __post_init__(self):
        object.__setattr__(self, "d", numbers("d", self.d, whole=True))
        for kind in SAMPLES:
            value = getattr(self, kind)
            if value is not None:
                object.__setattr__(self, kind, numbers(kind, value, whole=kind == "n"))
        given = [kind for kind in SAMPLES if getattr(self, kind) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ValueError(f"sample size: expected exactly one of alpha, exponent, n; got {got}")
        whole(self.seeds, "seeds", at_least=1)
        whole(self.root_seed, "root_seed", at_least=0)
        require(self.root_seed < 2**32, "root_seed", self.root_seed, "expected less than 2^32")
        for group, base in GROUPS.items():
            value = getattr(self, group)
            options = value.values() if isinstance(value, Mapping) else [value]
            require(len(options) > 0, group, value, "expected at least one option")
            for option in options:
                require(isinstance(option, base), group, option, f"expected a {base.__name__}")
        self._check_cells()

    def _check_cells(self):
        for d, value in itertools.product(self.dimensions, self.sample_values):
            n = sample_size(self.sample_kind, value, d)
            key = f"{self.sample_kind}={value}"
            if n < 1:
                raise ValueError(f"{key} at d={d}: gives n={n} samples, expected at least 1")
            if n > 2**31 - 2**13:
                raise ValueError(f"{key} at d={d}: gives n={n:.3g} samples, more than 2^31")
        n_min = {d: min(self.sizes(d)) for d in self.dimensions}
        for setup in self.setups().values():
            rank = setup.target.rank
            for d in self.dimensions:
                require(d >= rank, "d", d, f"expected at least the target's rank, {rank}")
                right, left = setup.algorithm.queries(setup.network)
                setup.design.check_size(n_min=n_min[d], d=d, right=right + rank, left=left)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Every d, in order."""
        return self.d if isinstance(self.d, tuple) else numbers("d", self.d, whole=True)

    @property
    def sample_kind(self) -> str:
        """Which of alpha, exponent and n was given."""
        return next(kind for kind in SAMPLES if getattr(self, kind) is not None)

    @property
    def sample_values(self) -> tuple[float, ...]:
        """The sample sizes as given."""
        return getattr(self, self.sample_kind)

    def sizes(self, d: int) -> list[int]:
        """n for every sample value."""
        return [sample_size(self.sample_kind, value, d) for value in self.sample_values]

    @property
    def axes(self) -> dict[str, list[str]]:
        """The compared groups and the names of their options."""
        compared = {g: getattr(self, g) for g in GROUPS if isinstance(getattr(self, g), Mapping)}
        return {group: list(options) for group, options in compared.items()}

    def setups(self) -> dict[tuple[str, ...], Setup]:
        """Every combination of the compared options, by their names in the order of `axes`."""
        axes = self.axes
        fixed = {group: getattr(self, group) for group in GROUPS if group not in axes}
        combinations = {}
        for names in itertools.product(*axes.values()):
            chosen = {g: getattr(self, g)[name] for g, name in zip(axes, names, strict=True)}
            combinations[names] = Setup(**fixed, **chosen)
        return combinations


def whole(value: Any, key: str, *, at_least: int) -> int:
    """`value` as an int; ValueError unless it is a whole number ≥ `at_least`."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    good = good and math.isfinite(value) and value == int(value) and value >= at_least
    require(good, key, value, f"expected a whole number ≥ {at_least}")
    return int(value)


def numbers(key: str, value: Any, *, whole: bool) -> tuple[Any, ...]:
    """A positive number or a list of different ones, as a tuple; ValueError naming `key` else."""
    kind = "whole number" if whole else "number"
    accepted = f"expected a positive {kind} or a list of them"
    values = (
        tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    )
    require(len(values) > 0, key, value, accepted)
    for item in values:
        number = isinstance(item, int | float) and not isinstance(item, bool)
        size = float(item) if number else math.nan
        good = math.isfinite(size) and size > 0 and (not whole or size == int(size))
        require(good, key, value, accepted)
    values = tuple(int(v) if whole else v for v in values)
    require(len(set(values)) == len(values), key, value, "the same value is given twice")
    return values
