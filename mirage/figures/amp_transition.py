"""AMP at finite d on the curves of state evolution, class of seeds by class of seeds."""

import itertools
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D

from mirage.figures.style import STYLE, axis_label, shades
from mirage.figures.thresholds import (
    ERRORS,
    alike,
    diagonal,
    draw_errors,
    draw_overlaps,
    draw_thresholds,
    each_target,
    entry,
    theory_beside,
    theory_handles,
)

MARKERS = ("o", "s", "^", "D", "v", "P")
SIMULATED = ("overlap_aligned", "generalisation_error", "rank_found", "diverged")
KNOWN = ("d", "alpha", "seed", "neuron", "direction")
DIVERGED = -1


class Case(NamedTuple):
    """The cells of one d and one of the compared options, and how they are drawn."""

    cells: xr.Dataset
    label: str
    marker: str
    depth: int  # the place of d, darker than the depths before
    depths: int

    def colour(self, hue: int) -> tuple[float, ...]:
        """Of a group of directions: that of its curve, or a shade of it a d."""
        return shades(hue, 3)[1] if self.depths == 1 else shades(hue, self.depths)[self.depth]


def amp_transition(dataset: xr.Dataset) -> Figure:
    """A row a target: overlaps and generalisation errors on theory's curves, classes below.

    At every n/d seeds are split by the number of directions found. The largest class of those
    that did not diverge (of equal ones that which found more) is drawn filled, mean and standard
    error; other classes open, by their mean; bars below say what share of the seeds each has.
    Overlaps are averaged over directions that theory cannot tell apart.
    """
    targets = each_target(dataset)
    cases = [_cases(chosen) for _, chosen in targets]
    heights = [2.7 + 0.6 * len(some) for some in cases]
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(8.8, 0.5 + 1.1 * sum(heights)), layout="constrained")
        grid = figure.add_gridspec(len(targets), 2, height_ratios=heights)
        for row, (name, chosen) in enumerate(targets):
            _target(figure, grid, row, chosen, cases[row], name)
        return figure


def _cases(dataset: xr.Dataset) -> list[Case]:
    """Every combination of compared options, a marker each, at every d, a shade each."""
    cells = dataset[[name for name in SIMULATED if name in dataset]]
    if not {"d", "alpha", "seed"} <= set(cells.dims):
        raise ValueError("figure=amp_transition: expected simulated cells along alpha, found none")
    if "diverged" not in cells and "rank_found" not in cells:
        raise ValueError("figure=amp_transition: expected rank_found or diverged, found neither")
    options = [str(dim) for dim in cells.dims if dim not in KNOWN]
    sizes = cells["d"].values
    cases = []
    for place, choice in enumerate(itertools.product(*(cells[dim].values for dim in options))):
        part = cells.sel(dict(zip(options, choice, strict=True)))
        for depth, d in enumerate(sizes):
            words = ", ".join([*map(str, choice), f"d = {d}"])
            marker = MARKERS[place % len(MARKERS)]
            cases.append(Case(part.sel(d=d), words, marker, depth, len(sizes)))
    return cases


def _target(
    figure: Figure, grid: GridSpec, row: int, dataset: xr.Dataset, cases: list[Case], name: str
) -> None:
    """The panels of one target: overlaps over thin bars on the left, errors on the right."""
    column = grid[row, 0].subgridspec(1 + len(cases), 1, height_ratios=[2.7, *[0.6] * len(cases)])
    left, right = figure.add_subplot(column[0]), figure.add_subplot(grid[row, 1])
    below = [figure.add_subplot(column[1 + k], sharex=left) for k in range(len(cases))]
    low, high = _ends(dataset["alpha"].values.astype(float))
    theory = _inside(theory_beside(dataset), low, high)
    groups = alike(theory)
    draw_overlaps(left, theory, groups)
    draw_errors(right, theory)
    groups = groups or [[k] for k in range(_directions(cases))]
    for case in cases:
        _overlaps(left, case, groups)
        _errors(right, case)
    left.set_ylabel("overlap $|M_{kk}|$")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        draw_thresholds(axes, theory, low=low, high=high)
    _bars(left, below, cases)
    seeds = f"{dataset.sizes['seed']} seeds"
    title = [name, *([cases[0].label] if len(cases) == 1 else []), seeds]
    left.set_title(", ".join(filter(None, title)), fontsize=9, loc="left", pad=16)
    _legends(right, below[0], [*theory_handles(theory, groups), *_markers(cases)])


