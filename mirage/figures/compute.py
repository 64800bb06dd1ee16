"""Recovery against its cost, and how the cost grows with d."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, NullLocator

from mirage.analysis.compute import COSTS, cost_to_reach
from mirage.figures.recovery import HIGH, LOW
from mirage.figures.style import STYLE, shades

LABELS = {"gradient_evaluations": "gradient evaluations", "flops": "floating-point operations"}


def compute(dataset: xr.Dataset, *, level: float = 0.8) -> Figure:
    """cos(best) against gradient evaluations and operations; operations to a level, against d.

    Medians over seeds with 30th-70th percentile bands; at the right 16th-84th percentile of
    resampled seeds, fitted by a power of d, with d² and d² log d beside.
    """
    size = next(kind for kind in ("alpha", "exponent", "n") if kind in dataset.dims)
    groups = [str(dim) for dim in dataset["cos_best"].dims if dim not in ("d", size, "seed")]
    found = cost_to_reach(dataset, level=level)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.8), layout="constrained")
        right = axes[2]
        choices = list(itertools.product(*(dataset[g].values for g in groups)))
        for hue, choice in enumerate(choices):
            place = dict(zip(groups, choice, strict=True))
            here, words = dataset.sel(place), ", ".join(map(str, choice))
            for colour, d in zip(shades(hue, dataset.sizes["d"]), dataset["d"].values, strict=True):
                one = here.sel(d=d)
                low, middle, high = one["cos_best"].quantile([LOW, 0.5, HIGH], "seed").values
                for axis, cost in zip(axes, COSTS, strict=False):
                    axis.fill_between(one[cost], low, high, color=colour, alpha=0.15, linewidth=0)
                    label = ", ".join(filter(None, [words, f"d = {d}"]))
                    axis.plot(one[cost], middle, color=colour, marker="o", label=label)
            _growth(right, found.sel(place), shades(hue, 3)[1], words)
        for axis, cost in zip(axes, COSTS, strict=False):
            axis.set(xscale="log", xlabel=LABELS[cost], ylim=(0, 1.02))
            axis.axhline(level, color="grey", linestyle=":", linewidth=1)
        axes[0].set_ylabel("cos(best)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=dataset.sizes["d"], fontsize=7
        )
        right.set(xscale="log", yscale="log", xlabel="d")
        right.set_ylabel(f"operations to median cos(best) = {level:g}")
        d = dataset["d"].values
        right.set_xticks(d, [str(one) for one in d])
        right.xaxis.set_minor_locator(NullLocator())
        right.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.5)))
        _references(right, found)
        if right.get_legend_handles_labels()[0]:
            right.legend(fontsize=8)
        return figure


def _growth(axes: Axes, found: xr.Dataset, colour, words: str) -> None:
    found = found.isel(d=np.flatnonzero(np.isfinite(found["flops"].values)))
    if found.sizes["d"] == 0:
        axes.plot([], [], color=colour, marker="o", label=f"{words}: not reached")
        return
    d, y = found["d"].values.astype(float), found["flops"]
    low, high = found["flops_low"], found["flops_high"]
    error = np.nan_to_num(np.maximum(0, [y - low, high - y]))
    slope, uncertain = float(found["flops_slope"]), float(found["flops_slope_error"])
    label = rf"{words}: $d^{{{slope:.2f} \pm {uncertain:.2f}}}$"
    axes.errorbar(d, y, error, fmt="o", color=colour, capsize=2, label=label)
    axes.plot(d, float(found["flops_prefactor"]) * d**slope, color=colour)


def _references(axes: Axes, found: xr.Dataset) -> None:
    """d² and d² log d through the lowest of the points at the smallest d, a little below."""
    first = found["flops"].dropna("d", how="all")
    if first.sizes["d"] < 2:
        return
    d = first["d"].values.astype(float)
    start = 0.8 * float(first.isel(d=0).min())
    for growth, style, label in (
        (d**2, "--", r"$d^2$"),
        (d**2 * np.log(d), ":", r"$d^2 \log d$"),
    ):
        axes.plot(d, start * growth / growth[0], style, color="grey", label=label)
