"""The population error against width and samples, beside the rate of Theorem 1."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.recovery import HIGH, LOW, sample_axis
from mirage.figures.style import STYLE, shades

# The exponents beta of the monomial approximation (assumption A6) for which a rate is drawn.
BETAS = {0: "--", 1: ":"}


def error_surface(dataset: xr.Dataset) -> Figure:
    """Median test error by width m (above, by n) and by samples n (below, by m), at one d.

    A column for each combination of compared options but the loss, which has the hues; shades go
    from few samples (neurons) to many. Bands are 30th-70th percentiles over seeds. Grey:
    C (1/√m + 1/√n)^{β+1} (arXiv 2511.15120, Theorem 1) at the most samples (neurons) for β = 0
    and 1, C fitted to the logarithms of the lowest curve.
    """
    size = sample_axis(dataset)
    error = dataset["test_error"].isel(d=0)
    n = dataset["n"].isel(d=0).values if "n" not in dataset.dims else dataset["n"].values
    error = error.assign_coords({size: n}).sortby([size, "width"])
    if "loss" not in error.dims:
        error = error.expand_dims(loss=np.ravel(dataset["loss"].values))
    groups = [str(g) for g in error.dims if g not in ("width", size, "seed", "loss")]
    choices = list(itertools.product(*(dataset[g].values for g in groups)))
    shape = {"figsize": (3.0 + 2.6 * len(choices), 5.2), "sharey": True, "squeeze": False}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(choices), layout="constrained", **shape)
        for column, choice in enumerate(choices):
            own = error.sel(dict(zip(groups, choice, strict=True)))
            for axis, along, other, letter in (
                (axes[0, column], "width", size, "n"),
                (axes[1, column], size, "width", "m"),
            ):
                _panel(axis, own, along, other, letter)
            words = ", ".join(map(str, choice))
            axes[0, column].set_title(words, fontsize=9)
            axes[0, column].set_xlabel("width m")
            axes[1, column].set_xlabel(f"samples n, d = {int(dataset['d'][0])}")
        for row in axes:
            row[0].set_ylabel(r"population error $E(f-f^\star)^2$")
            row[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
        return figure


def _panel(axis: Axes, error: xr.DataArray, along: str, other: str, letter: str) -> None:
    x, others = error[along].values, error[other].values
    last = []
    for hue, loss in enumerate(error["loss"].values):
        for colour, value in zip(shades(hue, len(others)), others, strict=True):
            one = error.sel({"loss": loss, other: value}).transpose(along, "seed")
            middle = _curve(axis, x, one, colour, f"{loss}, {letter} = {value}")
        last.append(middle)
    _rates(axis, x, float(others[-1]), np.array(last))
    axis.set(xscale="log", yscale="log")
    axis.set_xticks(x, [str(one) for one in x])
    axis.minorticks_off()


def _curve(axes: Axes, x, values: xr.DataArray, colour, label: str) -> np.ndarray:
    low, middle, high = values.quantile([LOW, 0.5, HIGH], "seed", skipna=True).values
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, middle, color=colour, marker="o", label=label)
    return middle


def _rates(axes: Axes, x: np.ndarray, other: float, medians: np.ndarray) -> None:
    """Both rates, each through the lowest curve; √ of x and of the other size enter alike."""
    if not np.isfinite(medians).any():
        return
    lowest = medians[np.argmin(np.where(np.isfinite(medians), medians, np.inf).mean(axis=1))]
    for beta, style in BETAS.items():
        rate = (1 / np.sqrt(x) + 1 / np.sqrt(other)) ** (beta + 1)
        prefactor = np.exp(np.nanmean(np.log(lowest / rate)))
        power = "" if beta == 0 else f"^{beta + 1}"
        label = rf"$(m^{{-1/2}} + n^{{-1/2}}){power}$, $\beta = {beta}$"
        axes.plot(x, prefactor * rate, style, color="grey", label=label)
