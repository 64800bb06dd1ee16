"""The plan of a run: which cells share an X, in which design, how many seeds at a time."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from mirage.designs import Design
from mirage.experiments.experiment import Experiment, Setup
from mirage.experiments.families import Family, families
from mirage.inputs import Inputs

# Columns that one product with X takes at most. Sixteen cost little more than four, and a lane
# keeps its bits whatever the others; beyond, other kernels with other rounding would serve.
COLUMNS = 16
# Cells with more rows do not share a product with other sample sizes: their arrays over rows, one
# of each for every lane, would take more memory than the sharing is worth.
SHARED_ROWS = 2**18


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Cells of one d that share a drawn X: a design, inputs, the largest n.

    On each device `width` of their seeds run side by side.
    """

    d: int
    design: Design
    inputs: Inputs
    n_max: int
    width: int


def cells_at_once(setup: Setup, design: Design) -> int:
    """How many cells ask the same X in one product; those with a memory go one after the other."""
    if not (design.memoryless and setup.algorithm.side_by_side):
        return 1
    columns = setup.algorithm.columns(setup.network, setup.target.rank)
    return max(1, COLUMNS // columns)


class Plan:
    """The batches of an experiment and how many seeds of each are held at once.

    It depends on the config and the number of devices alone, not on what happens to be free.
    """

    def __init__(self, experiment: Experiment, *, devices: int):
        self.experiment = experiment
        self.devices = devices
        self.setups = experiment.setups()
        self.batches = [
            (batch, cells) for d in experiment.dimensions for batch, cells in self._batches(d)
        ]
        self.chunks = {batch: self._chunk(batch, cells) for batch, cells in self.batches}
        self.halved: set[Batch] = set()

    def _batches(self, d: int) -> list[tuple[Batch, list[tuple[Family, int]]]]:
        """The cells (family, n) at one d, by the X that they share."""
        experiment = self.experiment
        by_design: dict[Any, list[tuple[Family, int]]] = {}
        for family in families({names: setup.at(d) for names, setup in self.setups.items()}):
            sizes = experiment.sizes(d)
            for n in sizes:
                # A search relies on common random numbers: one design up to its upper end.
                size = max(sizes) if experiment.search else n
                design = self.design(family.setup, d, size)
                large = n > SHARED_ROWS and experiment.search is None
                alone = n if family.setup.algorithm.holds and not experiment.search else 0
                key = (design, family.setup.inputs, large, self._width(family.setup), alone)
                by_design.setdefault(key, []).append((family, n))
        return [
            (Batch(d, design, inputs.load(d=d), max(n for _, n in cells), width), cells)
            for (design, inputs, _, width, _), cells in by_design.items()
        ]

    def _width(self, setup: Setup) -> int:
        return self.experiment.runtime.width(setup.algorithm.seeds_at_once)

    def unit(self, batch: Batch) -> int:
        """Seeds that run at a time; chunks are multiples of it."""
        return self.devices * batch.width

    def design(self, setup: Setup, d: int, n: int) -> Design:
        """The design of one cell; `auto` decides by the cell and `runtime.memory` alone."""
        right, left = setup.columns
        unit = self.devices * self._width(setup)

        def fits(design: Design) -> bool:
            drawn = design.bytes_drawn(n_max=n, d=d)
            working = design.bytes_working(n_max=n, d=d, right=right, left=left)
            return unit * (drawn + working) <= self.experiment.runtime.memory_bytes

        return setup.resolved_design(n=n, d=d, fits=fits)

    def _chunk(self, batch: Batch, cells: list[tuple[Family, int]]) -> int:
        """Seeds held at once: as many as fit `runtime.memory`, a multiple of `unit`."""
        budget, unit = self.experiment.runtime.memory_bytes, self.unit(batch)
        design, size = batch.design, {"n_max": batch.n_max, "d": batch.d}
        drawn = design.bytes_drawn(**size)
        working = 0
        for family, _ in cells:
            lanes = self._sizes_at_once(batch, family) * len(family.setups)
            lanes = lanes if design.memoryless else 1
            working = max(working, lanes * family.setup.bytes_working(design, **size))
        fit = (budget - unit * working) // max(1, drawn) // unit * unit
        if fit < unit:
            others = ["runtime.devices=1"] * (self.devices > 1)
            others += ["design=streamed"] * (design.name() == "dense")
            raise ValueError(
                f"runtime.memory={self.experiment.runtime.budget!r}: {unit} seed(s) of "
                f"design={design.name()} at d={batch.d}, n={batch.n_max} need "
                f"{unit * (working + drawn) / 1e9:.3g} GB; raise it"
                + (f", or take {' or '.join(others)}" if others else "")
            )
        return min(-(-self.experiment.seeds // unit) * unit, fit)

    def halve(self, batch: Batch) -> bool:
        """Hold half as many seeds of a batch at once; False if there are no fewer to hold."""
        chunk, unit = self.chunks[batch], self.unit(batch)
        if chunk == unit:
            return False
        self.chunks[batch] = max(unit, chunk // 2 // unit * unit)
        self.halved.add(batch)
        return True

    def words(self, batch: Batch, cells: list[tuple[Family, int]]) -> str:
        """What runs, in which design and why, for the log."""
        design, setup = batch.design, cells[0][0].setup
        algorithm, why = setup.algorithm, ""
        if setup.design.name() == "auto" and not algorithm.needs_law_alone:
            right, left = setup.columns
            # One pass draws its rows where it takes its steps.
            steps = 0 if algorithm.one_pass else algorithm.steps
            seconds = design.seconds(n=batch.n_max, d=batch.d, right=right, left=left, steps=steps)
            why = f" (auto: about {seconds:.2g} s a seed at n={batch.n_max} on one core)"
        sizes = len({n for _, n in cells})
        return f"d={batch.d}: {sizes} sample sizes, design {design.name()}{why}"

    def _sizes_at_once(self, batch: Batch, family: Family) -> int:
        """How many sample sizes of a family go through one product; a search asks for one.

        Not fewer where a grid has fewer: other numbers of columns may round differently.
        """
        if self.experiment.search is not None or batch.n_max > SHARED_ROWS:
            return 1
        return max(1, cells_at_once(family.setup, batch.design) // len(family.setups))

    def together(self, batch, cells) -> Iterator[tuple[Family, tuple[int, ...]]]:
        """The cells by families, largest sample sizes first, as many as one product takes.

        The last ones are filled up with the smallest size, so that one compiled function does.
        """
        for family in {id(f): f for f, _ in cells}.values():
            sizes = sorted({n for other, n in cells if other is family}, reverse=True)
            count = self._sizes_at_once(batch, family)
            for first in range(0, len(sizes), count):
                some = sizes[first : first + count]
                yield family, (*some, *some[-1:] * (count - len(some)))

    def described(self) -> dict[str, Any]:
        """The plan as it is stored with the results."""
        return {
            "devices": self.devices,
            "chunks": [
                {
                    "d": batch.d,
                    "design": batch.design.name(),
                    "inputs": batch.inputs.name(),
                    "n_max": batch.n_max,
                    "seeds_at_once": batch.width,
                    "seeds": self.chunks[batch],
                    "halved": batch in self.halved,
                }
                for batch, _ in self.batches
            ],
        }
