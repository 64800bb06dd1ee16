"""Running the cells: compile groups, chunks of seeds, devices, and the clock."""

import dataclasses
import functools
import logging
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mirage.algorithms import draw_problem, train
from mirage.designs import Design
from mirage.experiments.experiment import GROUPS, Experiment, Setup
from mirage.losses import Loss, OneOf

log = logging.getLogger(__name__)

# The random streams of a cell, by name and not by order of use.
STREAMS = ("matrix", "labels", "training")


@dataclasses.dataclass(frozen=True)
class Family:
    """Setups that differ in their loss alone: on a stored X they share each product with it."""

    setup: Setup
    losses: tuple[Loss, ...]
    names: tuple[tuple[str, ...], ...]

    @property
    def columns(self) -> tuple[int, int]:
        """Query columns on the right and on the left, U's included, for one loss."""
        right, left = self.setup.algorithm.queries(self.setup.network)
        return right + self.setup.target.rank, left


@dataclasses.dataclass
class Clock:
    """Where the time of a run went, in seconds, and how often it compiled."""

    compile: float = 0.0
    compute: float = 0.0
    compilations: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"draw": 0, "train": 0}
    )


@dataclasses.dataclass(frozen=True)
class Block:
    """The results of one family at one (d, n) for some seeds: arrays (seeds, losses, ...)."""

    family: Family
    d: int
    sample: int  # index into the experiment's sample values
    seeds: np.ndarray
    values: dict[str, Any]


def families(experiment: Experiment) -> list[Family]:
    """Group the setups that one compiled function serves."""
    groups: dict[Any, list[tuple[tuple[str, ...], Setup]]] = {}
    for names, setup in experiment.setups().items():
        shared = [group for group in GROUPS if group != "loss" or not setup.design.stored]
        key = tuple(getattr(setup, group) for group in shared)
        groups.setdefault(key, []).append((names, setup))
    return [
        Family(
            setup=members[0][1],
            losses=tuple(setup.loss for _, setup in members),
            names=tuple(names for names, _ in members),
        )
        for members in groups.values()
    ]