def _ends(alpha: np.ndarray) -> tuple[float, float]:
    """Ends of an axis with a margin on both sides of the simulated n/d."""
    margin = 0.04 * float(np.ptp(alpha)) or 0.1 * float(alpha[0])
    return float(alpha.min()) - margin, float(alpha.max()) + margin


def _legends(axes: Axes, bars: Axes, handles: list[Line2D]) -> None:
    """Right of a panel, what curves and markers are, and at its foot what the bars are."""
    foot = axes.legend(
        *bars.get_legend_handles_labels(),
        title="seeds by rank found",
        alignment="left",
        title_fontsize=8,
        fontsize=8,
        loc="lower left",
        bbox_to_anchor=(1.02, 0),
    )
    axes.legend(handles=handles, fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
    axes.add_artist(foot)  # the layout makes room for the other, which is wider


def _inside(theory: xr.Dataset, low: float, high: float) -> xr.Dataset:
    """Curves between low and high, and one point more at each end."""
    if "alpha" not in theory.dims:
        return theory
    alpha = np.sort(theory["alpha"].values)
    first = max(int(np.searchsorted(alpha, low)) - 1, 0)
    last = int(np.searchsorted(alpha, high)) + 1
    return theory.sortby("alpha").isel(alpha=slice(first, last))


def _directions(cases: list[Case]) -> int:
    """How many directions the target has."""
    found = (case.cells.get("overlap_aligned") for case in cases)
    return max(
        (diagonal(m, "neuron").sizes["direction"] for m in found if m is not None), default=0
    )


def classes(cells: xr.Dataset) -> xr.DataArray:
    """The class (alpha, seed) of every seed: directions found, `DIVERGED`, NaN where none ran.

    Without `rank_found` all seeds that did not diverge are one class, 0.
    """
    if "diverged" not in cells:
        return cells["rank_found"].fillna(DIVERGED).transpose("alpha", "seed")
    diverged = cells["diverged"].astype(bool)
    found = cells["rank_found"] if "rank_found" in cells else xr.zeros_like(diverged, float)
    return found.where(~diverged, DIVERGED).transpose("alpha", "seed")


def largest(kinds: np.ndarray) -> float:
    """The class most seeds are in, of equal ones the higher; NaN where all diverged."""
    found, counts = np.unique(kinds[kinds >= 0], return_counts=True)
    return float(found[::-1][counts[::-1].argmax()]) if found.size else np.nan


def _overlaps(axes: Axes, case: Case, groups: list[list[int]]) -> None:
    """|M_kk| averaged over each group: the largest class filled, the others open."""
    if "overlap_aligned" not in case.cells:
        return
    overlaps = abs(diagonal(case.cells["overlap_aligned"], "neuron"))
    for hue, group in enumerate(groups):
        values = overlaps.isel(direction=[k for k in group if k < overlaps.sizes["direction"]])
        _classes(axes, case, values.mean("direction"), case.colour(hue), others=True)


def _errors(axes: Axes, case: Case) -> None:
    """The generalisation error of the largest class."""
    if "generalisation_error" in case.cells:
        colour = ERRORS[1] if case.depths == 1 else shades(4, case.depths)[case.depth]
        _classes(axes, case, case.cells["generalisation_error"], colour, others=False)


def _classes(axes: Axes, case: Case, values: xr.DataArray, colour, *, others: bool) -> None:
    """Mean and standard error of the largest class at every n/d, and the means of others."""
    kinds = classes(case.cells)
    values = values.transpose("alpha", "seed")
    filled: list[tuple[float, float, float]] = []
    for alpha, kind, value in zip(values["alpha"].values, kinds.values, values.values, strict=True):
        most = largest(kind)
        for one in np.unique(kind[kind >= 0]):
            chosen = value[(kind == one) & np.isfinite(value)]
            if not chosen.size:
                continue
            if one == most:
                error = chosen.std(ddof=1) / np.sqrt(chosen.size) if chosen.size > 1 else 0.0
                filled.append((float(alpha), float(chosen.mean()), float(error)))
            elif others:
                axes.plot(alpha, chosen.mean(), case.marker, mfc="white", mec=colour, ms=3.2)
    if filled:
        points, means, errors = zip(*filled, strict=True)
        style = {"fmt": case.marker, "color": colour, "ms": 4.5, "elinewidth": 1.2, "zorder": 3}
        axes.errorbar(points, means, errors, **style)


def _markers(cases: list[Case]) -> list[Line2D]:
    """What markers mean: the classes, and the cases where there are several."""
    points = {"ls": "none", "color": ERRORS[1], "marker": "o"}
    handles = [
        entry("largest class, mean ± s.e.", **points, ms=4.5),
        entry("other classes, mean", **points, ms=3.2, mfc="white"),
    ]
    for case in cases if len(cases) > 1 else []:
        style = {"marker": case.marker, "color": case.colour(4)}
        handles.append(entry(case.label, ls="none", ms=4.5, **style))
    return handles


def _bars(above: Axes, below: list[Axes], cases: list[Case]) -> None:
    """A thin panel a case under the overlaps: the shares of the classes, stacked."""
    above.set_xlabel("")
    above.tick_params(labelbottom=False)
    top = _top(cases)
    for axes, case in zip(below, cases, strict=True):
        _shares(axes, case, top)
        axes.tick_params(labelbottom=axes is below[-1])
        if len(cases) > 1:
            axes.set_title(case.label, fontsize=7, loc="left", pad=2)
    below[-1].set_xlabel(axis_label("alpha"))


def _top(cases: list[Case]) -> int:
    """The most directions that a seed can have found or did; 0 where nobody counted."""
    counted = [case.cells["rank_found"] for case in cases if "rank_found" in case.cells]
    if not counted:
        return 0
    found = [float(one.max()) for one in counted]
    return int(max([_directions(cases), *(value for value in found if np.isfinite(value))]))


def _shares(axes: Axes, case: Case, top: int) -> None:
    """Bars of the shares of rank 0, 1, ..., top and of diverged seeds, among those that ran."""
    kinds = classes(case.cells)
    alpha = kinds["alpha"].values.astype(float)
    bottom = np.zeros(len(alpha))
    counted = "rank_found" in case.cells
    words = [f"rank {k}" if counted else "not diverged" for k in range(top + 1)]
    colours = shades(4, top + 1)
    for kind, label, colour in [
        *zip(range(top + 1), words, colours, strict=True),
        (DIVERGED, "diverged", shades(5, 3)[0]),
    ]:
        share = (kinds == kind).sum("seed").values / np.maximum(kinds.count("seed").values, 1)
        hatch = "////" if kind == DIVERGED else None
        axes.bar(alpha, share, _widths(alpha), bottom, color=colour, hatch=hatch, label=label, lw=0)
        bottom = bottom + share
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1])
    axes.set_ylabel("share")
    axes.grid(False)


def _widths(alpha: np.ndarray) -> np.ndarray:
    """Widths of bars: thin, and with a gap to the nearest neighbour."""
    gaps = np.abs(alpha[:, None] - alpha)
    np.fill_diagonal(gaps, np.inf)
    low, high = _ends(alpha)
    return np.minimum(0.8 * gaps.min(axis=1), 0.05 * (high - low))
