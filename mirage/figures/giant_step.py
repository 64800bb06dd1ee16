"""One giant step: spectrum of the features, overlaps of the neurons, error before and after."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mirage.figures.recovery import band, sample_axis
from mirage.figures.style import STYLE, axis_label, plain_log

NEEDED = ("feature_eigenvalue_trajectory", "overlap_trajectory", "output_weights")
# From the hue families of `style.HUES`: grey, dark blue, and blue and orange for the signs of a_j.
BEFORE, AFTER, SIGNS = "#636363", "#08306b", {1: "#4292c6", -1: "#f16913"}
# Eigenvalues below this share of the largest are rounding: more features than samples.
ROUNDING = 1e-6


def giant_step(dataset: xr.Dataset) -> Figure:
    """Left, the eigenvalues of the features' covariance before and after, the largest marked;
    middle, w_j·u_1 after the step by the sign of a_j, on the predicted Gaussians; right, the error
    before and after against the sample size.

    Left one seed and middle all seeds of the largest sample size; of several d the last is drawn.
    """
    missing = [name for name in NEEDED if name not in dataset]
    if missing or dataset.sizes["step"] < 2:
        raise ValueError(
            "figure=giant_step: expected algorithm=giant_step with algorithm.spectrum=true and a "
            f"step; the results lack {', '.join(missing) or 'a step'}"
        )
    x = sample_axis(dataset)
    several = set(dataset["test_error"].dims) - {x, "seed"}
    dataset = dataset.isel(dict.fromkeys(several, -1))
    cell = dataset.isel({x: -1})
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(10.2, 3.2), layout="constrained")
        _spectrum(panels[0], cell["feature_eigenvalue_trajectory"].isel(seed=0))
        _overlaps(panels[1], cell)
        _errors(panels[2], dataset, x)
        size = f"{axis_label(x)} = {float(cell[x]):g}"
        width, seeds = dataset.sizes["neuron"], dataset.sizes["seed"]
        panels[0].set_title(f"{size}, one seed", fontsize=8)
        panels[1].set_title(f"{size}, {seeds} seeds", fontsize=8)
        panels[2].set_title(f"median, 30th-70th percentile over {seeds} seeds", fontsize=8)
        figure.suptitle(f"d = {int(dataset['d'])}, {width} neurons", fontsize=9)
        return figure


def _spectrum(axes: Axes, eigenvalues: xr.DataArray) -> None:
    states = [eigenvalues.isel(step=step).values for step in (0, -1)]
    top = max(values.max() for values in states)
    states = [values[values > ROUNDING * top] for values in states]
    bins = np.geomspace(0.9 * min(v.min() for v in states), 1.3 * top, 60).tolist()
    for values, colour, words in zip(states, (BEFORE, AFTER), ("before", "after"), strict=True):
        axes.hist(values, bins, color=colour, alpha=0.55, label=f"{words} the step", log=True)
    outlier = states[1].max()
    axes.annotate(
        f"outlier\n{outlier:.3g}",
        (outlier, 1.05),
        xytext=(0, 28),
        textcoords="offset points",
        arrowprops={"arrowstyle": "->", "color": AFTER},
        color=AFTER,
        ha="center",
        fontsize=8,
    )
    axes.set_xscale("log")
    axes.set_ylim(0.7, 8 * axes.get_ylim()[1])  # room for the legend
    axes.set_xlabel("eigenvalue of the features' covariance")
    axes.set_ylabel("count")
    axes.legend(fontsize=8, loc="upper right")


def _overlaps(axes: Axes, cell: xr.Dataset) -> None:
    overlap = cell["overlap_trajectory"].isel(direction=0)
    positive = cell["output_weights"] > 0
    after = overlap.isel(step=-1)
    bins = np.linspace(float(after.min()), float(after.max()), 80).tolist()
    start = overlap.isel(step=0).values.ravel()
    axes.hist(start, bins, density=True, histtype="step", color=BEFORE, label="before")
    grid = np.linspace(bins[0], bins[-1], 400)
    for sign, colour in SIGNS.items():
        values = after.where(positive if sign > 0 else ~positive).values.ravel()
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        axes.hist(
            values,
            bins,
            density=True,
            color=colour,
            alpha=0.5,
            label=rf"$a_j {'>' if sign > 0 else '<'} 0$",
        )
        if "overlap_mean_predicted" in cell:
            law = cell.sel(sign=sign).isel(direction=0)
            mean, width = (
                float(law[f"overlap_{name}_predicted"]) for name in ("mean", "deviation")
            )
            density = np.exp(-(((grid - mean) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
            words = "predicted" if sign > 0 else None
            axes.plot(grid, density, color="0.15", lw=1.2, ls="--", label=words)
    axes.set_ylim(0, 1.5 * axes.get_ylim()[1])  # room for the legend
    axes.set_xlabel(r"overlap $w_j \cdot u_1$")
    axes.set_ylabel("density")
    axes.legend(fontsize=8, ncols=2, loc="upper center")


def _errors(axes: Axes, dataset: xr.Dataset, x: str) -> None:
    error = dataset["test_error_trajectory"]
    for step, colour, words in ((0, BEFORE, "before"), (-1, AFTER, "after")):
        band(axes, error.isel(step=step), x, to_rgba(colour), f"{words} the step")
    if "plateau" in dataset:
        linear = float(dataset["plateau"].sel(degree=1))
        axes.axhline(linear, color="0.4", ls=":", lw=1, label="best linear predictor")
    low, high = float(error.median("seed").min()), float(error.median("seed").max())
    axes.set_xscale("log")
    plain_log(axes, "y", 0.7 * low, 1.4 * high)
    axes.set_xlabel(axis_label(x))
    axes.set_ylabel(r"population error $E(f - f^\star)^2$")
    axes.set_xticks(dataset[x].values, [f"{v:g}" for v in dataset[x].values])
    axes.minorticks_off()
    axes.legend(fontsize=8)
