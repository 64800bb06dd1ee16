"""The smallest sample sizes of a search, against d and against the number of steps."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from mirage.analysis.minimal_samples import searched, theorem_samples, trend
from mirage.figures.style import STYLE, axis_label, shades

STEPS = np.arange(1, 13)


def minimal_samples(dataset: xr.Dataset) -> Figure:
    """The smallest sample size against d, one curve a threshold, with confidence intervals.

    A point that was not reached is an arrow at the upper end of the search. For exponents, with
    Theorem 1 of arXiv 2511.15120 at its best T1, and d log d, through the last point.
    """
    over, level = searched(dataset), _level(dataset)
    setups = [str(dim) for dim in dataset["status"].dims if dim not in (level, "d")]
    flat = dataset.stack(setup=setups) if setups else dataset.expand_dims("setup")
    d = dataset["d"].values
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
        slopes = trend(flat)
        for hue in range(flat.sizes["setup"]):
            colours = shades(hue, dataset.sizes[level])
            for colour, threshold in zip(colours, dataset[level].values, strict=True):
                place = {"setup": hue, level: list(dataset[level].values).index(threshold)}
                slope = slopes.isel(place)
                label = f"{_symbol(level)} = {threshold:g}"
                if setups:
                    label = ", ".join([*map(str, np.atleast_1d(flat["setup"].values[hue])), label])
                if np.isfinite(slope["slope"]):
                    label += (
                        f"  (slope {slope['slope'].item():.3f} ± {slope['slope_error'].item():.3f})"
                    )
                _points(axes, flat.isel(place), over, "d", colour, label)
        if over == "exponent":
            _theory(axes, dataset, d)
        axes.set_xscale("log")
        axes.set_xticks(d, [str(v) for v in d])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("d")
        axes.set_ylabel(f"smallest {axis_label(over)}")
        axes.legend(fontsize=7)
        axes.set_title(_caption(dataset), fontsize=7)
        return figure


def minimal_samples_vs_steps(dataset: xr.Dataset) -> Figure:
    """The smallest sample size against the number of steps T1, one curve a d.

    For exponents, with 1 + 1/T1, below which the theorem leaves noise.
    """
    over, level = searched(dataset), _level(dataset)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
        for row, threshold in enumerate(dataset[level].values):
            for colour, d in zip(shades(row, dataset.sizes["d"]), dataset["d"].values, strict=True):
                label = f"d = {d}, {_symbol(level)} = {threshold:g}"
                chosen = dataset.sel({level: threshold, "d": d})
                _points(axes, chosen, over, "steps", colour, label)
        steps = dataset["steps"].values
        if over == "exponent":
            x = np.geomspace(max(steps.min(), 1), steps.max(), 100)
            axes.plot(x, np.minimum(1 + 1 / x, 2), "k--", lw=1, label=r"$1 + 1/T_1$ (Theorem 1)")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(steps, [str(v) for v in steps])
        axes.set_xlabel(r"first-layer steps $T_1$")
        axes.set_ylabel(f"smallest {axis_label(over)}")
        axes.legend(fontsize=7)
        axes.set_title(_caption(dataset), fontsize=7)
        return figure


def _level(dataset: xr.Dataset) -> str:
    return "epsilon" if "epsilon" in dataset.dims else "level"


def _symbol(level: str) -> str:
    return r"$\epsilon$" if level == "epsilon" else "level"


def _caption(dataset: xr.Dataset) -> str:
    share = f"{dataset.attrs['confidence']:.0%}"
    return f"{dataset.attrs['criterion']}; bars: {share} bootstrap interval over seeds"


def _points(axes: Axes, found: xr.Dataset, over: str, x: str, colour, label: str) -> None:
    """One curve with its intervals; arrows where the criterion was never met."""
    value, low, high = (found[f"{over}_min{end}"].values for end in ("", "_low", "_high"))
    places, reached = found[x].values, np.isfinite(value)
    top = np.where(np.isfinite(high), high, found.attrs["search_high"])
    errors = np.stack([value - low, np.maximum(top - value, 0)])[:, reached]
    axes.errorbar(
        places[reached], value[reached], errors, color=colour, marker="o", capsize=2, label=label
    )
    if not reached.all():
        end = np.full((~reached).sum(), found.attrs["search_high"])
        axes.plot(places[~reached], end, linestyle="none", marker="^", ms=6, color=colour)


def _theory(axes: Axes, dataset: xr.Dataset, d: np.ndarray) -> None:
    """d log d and Theorem 1 at its best T1, each with the constant of the last point reached."""
    x = np.geomspace(d.min(), d.max(), 100)
    last = dataset["exponent_min"].isel(d=-1).values
    if not np.isfinite(last).any():
        return
    curves = [(x * np.log(x), ":", r"$C\, d \log d$")]
    kappa = dataset.attrs.get("condition_number")
    if kappa:
        samples = theorem_samples(x[:, None], STEPS, kappa).min(axis=1)
        curves.append(
            (samples, "--", rf"$C \times$ Theorem 1 at its best $T_1$, $\kappa$ = {kappa:g}")
        )
    for samples, style, label in curves:
        constant = np.exp(np.nanmax(last) * np.log(d[-1])) / samples[-1]
        line = np.log(constant * samples) / np.log(x)
        axes.plot(x, line, f"k{style}", lw=1, label=f"{label}, C = {constant:.2g}")
