"""What a third layer is worth: the error on a tree against log n / log d, by what is trained."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.recovery import LABELS, band
from mirage.figures.style import STYLE, axis_label, shades

# The exponent from which on a kernel learns what is of degree two.
KERNEL = 2.0


def depth_advantage(dataset: xr.Dataset) -> Figure:
    """E(f − f⋆)² against κ = log n / log d for every part of the experiment.

    Medians over seeds with their 30th-70th percentiles. Dotted, the exponents at which the first
    layer finds the d^ε directions of a branch, 1 + ε, and a kernel the terms of degree two, 2. Of
    several d the last is drawn.
    """
    if not {"part", "exponent", "seed"} <= set(dataset.dims) or "test_error" not in dataset:
        raise ValueError("figure=depth_advantage: expected parts along exponent, found none")
    dataset = dataset.isel(d=-1)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
        for hue, part in enumerate(dataset["part"].values):
            words = str(part).replace("_", " ")
            band(axes, dataset["test_error"].sel(part=part), "exponent", shades(hue, 3)[1], words)
        _mark(axes, 1 + width_exponent(dataset), r"$1 + \epsilon$")
        _mark(axes, KERNEL, "2")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(rf"$\kappa$ = {axis_label('exponent')}, n samples a layer")
        axes.set_ylabel(LABELS["test_error"])
        axes.legend(fontsize=8)
        seeds, d = dataset.sizes["seed"], int(dataset["d"])
        axes.set_title(f"d = {d}; median, 30th-70th percentile over {seeds} seeds", fontsize=8)
        return figure


def width_exponent(dataset: xr.Dataset) -> float:
    """ε of a tree whose branches see d^ε directions each, at the last d."""
    width = dataset.sizes["direction"] / dataset.sizes["feature"]
    return float(np.log(width) / np.log(float(dataset["d"].max())))


def _mark(axes: Axes, exponent: float, words: str) -> None:
    axes.axvline(exponent, color="0.5", lw=0.9, ls=":", zorder=0)
    place = axes.get_xaxis_transform()
    axes.text(exponent, 1.0, f" {words}", transform=place, va="top", fontsize=8, color="0.4")
