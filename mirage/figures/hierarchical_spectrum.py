"""Eigenvalues of the label-weighted covariance: the bulk, what leaves it, and the gaps between."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.style import STYLE, shades

SEEN, PREDICTED = shades(0, 3)[1], shades(1, 3)[1]


def hierarchical_spectrum(dataset: xr.Dataset) -> Figure:
    """A panel a sample size: the eigenvalues of one seed as a histogram, the predicted density of
    the bulk as a line, the predicted outliers as triangles below those seen.
    """
    cells = _cells(dataset)
    alphas = cells["alpha"].values
    columns = min(2, len(alphas))
    rows = -(-len(alphas) // columns)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            rows, columns, figsize=(4.6 * columns, 2.8 * rows), layout="constrained", squeeze=False
        )
        for axes, alpha in zip(panels.ravel(), alphas, strict=False):
            _panel(axes, cells.sel(alpha=alpha).isel(seed=0), cells.sizes["ritz"])
        for axes in panels.ravel()[len(alphas) :]:
            axes.axis("off")
        panels[0, 0].legend(fontsize=7, loc="upper right")
        figure.suptitle(f"d = {int(cells['d'])}, one seed; lines and triangles: d → ∞", fontsize=9)
        return figure


def _panel(axes: Axes, cell: xr.Dataset, d: int) -> None:
    values = np.sort(cell["ritz_value"].values)
    edge = float(cell["bulk_edge"]) if "bulk_edge" in cell else values[-1]
    bulk = values[values <= edge * (1 + 1e-2 * np.sign(edge))]
    width = (bulk[-1] - bulk[0]) / 40
    bins = np.arange(bulk[0], values[-1] + 2 * width, width).tolist()
    axes.hist(values, bins, weights=np.full(len(values), 1 / d / width), color=SEEN, alpha=0.6)
    if "bulk_density" in cell:
        density = cell["bulk_density"].values
        axes.plot(cell["bulk_point"], density, color=PREDICTED, label="bulk, d → ∞")
        outliers = cell["outlier_predicted"].dropna("direction")
        below = np.full(outliers.size, 0.4 / d / width)
        axes.plot(outliers, below, "v", color=PREDICTED, ms=5, label="outliers, d → ∞")
    found = int(cell["features_found"])
    words = f"{found} feature{'s' * (found != 1)} found" if found else "no feature found"
    axes.set_title(f"n/d = {float(cell['alpha']):g}: {words}", fontsize=8)
    axes.set(yscale="log", xlabel="eigenvalue", ylabel="density")
    axes.set_ylim(bottom=0.25 / d / width)


def feature_selection(dataset: xr.Dataset) -> Figure:
    """A panel a sample size: λ_k − λ_{k+1} against k, a line a seed, a ring around the gap
    behind the last that was found; dotted the number of outliers that is predicted.
    """
    cells = _cells(dataset)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1,
            cells.sizes["alpha"],
            figsize=(0.6 + 3.6 * cells.sizes["alpha"], 3.2),
            layout="constrained",
            squeeze=False,
            sharey=True,
        )
        for axes, alpha in zip(panels[0], cells["alpha"].values, strict=True):
            _gaps(axes, cells.sel(alpha=alpha))
        panels[0, 0].set_ylabel("gap behind eigenvalue k")
        return figure


def _gaps(axes: Axes, cells: xr.Dataset) -> None:
    shown = 2 * cells.sizes["direction"]
    for seed, colour in zip(cells["seed"], shades(0, cells.sizes["seed"]), strict=True):
        cell = cells.sel(seed=seed)
        values = np.sort(cell["ritz_value"].dropna("ritz").values)[::-1]
        gaps = values[:shown] - values[1 : shown + 1]
        axes.plot(np.arange(1, len(gaps) + 1), gaps, "o-", color=colour, lw=0.8)
        found = int(cell["features_found"])
        if found:
            axes.plot(found, gaps[found - 1], "o", mfc="none", ms=10, color=PREDICTED)
    words = [f"{int(k)}" if k else "no feature" for k in cells["features_found"].values]
    axes.set_title(f"n/d = {float(cells['alpha']):g}: found {', '.join(words)}", fontsize=8)
    if "outlier_predicted" in cells:
        count = int(cells["outlier_predicted"].count())
        axes.axvline(count, color="0.5", ls=":", label=f"{count} predicted")
        axes.legend(fontsize=8)
    axes.set(yscale="log", xlabel="k")


def _cells(dataset: xr.Dataset) -> xr.Dataset:
    """Cells along alpha and seed alone; of other dimensions the last is taken."""
    needed = {"ritz_value", "features_found"} <= set(dataset.data_vars)
    if not needed or not {"alpha", "seed"} <= set(dataset.dims):
        raise ValueError(
            "figure: expected cells along alpha with algorithm=full_spectrum, or with "
            "algorithm=spectral and algorithm.select=outliers; found none"
        )
    others = set(dataset["features_found"].dims) - {"alpha", "seed"}
    return dataset.isel(dict.fromkeys(others, -1))
