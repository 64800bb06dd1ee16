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
    """Median test error by width m at the largest n, and by n at the largest m; one d.

    Bands are 30th-70th percentiles over seeds. Grey: C (1/√m + 1/√n)^{β+1} (arXiv 2511.15120,
    Theorem 1) for β = 0 and 1, C fitted to the logarithms of the lowest curve.
    """
    size = sample_axis(dataset)
    error = dataset["test_error"].isel(d=0)
    n = dataset["n"].isel(d=0).values if "n" not in dataset.dims else dataset["n"].values
    groups = [str(g) for g in error.dims if g not in ("width", size, "seed")]
    m = dataset["width"].values
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.4), layout="constrained", sharey=True)
        slices = (
            (axes[0], m, error.isel({size: int(np.argmax(n))}), "width", np.max(n)),
            (axes[1], n, error.isel(width=int(np.argmax(m))), size, np.max(m)),
        )
        choices = list(itertools.product(*(dataset[g].values for g in groups)))
        for axis, x, values, along, other in slices:
            medians = []
            for i, choice in enumerate(choices):
                one = values.sel(dict(zip(groups, choice, strict=True))).transpose(along, "seed")
                hue, shade = divmod(i, max(1, len(choices) // dataset.sizes.get("loss", 1)))
                colour = shades(hue, len(choices))[-1 - shade * (len(choices) // 2)]
                medians.append(_curve(axis, x, one, colour, "osv^"[shade % 4], choice))
            _rates(axis, x, other, np.array(medians))
        axes[0].set(xlabel="width m", ylabel=r"population error $E(f-f^\star)^2$")
        axes[0].set_title(f"n = {np.max(n)}, d = {int(dataset['d'][0])}", fontsize=8)
        axes[1].set(xlabel="samples n")
        axes[1].set_title(f"m = {np.max(m)}, d = {int(dataset['d'][0])}", fontsize=8)
        for axis, x in zip(axes, (m, n), strict=True):
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(x, [str(one) for one in x])
            axis.minorticks_off()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", fontsize=8)  # type: ignore[call-overload, arg-type]
        return figure


def _curve(axes: Axes, x, values: xr.DataArray, colour, marker: str, choice) -> np.ndarray:
    low, middle, high = values.quantile([LOW, 0.5, HIGH], "seed", skipna=True).values
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, middle, color=colour, marker=marker, label=", ".join(map(str, choice)))
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
