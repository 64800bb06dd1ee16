"""Running the cells: compiled functions, chunks of seeds, devices, and the clock."""

import contextlib
import dataclasses
import json
import logging
import time
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mirage.designs import Design
from mirage.experiments import programs
from mirage.experiments.cell import run_seed, seed_keys, stream
from mirage.experiments.experiment import Experiment
from mirage.experiments.families import Family, as_array
from mirage.experiments.journal import Journal
from mirage.experiments.plan import Batch, Plan

log = logging.getLogger(__name__)
# What XLA says of an array that does not fit.
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


@dataclasses.dataclass
class Clock:
    """Where the time of a run went, in seconds, and how often it compiled."""

    seconds: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(("compile", "draw", "train", "measure"), 0.0)
    )
    compilations: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"draw": 0, "train": 0}
    )

    @property
    def compute(self) -> float:
        """Seconds of drawing and training."""
        return self.seconds["draw"] + self.seconds["train"]

    def lap(self, part: str, start: float) -> None:
        """Count the time since `start` (of `time.perf_counter`) towards a part."""
        self.seconds[part] += time.perf_counter() - start


class Watch(Protocol):
    """Is told of cells as they are done: computed now, kept from before, or failed."""

    def __call__(self, cells: int, *, kept: bool = False, failed: bool = False) -> None: ...


def unwatched(cells: int, *, kept: bool = False, failed: bool = False) -> None:
    """For runs that nobody watches."""


@dataclasses.dataclass(frozen=True)
class Keeper:
    """How a run is kept: where its cells are stored, and who is told of them.

    With `goes_on` cells that fail are left out, and the others run; otherwise their error is
    raised.
    """

    journal: Journal | None = None
    watch: Watch = unwatched
    goes_on: bool = False

    def flush(self) -> None:
        """Write what is not written yet."""
        if self.journal is not None:
            self.journal.flush()

    def part(self, name: str) -> "Keeper":
        """The same for one of several experiments of a run."""
        journal = None if self.journal is None else self.journal.part(name)
        return dataclasses.replace(self, journal=journal)


UNKEPT = Keeper()


@dataclasses.dataclass(frozen=True)
class Failure:
    """Cells that raised: which, the error in a line, and its traceback."""

    cells: str
    error: str
    traceback: str


@dataclasses.dataclass(frozen=True)
class Block:
    """The results of one family at one (d, n) for some seeds: arrays (seeds, lanes, ...)."""

    family: Family
    design: Design
    d: int
    n: int
    seeds: slice
    values: dict[str, Any]


