"""An experiment: what is compared, on which grid of cells, or by which search."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx

from mirage.activations import Activation, Cos
from mirage.algorithms import Algorithm, LayerwiseGd
from mirage.channels.optimal import made_for
from mirage.designs import Auto, Deferred, Design, DesignChoice, Streamed
from mirage.experiments.search import Search
from mirage.experiments.theory import Theory
from mirage.experiments.tune import Tune
from mirage.inputs import Axes, Directions, Gaussian, Inputs
from mirage.losses import Huber, Loss
from mirage.measures import Measure
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
    "design": DesignChoice,
    "inputs": Inputs,
    "directions": Directions,
}
OTHERS: dict[str, type[Option]] = {
    "search": Search,
    "tune": Tune,
    "theory": Theory,
    "runtime": Runtime,
}
SAMPLES = ("alpha", "exponent", "n")
# Seeds are 32-bit counters; those above this one are for choices that are not reported.
RESERVED_SEEDS = 2**31


class Setup(eqx.Module):
    """One choice in every group."""

    target: Target
    loss: Loss
    activation: Activation
    network: TwoLayer
    algorithm: Algorithm
    design: DesignChoice
    inputs: Inputs
    directions: Directions

    def at(self, d: int) -> "Setup":
        """The same in d dimensions, on which the target may depend."""
        return dataclasses.replace(self, target=self.target.at(d))

    @property
    def columns(self) -> tuple[int, int]:
        """Query columns on the right and on the left of X, those for the labels included.

        At least one on the left: designs keep arrays of so many.
        """
        right, left = self.algorithm.queries(self.network, self.target.rank)
        return right + self.target.rank, max(1, left)

    def _asked(self, d: int) -> tuple[int, int]:
        """The columns again; an algorithm that asks for X itself takes all d of them."""
        right, left = self.columns
        return (right + d if self.algorithm.needs_rows else right), left

    def resolved_design(self, *, n: int, d: int, fits: Callable[[Design], bool]) -> Design:
        """The design of one cell."""
        if self.algorithm.one_pass:
            return self._one_pass_design(d)
        right, left = self._asked(d)
        size = {"n": n, "d": d, "right": right, "left": left, "steps": self.algorithm.steps}
        return self.design.resolve(self.inputs, **size, fits=fits)

    def _one_pass_design(self, d: int) -> Design:
        """Rows that are seen once: never drawn, or drawn where they are used and not kept."""
        possible = self.inputs.standard_gaussian and sum(self.columns) < d
        chosen = isinstance(self.design, Deferred) or (isinstance(self.design, Auto) and possible)
        return (Deferred if chosen else Streamed)(block=self.algorithm.block)

    def bytes_working(self, design: Design, *, n_max: int, d: int) -> int:
        """Bytes that one run needs besides X."""
        algorithm, (right, left) = self.algorithm, self.columns
        if algorithm.needs_law_alone:
            return 64 * algorithm.block * (self.network.width + self.target.rank)
        if algorithm.one_pass:  # and no arrays over all rows
            return design.bytes_working(n_max=algorithm.block, d=d, right=right, left=left)
        held = algorithm.bytes_working(n=n_max, network=self.network)
        return design.bytes_working(n_max=n_max, d=d, right=right, left=left) + held

    def check_cell(self, *, n: int, d: int) -> None:
        """ValueError where there is no such cell."""
        rank, (right, left) = self.target.rank, self._asked(d)
        design = self.resolved_design(n=n, d=d, fits=lambda _: True)
        n_min = n
        if self.algorithm.one_pass:  # nothing but d limits what is asked of a block
            n_min, right = d, right + left
        design.check_size(self.inputs, n_min=n_min, d=d, right=right, left=left)
        self.algorithm.check_cell(n=n, d=d, network=self.network, rank=rank)
        accepted = f"algorithm={self.algorithm.name()} with these settings is for inputs=gaussian"
        if self.algorithm.needs_gaussian:
            require(self.inputs.standard_gaussian, "inputs", self.inputs.name(), accepted)
        if self.algorithm.needs_law_alone:
            accepted += " and orthonormal directions"
            require(self.directions.orthonormal, "directions", self.directions.name(), accepted)
            accepted += ", and a target that draws no numbers of its own"
            require(not self.target.draws, "target", self.target.name(), accepted)

    def check_memory(self, runtime: Runtime, *, n: int, d: int) -> None:
        """ValueError, with the bytes, where what one cell cannot do without does not fit."""
        algorithm = self.algorithm
        held = algorithm.bytes_working(n=n, network=self.network)
        fits = not algorithm.holds or held <= runtime.memory_bytes
        needed = f"algorithm={algorithm.name()} at d={d}, n={n} holds {held} bytes"
        words = f"{needed} for {algorithm.holds}; raise it or take fewer samples"
        require(fits, "runtime.memory", runtime.budget, words)
        if algorithm.one_pass:  # of which nothing is kept for every sample
            return
        rank = self.target.rank
        held = 4 * rank * (d + n)
        words = (
            f"target={self.target.name()} at d={d}, n={n} holds {held} bytes for {rank} directions "
            "and what the samples have of them; raise it or take fewer directions"
        )
        require(held <= runtime.memory_bytes, "runtime.memory", runtime.budget, words)

    def with_setting(self, key: str, value: Any) -> "Setup":
        """The same with one setting changed, `key` as `group.setting`; ValueError names it else."""
        group, _, setting = key.partition(".")
        require(group in GROUPS, "vary", key, f"expected a group among {', '.join(GROUPS)}")
        option = getattr(self, group)
        accepted = ", ".join(option.settings()) or "none"
        known = f"{group}={option.name()} has the settings: {accepted}"
        require(setting in option.settings(), f"vary.{key}", value, known)
        changed = dataclasses.replace(option, **{setting: value})
        return eqx.tree_at(lambda s: getattr(s, group), self, changed)


def sample_size(kind: str, value: float, d: int) -> int:
    """n from `alpha` (⌊alpha d⌋), `exponent` (⌊d^exponent⌋) or `n`, safe from float error."""
    if kind == "n":
        return int(value)
    size = value * d if kind == "alpha" else math.exp(min(value * math.log(d), 100.0))
    return math.floor(size * (1 + 1e-12) + 1e-9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A grid of cells: compared options × varied settings × d × sample size × seed.

    Each group (`target`, `loss`, `activation`, `network`, `algorithm`, `design`, `inputs`,
    `directions`) is one option, or a mapping of names to options to compare. `vary` maps
    `group.setting` to the values it takes in turn. Of `alpha` (n/d), `exponent` (n = d^exponent)
    and `n` exactly one is given, or a `search` for the smallest that is enough; it and `d` take
    a number or several. `tune` picks settings of every compared option on seeds of their own
    first. `measures` are a user's own, beside those of the package. `theory` adds predictions for
    d → ∞; with no sample size at all, or `simulate` False, there is nothing but them. Raises
    ValueError, naming the key, for anything that cannot be run.
    """

    target: Target | Mapping[str, Target] = Hermite()
    loss: Loss | Mapping[str, Loss] = Huber()
    activation: Activation | Mapping[str, Activation] = Cos()
    network: TwoLayer | Mapping[str, TwoLayer] = TwoLayer()
    algorithm: Algorithm | Mapping[str, Algorithm] = LayerwiseGd()
    design: DesignChoice | Mapping[str, DesignChoice] = Auto()
    inputs: Inputs | Mapping[str, Inputs] = Gaussian()
    directions: Directions | Mapping[str, Directions] = Axes()
    vary: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    d: int | Sequence[int]
    alpha: float | Sequence[float] | None = None
    exponent: float | Sequence[float] | None = None
    n: int | Sequence[int] | None = None
    search: Search | None = None
    tune: Tune | None = None
    theory: Theory | None = None
    seeds: int = 10
    first_seed: int = 0
    root_seed: int = 0
    runtime: Runtime = Default()
    simulate: bool = True
    save_weights: bool = False
    measures: Sequence[Measure] = ()
    name: str = "recovery"
    config: str = ""
    # What `tune` found: settings by the options and values on the axes `tuned_along`.
    tuned: Mapping[tuple[Any, ...], Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    tuned_along: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "d", numbers("d", self.d, whole=True))
        for kind in SAMPLES:
            value = getattr(self, kind)
            if value is not None:
                object.__setattr__(self, kind, numbers(kind, value, whole=kind == "n"))
        given = [kind for kind in SAMPLES if getattr(self, kind) is not None]
        if self.search is not None:
            given.append("search")
        require(
            self.simulate or self.theory is not None,
            "simulate",
            self.simulate,
            "without simulation there is nothing to do but theory: expected one",
        )
        if len(given) > 1 or (not given and self.theory is None):
            got = " and ".join(given) or "none"
            raise ValueError(
                f"sample size: expected exactly one of alpha, exponent, n or a search; got {got}"
            )
        whole(self.seeds, "seeds", at_least=1)
        whole(self.root_seed, "root_seed", at_least=0)
        whole(self.first_seed, "first_seed", at_least=0)
        require(self.root_seed < 2**32, "root_seed", self.root_seed, "expected less than 2^32")
        for group, base in GROUPS.items():
            value = getattr(self, group)
            options = value.values() if isinstance(value, Mapping) else [value]
            require(len(options) > 0, group, value, "expected at least one option")
            for option in options:
                require(isinstance(option, base), group, option, f"expected a {base.__name__}")
        for key, base in OTHERS.items():
            option, least = getattr(self, key), "" if key == "runtime" else " or None"
            good = isinstance(option, base) or (option is None and bool(least))
            require(good, key, option, f"expected a {base.__name__}{least}")
        accepted = "expected {'group.setting': [values]}"
        require(isinstance(self.vary, Mapping), "vary", self.vary, accepted)
        for key, values in self.vary.items():
            listed = isinstance(values, Sequence) and not isinstance(values, str)
            accepted = "expected a list of different values"
            require(listed and len(values) > 0, f"vary.{key}", values, accepted)
            different = len({repr(value) for value in values}) == len(values)
            require(different, f"vary.{key}", values, accepted)
        for one in self.measures:
            require(isinstance(one, Measure), "measures", one, "expected a list of Measures")
        self._check_cells()
        if self.theory is not None:
            for setup in self.setups().values():
                self.theory.serve(setup.target)
        if self.tune is not None:
            self._check_tune(self.tune)

    @property
    def cells(self) -> int:
        """How many cells are simulated, seeds counted; 0 where that is not known before."""
        if not self.simulated or self.search is not None:
            return 0
        lanes = math.prod(len(names) for names in self.axes.values())
        return lanes * len(self.dimensions) * len(self.sample_values) * self.seeds

    def _check_tune(self, tune: Tune):
        for key, values in tune.settings:
            group, _, setting = key.partition(".")
            where, groups = f"tune.settings.{key}", ", ".join(GROUPS)
            require(group in GROUPS, where, list(values), f"expected a group among {groups}")
            require(key not in self.vary, where, list(values), "this setting is varied")
            given = getattr(self, group)
            options = given.values() if isinstance(given, Mapping) else [given]
            having = [option for option in options if setting in option.settings()]
            require(len(having) > 0, where, list(values), "no option has this setting")
            for option, value in itertools.product(having, values):
                try:
                    dataclasses.replace(option, **{setting: value})
                except ValueError as error:
                    raise ValueError(f"tune.settings.{error}") from error
        known = list(self.varied)
        for name in tune.apart:
            accepted = f"expected varied settings, {', '.join(known) or 'of which there are none'}"
            require(name in known, "tune.apart", name, accepted)
            within = {key for key, _ in tune.within}
            require(name not in within, "tune.apart", name, "it stands in tune.within too")
        self.narrowed(tune)

    def narrowed(self, tune: Tune) -> dict[str, Any]:
        """The fields that `tune.within` narrows, at the values it keeps."""
        known: dict[str, Sequence[Any]] = {"d": self.dimensions}
        if self.search is None:
            known[self.sample_kind] = self.sample_values
        known |= {name: self.vary[key] for name, key in self.varied.items()}
        changed: dict[str, Any] = {}
        for name, values in tune.within:
            require(name in known, "tune.within", name, f"expected one of {', '.join(known)}")
            inside, kept = set(values) <= set(known[name]), list(known[name])
            require(inside, f"tune.within.{name}", list(values), f"expected some of {kept}")
            if name in self.varied:
                vary = changed.get("vary", self.vary)
                changed["vary"] = {**vary, self.varied[name]: list(values)}
            else:
                changed[name] = values
        return changed

    def _check_cells(self):
        for d, value in itertools.product(self.dimensions, self.sample_values):
            n = sample_size(self.sample_kind, value, d)
            key = f"{self.sample_kind}={value}"
            if n < 1:
                raise ValueError(f"{key} at d={d}: gives n={n} samples, expected at least 1")
            if n > 2**31 - 2**13:
                raise ValueError(f"{key} at d={d}: gives n={n:.3g} samples, more than 2^31")
        setups = self.setups().values() if self.simulated else ()
        for setup, d in itertools.product(setups, self.dimensions):
            here = setup.at(d)
            rank = here.target.rank
            require(d >= rank, "d", d, f"expected at least the target's rank, {rank}")
            here.directions.check_size(r=rank, d=d)
            here.inputs.check_size(n_max=max(self.sizes(d)), d=d)
            for n in self.sizes(d):
                here.check_cell(n=n, d=d)
                here.check_memory(self.runtime, n=n, d=d)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Every d, in order."""
        return self.d if isinstance(self.d, tuple) else numbers("d", self.d, whole=True)

    @property
    def simulated(self) -> bool:
        """Whether there are cells to run, and not theory alone."""
        given = self.search is not None or any(getattr(self, kind) is not None for kind in SAMPLES)
        return self.simulate and given

    @property
    def sample_kind(self) -> str:
        """Which of alpha, exponent and n was given or is searched for."""
        if self.search is not None:
            return self.search.over
        return next((kind for kind in SAMPLES if getattr(self, kind) is not None), "alpha")

    @property
    def sample_values(self) -> tuple[float, ...]:
        """The sample sizes as given; the two ends of a search."""
        if self.search is not None:
            return (self.search.low, self.search.high)
        if not self.simulated:
            return ()
        return getattr(self, self.sample_kind)

    def size(self, value: float, d: int) -> int:
        """n for one sample value."""
        return sample_size(self.sample_kind, value, d)

    def sizes(self, d: int) -> list[int]:
        """n for every sample value."""
        return [self.size(value, d) for value in self.sample_values]

    @property
    def compared(self) -> dict[str, list[str]]:
        """The compared groups and the names of their options."""
        compared = {g: getattr(self, g) for g in GROUPS if isinstance(getattr(self, g), Mapping)}
        return {group: list(options) for group, options in compared.items()}

    @property
    def varied(self) -> dict[str, str]:
        """The name of each varied setting as a dimension (`width`): that of `vary` for its key."""
        short = [key.split(".")[-1] for key in self.vary]
        taken = {*GROUPS, *SAMPLES, "d", "seed", *(s for s in short if short.count(s) > 1)}
        return {
            key.replace(".", "_") if name in taken else name: key
            for key, name in zip(self.vary, short, strict=True)
        }

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The dimensions of the setups with their coordinates: compared, then varied."""
        varied = {name: list(self.vary[key]) for name, key in self.varied.items()}
        return {**self.compared, **varied}

    def setups(self) -> dict[tuple[Any, ...], Setup]:
        """Every combination of compared options and varied values, in the order of `axes`."""
        axes, compared = self.axes, self.compared
        fixed = {group: getattr(self, group) for group in GROUPS if group not in compared}
        combinations = {}
        for names in itertools.product(*axes.values()):
            place = dict(zip(axes, names, strict=True))
            chosen = {group: getattr(self, group)[place[group]] for group in compared}
            setup = Setup(**fixed, **chosen)
            for name, key in self.varied.items():
                setup = setup.with_setting(key, place[name])
            labels = tuple(place[axis] for axis in self.tuned_along)
            for key, value in self.tuned.get(labels, {}).items():
                setup = setup.with_setting(key, value)
            combinations[names] = _made_for_target(setup)
        return combinations


def _made_for_target(setup: Setup) -> Setup:
    """With the loss and the algorithm made for the target."""
    made = (made_for(setup.loss, setup.target), setup.algorithm.made_for(setup.target))
    return eqx.tree_at(lambda s: (s.loss, s.algorithm), setup, made)


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