def seed_keys(experiment: Experiment, d: int, seeds: np.ndarray) -> jax.Array:
    """One key for each (root seed, d, seed), whatever else is in the grid."""
    root = jax.random.fold_in(jax.random.key(experiment.root_seed), d)
    return jax.vmap(lambda seed: jax.random.fold_in(root, seed))(jnp.asarray(seeds, jnp.uint32))


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of one named random stream of a cell."""
    return jax.random.fold_in(key, STREAMS.index(name))


def run_seed(family: Family, d: int, n_max: int, keep_weights: bool, key, drawn, seed, n) -> Any:
    """Train every loss of a family on the first n rows of one seed: results (losses, ...)."""
    setup = family.setup
    right, left = family.columns
    matrix = setup.design.matrix(drawn, seed, n, n_max=n_max, d=d, right=right, left=left)
    directions = jnp.eye(setup.target.rank, d, dtype=jnp.float32)
    problem, memory = draw_problem(
        stream(key, "labels"),
        matrix,
        directions,
        setup.target,
        loss=family.losses[0],
        activation=setup.activation,
        network=setup.network,
    )

    def with_loss(loss):
        one = eqx.tree_at(lambda p: p.loss, problem, loss)
        result = train(stream(key, "training"), setup.algorithm, one, memory)
        if not keep_weights:
            del result["weights"]
        return result

    if len(family.losses) == 1:
        return jax.tree.map(lambda a: a[None], with_loss(family.losses[0]))
    indices = jnp.arange(len(family.losses))
    return jax.vmap(lambda index: with_loss(OneOf(index, family.losses)))(indices)


class Executor:
    """Runs an experiment block by block on a row of devices."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.mesh: Mesh = experiment.runtime.mesh()
        self.width = experiment.runtime.width()
        self.families = families(experiment)
        self.clock = Clock()
        unit = self.mesh.size * self.width
        self.chunks = {d: self._chunk(d, unit) for d in experiment.dimensions}

    def _chunk(self, d: int, unit: int) -> int:
        """Seeds held at once at this d: as many as fit `runtime.memory`, a multiple of `unit`."""
        n_max = max(self.experiment.sizes(d))
        budget = self.experiment.runtime.memory_bytes
        seeds = -(-self.experiment.seeds // unit) * unit
        for family in self.families:
            right, left = family.columns
            design = family.setup.design
            size = {"n_max": n_max, "d": d}
            working = design.bytes_working(**size, right=right, left=left) * len(family.losses)
            drawn = design.bytes_drawn(**size)
            fit = (budget - unit * working) // max(1, drawn) // unit * unit
            if fit < unit:
                need = unit * (working + drawn)
                raise ValueError(
                    f"runtime.memory={self.experiment.runtime.memory!r}: {unit} seed(s) of "
                    f"design={design.name()} at d={d}, n={n_max} need {need / 1e9:.3g} GB; raise "
                    f"it" + (", or take design=deferred" if design.stored else "")
                )
            seeds = min(seeds, fit)
        return seeds

    def plan(self) -> dict[str, Any]:
        """The chunk plan, which depends on the config and the number of devices alone."""
        return {
            "devices": self.mesh.size,
            "seeds_at_once": self.width,
            "chunk": {str(d): chunk for d, chunk in self.chunks.items()},
        }

    def _over_seeds(self, function):
        """`function(key, drawn, seed, n)` a seed: shared over devices, `width` side by side.

        Every seed sees the same shapes, however many there are, so that its bits do not
        depend on the others.
        """
        width = self.width

        def local(keys, drawn, n):
            index = jnp.arange(keys.shape[0])
            if width == 1:
                return jax.lax.map(lambda one: function(one[0], drawn, one[1], n), (keys, index))
            together = jax.vmap(function, in_axes=(0, None, 0, None))
            groups = (keys.reshape(-1, width), index.reshape(-1, width))
            out = jax.lax.map(lambda some: together(some[0], drawn, some[1], n), groups)
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)

        seeds = PartitionSpec("seed")
        return jax.shard_map(
            local,
            mesh=self.mesh,
            in_specs=(seeds, seeds, PartitionSpec()),
            out_specs=seeds,
            check_vma=False,
        )

    def _compile(self, kind: str, function, *args):
        start = time.perf_counter()
        compiled = jax.jit(function).lower(*args).compile()
        self.clock.compile += time.perf_counter() - start
        self.clock.compilations[kind] += 1
        return compiled

    def blocks(self) -> Iterator[Block]:
        """Every block of results, smallest d first within the order of the experiment."""
        experiment = self.experiment
        lanes = sum(len(f.losses) for f in self.families)
        total = (
            sum(sum(experiment.sizes(d)) * d for d in experiment.dimensions)
            * experiment.seeds
            * lanes
        )
        with (
            logging_redirect_tqdm(),
            tqdm(
                total=total,
                disable=None if experiment.runtime.progress else True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left",
                leave=False,
            ) as bar,
        ):
            for d in experiment.dimensions:
                yield from self._blocks_at(d, bar)

    def _blocks_at(self, d: int, bar) -> Iterator[Block]:
        experiment = self.experiment
        sizes = experiment.sizes(d)
        n_max, chunk = max(sizes), self.chunks[d]
        by_design: dict[Design, list[Family]] = {}
        for family in self.families:
            by_design.setdefault(family.setup.design, []).append(family)
        compiled: dict[Any, Any] = {}
        for first in range(0, experiment.seeds, chunk):
            seeds = np.arange(first, min(first + chunk, experiment.seeds))
            unit = self.mesh.size * self.width
            width = chunk if experiment.seeds > chunk else -(-len(seeds) // unit) * unit
            padded = np.concatenate([seeds, np.repeat(seeds[-1:], width - len(seeds))])
            keys = seed_keys(experiment, d, padded)
            for design, members in by_design.items():
                bar.set_description(f"d={d} drawing")
                drawn = self._draw(compiled, design, d, n_max, keys)
                for family in members:
                    for sample, n in enumerate(sizes):
                        kind = experiment.sample_kind
                        value = experiment.sample_values[sample]
                        bar.set_description(f"d={d} {kind}={value:g}")
                        values = self._train(compiled, family, d, n_max, keys, drawn, n, len(seeds))
                        yield Block(family, d, sample, seeds, values)
                        bar.update(n * d * len(seeds) * len(family.losses))
                del drawn
        log.info(
            "d=%d: %d sample sizes, %d seeds, %.1f s computing, %.1f s compiling so far",
            d,
            len(sizes),
            experiment.seeds,
            self.clock.compute,
            self.clock.compile,
        )

    def _draw(self, compiled, design, d, n_max, keys):
        def draw(key, _drawn, _seed, _n):
            return design.draw(stream(key, "matrix"), n_max=n_max, d=d)

        function = self._over_seeds(draw)
        if design not in compiled:
            compiled[design] = self._compile("draw", function, keys, (), 0)
        start = time.perf_counter()
        drawn = jax.block_until_ready(compiled[design](keys, (), 0))
        self.clock.compute += time.perf_counter() - start
        return drawn

    def _train(self, compiled, family, d, n_max, keys, drawn, n, seeds):
        count = jnp.asarray(n, jnp.int32)
        if family not in compiled:
            seed = functools.partial(run_seed, family, d, n_max, self.experiment.save_weights)
            compiled[family] = self._compile("train", self._over_seeds(seed), keys, drawn, count)
        start = time.perf_counter()
        values = jax.tree.map(lambda a: np.asarray(a)[:seeds], compiled[family](keys, drawn, count))
        self.clock.compute += time.perf_counter() - start
        return values
