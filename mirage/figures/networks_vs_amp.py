"""Networks beside the best that their samples allow: AMP, and the posterior mean."""

import itertools

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from mirage.figures.recovery import band
from mirage.figures.style import STYLE, axis_label, shades
from mirage.figures.thresholds import BAYES, STARTS, diagonal, draw_thresholds, theory_beside

# What is drawn of networks and of AMP, and of theory's overlap and error, panel by panel.
MEASURES = (("cos_best", "cos_best"), ("test_error", "generalisation_error"))
LABELS = ("cos(best)", r"population error $E(f - f^\star)^2$")
ERRORS = ("generalisation_error", "generalisation_error_bayes")
CELL = ("d", "alpha", "seed")


def networks_vs_amp(dataset: xr.Dataset) -> Figure:
    """Recovery of a direction on the left, population error on the right, against n/d.

    Medians and 30th-70th percentiles over seeds for every algorithm and loss (an algorithm that
    has no use for the loss is drawn once), and theory's curves of AMP and of the posterior mean:
    of an overlap Q the cosine is √Q_kk, of the direction that is found best.
    """
    names = [name for pair in MEASURES for name in pair if name in dataset]
    if not names or not {"d", "alpha", "seed"} <= set(dataset.dims):
        raise ValueError("figure=networks_vs_amp: expected simulated cells along alpha, found none")
    theory = theory_beside(dataset)
    low, high = float(dataset["alpha"].min()), float(dataset["alpha"].max())
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(8.8, 3.6), layout="constrained")
        for axes, measures, label in zip(panels, MEASURES, LABELS, strict=True):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            for hue, (words, cells) in enumerate(_curves(dataset)):
                name = next((name for name in measures if _has(cells, name)), None)
                if name is not None:
                    _bands(axes, cells[name], words, hue)
            _theory(axes, theory, cosine=measures[0] == "cos_best")
            axes.set_ylim(bottom=0)
            axes.set_ylabel(label)
            draw_thresholds(axes, theory, low=0.95 * low, high=1.05 * high)
        panels[0].set_ylim(0, 1.02)
        panels[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
        seeds = dataset.sizes["seed"]
        words = f"median and 30th-70th percentile over {seeds} seeds"
        panels[0].set_title(words, fontsize=8, loc="left", pad=16)
        return figure


def _has(cells: xr.Dataset, name: str) -> bool:
    return name in cells and bool(cells[name].notnull().any())


def _curves(dataset: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """The cells of every combination of compared options; those that are alike once."""
    cells = dataset[[name for pair in MEASURES for name in pair if name in dataset]]
    groups = [str(dim) for dim in cells.dims if dim not in CELL]
    found: list[tuple[dict[str, str], xr.Dataset]] = []
    for choice in itertools.product(*(dataset[group].values for group in groups)):
        named = dict(zip(groups, map(str, choice), strict=True))
        chosen = cells.sel(dict(zip(groups, choice, strict=True)), drop=True)
        for other, before in found:
            if chosen.equals(before):  # of what they differ in nothing depends
                for group in [g for g in other if other[g] != named[g]]:
                    del other[group]
                break
        else:
            found.append((named, chosen))
    return [(", ".join(named.values()).replace("_", " "), chosen) for named, chosen in found]


def _bands(axes: Axes, values: xr.DataArray, words: str, hue: int) -> None:
    colours = shades(hue, values.sizes["d"])
    for colour, d in zip(colours, values["d"].values, strict=True):
        band(axes, values.sel(d=d), "alpha", colour, ", ".join(filter(None, [words, f"d = {d}"])))


def _theory(axes: Axes, theory: xr.Dataset, *, cosine: bool) -> None:
    """AMP from no knowledge, and the posterior mean."""
    names = ("overlap", "overlap_bayes") if cosine else ERRORS
    branches, best = (theory.get(name) for name in names)
    if best is not None:
        curve = _cosine(best) if cosine else best
        axes.plot(curve["alpha"], curve, color="0.7", label="Bayes-optimal, d → ∞", **BAYES)
    if branches is not None and "uninformed" in branches["start"]:
        one = branches.sel(start="uninformed")
        curve = _cosine(one) if cosine else one
        style, words = STARTS["uninformed"]
        axes.plot(curve["alpha"], curve, style, color="0.15", label=words)
    axes.set_xlabel(axis_label("alpha"))


def _cosine(overlap: xr.DataArray) -> xr.DataArray:
    """The largest √Q_kk."""
    return diagonal(overlap).clip(0, 1).max("direction") ** 0.5