class Executor:
    """Runs cells on a row of devices, chunk of seeds by chunk of seeds."""

    def __init__(self, experiment: Experiment, keeper: Keeper = UNKEPT):
        self.experiment = experiment
        self.keeper = keeper
        self.failures: list[Failure] = []
        self.mesh: Mesh = experiment.runtime.mesh()
        self.plan = Plan(experiment, devices=self.mesh.size)
        self.clock = Clock()
        self._compiled: dict[Any, Any] = {}
        self._current: Batch | None = None
        self._held: tuple[Any, Any] = (None, None)
        self._bar: Any = None

    def blocks(self) -> Iterator[Block]:
        """Every block of results of a grid, in the order of the experiment."""
        for batch, cells in self.plan.batches:
            log.info("%s", self.plan.words(batch, cells))
            yield from self.run(batch, cells)

    def run(self, batch: Batch, cells: Iterable[tuple[Family, int]]) -> Iterator[Block]:
        """The results of some cells of a batch, for all seeds; a chunk that does not fit halves."""
        if batch is not self._current:
            self._current, self._held, self._compiled = batch, (None, None), {}
        cells = list(cells)
        first, seeds = 0, self.experiment.seeds
        while first < seeds:
            chunk = self.plan.chunks[batch]
            try:
                yield from self._run_chunk(batch, cells, first, min(first + chunk, seeds))
            except jax.errors.JaxRuntimeError as error:
                if OUT_OF_MEMORY not in str(error):
                    raise
                if not self.plan.halve(batch):
                    n = max(n for _, n in cells)
                    raise MemoryError(
                        f"d={batch.d}, n={n}: out of memory with {chunk} seed(s) at once in "
                        f"design={batch.design.name()}; take a smaller n, fewer devices "
                        "(runtime.devices) or another design"
                    ) from error
                self._held, self._compiled = (None, None), {}
                programs.forget()
                log.warning(
                    "d=%d: out of memory with %d seeds at once; going on with %d",
                    batch.d,
                    chunk,
                    self.plan.chunks[batch],
                )
            else:
                first += chunk

    def _run_chunk(self, batch, cells, first, last) -> Iterator[Block]:
        chunk, seeds = self.plan.chunks[batch], self.experiment.seeds
        unit = self.plan.unit(batch)
        width = chunk if seeds > chunk else -(-(last - first) // unit) * unit
        numbers = self.experiment.first_seed + np.minimum(np.arange(first, first + width), last - 1)
        keys = self._share(seed_keys(self.experiment, batch.d, numbers))
        for family, sizes in self.plan.together(batch, cells):
            for some, values in self._units(batch, family, keys, sizes, (first, last, width)):
                lanes = len(some.setups)
                for i, n in enumerate(dict.fromkeys(sizes)):
                    here = slice(i * lanes, (i + 1) * lanes)
                    own = jax.tree.map(lambda a, here=here: a[:, here], values)
                    yield Block(some, batch.design, batch.d, n, slice(first, last), own)
                    if self._bar is not None:
                        self._bar.update(n * batch.d * (last - first) * lanes)

    def _units(self, batch, family, keys, sizes, seeds):
        """A family and its results; its setups one by one where they failed together."""
        values = self._kept(batch, family, keys, sizes, seeds)
        if values is not None:
            yield family, values
        elif len(family.setups) > 1:
            for names, setup in zip(family.names, family.setups, strict=True):
                alone = Family((names,), (setup,))
                values = self._kept(batch, alone, keys, sizes, seeds)
                if values is not None:
                    yield alone, values

    def _kept(self, batch, family, keys, sizes, seeds) -> dict[str, Any] | None:
        """The results of a unit, from the journal or computed; None where it failed."""
        first, last, width = seeds
        place = {"d": batch.d, "design": repr(batch.design), "inputs": batch.inputs.name()}
        unit = json.dumps({**place, "seeds": seeds, "sizes": sizes, "cells": repr(family.names)})
        journal = self.keeper.journal
        count = len(set(sizes)) * sum(map(len, family.names)) * (last - first)
        values = None if journal is None else journal.get(unit)
        if values is not None:
            self.keeper.watch(count, kept=True)
            return values
        try:
            self._describe(f"d={batch.d} drawing")
            drawn = self._draw(batch, keys, (first, width))
            self._describe(f"d={batch.d} n={max(sizes)}")
            values = self._train(batch, family, keys, drawn, sizes, last - first)
        except Exception as error:
            if not self.keeper.goes_on or OUT_OF_MEMORY in str(error):
                raise
            if len(family.setups) == 1:
                self._note(batch, family, sizes, error)
                self.keeper.watch(count, failed=True)
            return None
        if journal is not None:
            journal.put(unit, values)
        self.keeper.watch(count)
        return values

    def _note(self, batch, family, sizes, error: Exception) -> None:
        """Remember cells that failed."""
        names = ["/".join(map(str, one)) for names in family.names for one in names]
        cells = f"d={batch.d}, n={sorted(set(sizes))}, {', '.join(filter(None, names))}"
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        log.error("%s failed: %s", cells.strip(", "), reason)
        self.failures.append(Failure(cells.strip(", "), reason, traceback.format_exc()))

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """A bar on a terminal: over the work of a grid, or what a search is at."""
        work = sum(
            n * batch.d * len(family.setups)
            for batch, cells in self.plan.batches
            for family, n in cells
        )
        bar, left = "", "{elapsed} elapsed"
        if self.experiment.search is None:
            bar, left = "{percentage:3.0f}%|{bar}|", "{elapsed} elapsed, {remaining} left"
        with (
            logging_redirect_tqdm(),
            tqdm(
                total=work * self.experiment.seeds,
                disable=None if self.experiment.runtime.progress else True,
                bar_format=f"{{desc}} {bar} {left}",
                leave=False,
            ) as self._bar,
        ):
            yield

    def _describe(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_description(text)

    def _share(self, keys: np.ndarray) -> jax.Array:
        """Keys laid out over the devices, those of other processes included."""
        sharding = NamedSharding(self.mesh, PartitionSpec("seed"))
        return jax.make_array_from_callback(
            keys.shape, sharding, lambda index: keys[index], dtype=keys.dtype
        )

    def _over_seeds(self, function, width):
        """`function(keys, drawn, seed, n, ...)` a seed: over devices, `width` side by side.

        Every seed sees the same shapes, however many there are, so that its bits do not
        depend on the others.
        """

        def local(key_data, drawn, n, *shared):
            keys = jax.random.wrap_key_data(key_data)
            index = jnp.arange(keys.shape[0])
            if width == 1:
                one = lambda pair: function(pair[0], drawn, pair[1], n, *shared)  # noqa: E731
                return jax.lax.map(one, (keys, index))
            together = jax.vmap(lambda own, seed: function(own, drawn, seed, n, *shared))
            groups = (keys.reshape(-1, width, *keys.shape[1:]), index.reshape(-1, width))
            out = jax.lax.map(lambda some: together(*some), groups)
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)

        def spread(key_data, drawn, n, *shared):
            seeds = PartitionSpec("seed")
            specs = (seeds, seeds, *(PartitionSpec() for _ in (n, *shared)))
            over = jax.shard_map(
                local, mesh=self.mesh, in_specs=specs, out_specs=seeds, check_vma=False
            )
            return over(key_data, drawn, n, *shared)

        return spread

    def _compile(self, kind: str, key: Any, batch: Batch, settings: Any, function, *args):
        """The function compiled for such arguments and every seed of a batch, once for each key.

        `settings` are all that it depends on besides numbers.
        """
        if (kind, key) not in self._compiled:
            start = time.perf_counter()
            settings = (batch.design, settings)
            identity = (kind, self.mesh, batch.d, batch.n_max, batch.width)
            over_seeds = self._over_seeds(function, batch.width)
            program, now = programs.compiled(identity, settings, over_seeds, args)
            self._compiled[kind, key] = program
            if now:
                self.clock.lap("compile", start)
                self.clock.compilations[kind] += 1
        return self._compiled[kind, key]

    def _draw(self, batch, keys, held):
        """The random arrays of a chunk; kept until another chunk is drawn."""
        if self._held[0] == held:
            return self._held[1]
        start = time.perf_counter()
        self._held = (None, None)  # gigabytes that are released take a moment, of drawing as well
        self.clock.lap("draw", start)
        numbers, static = eqx.partition(batch.inputs, _is_number)

        def draw(keys, _drawn, _seed, _n, numbers):
            inputs = eqx.combine(numbers, static)
            return batch.design.draw(stream(keys, "matrix"), inputs, n_max=batch.n_max, d=batch.d)

        args = (keys, (), np.int32(0), jax.tree.map(as_array, numbers))
        compiled = self._compile("draw", None, batch, static, draw, *args)
        start = time.perf_counter()
        drawn = jax.block_until_ready(compiled(*args))
        self.clock.lap("draw", start)
        self._held = (held, drawn)
        return drawn

    def _train(self, batch, family, keys, drawn, sizes, seeds):
        lanes, static = family.lanes()
        numbers, rest = eqx.partition(batch.inputs, _is_number)
        keep = self.experiment.save_weights

        def seed(keys, drawn, seed, sizes, lanes, numbers):
            inputs = eqx.combine(numbers, rest)
            return run_seed(static, batch, keep, keys, drawn, seed, sizes, lanes, inputs)

        args = (keys, drawn, np.asarray(sizes, np.int32), lanes)
        args = (*args, jax.tree.map(as_array, numbers))
        key = (family.names, len(sizes))
        compiled = self._compile("train", key, batch, (static, rest, keep), seed, *args)
        start = time.perf_counter()
        values = compiled(*args)
        if jax.process_count() > 1:
            values = multihost_utils.process_allgather(values, tiled=True)
        values = jax.tree.map(lambda a: np.asarray(a)[:seeds], values)
        self.clock.lap("train", start)
        return values


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float | np.ndarray)
