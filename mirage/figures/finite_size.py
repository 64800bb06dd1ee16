"""Finite-size scaling: curves of several d, their crossings, their collapse."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.analysis.finite_size import finite_size as analyse
from mirage.figures.style import STYLE, axis_label, shades

# At a spectral transition the squared overlap of the top eigenvector is of order d^{-1/3} (Bao and
# Wang 2022, arXiv 2009.13143), so that cos(best) d^{1/6} is what has no dimension.
SPECTRAL_HEIGHT = 1 / 6


def finite_size(dataset: xr.Dataset) -> Figure:
    """Mean cos(best) by n/d, its crossings by 1/d, and the collapse; one option of each group.

    Under power iteration all heights are cos(best) d^{1/6}, and the dotted line is the spectral
    threshold where it was computed. A title says where nothing crosses.
    """
    values = dataset["cos_best"]
    others = [dim for dim in values.dims if dim not in ("d", "alpha", "seed")]
    if any(values.sizes[dim] > 1 for dim in others):
        raise ValueError(f"figure=finite_size: expected one option of each, got several {others}")
    values = values.squeeze(others, drop=True)
    linear = str(np.ravel(dataset["algorithm"].values)[0]) == "power_iteration"
    height = SPECTRAL_HEIGHT if linear else 0.0
    label = r"cos(best) $\cdot\, d^{1/6}$" if linear else "cos(best)"
    found = analyse(values * values["d"].astype(float) ** height)
    with plt.rc_context(STYLE):
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(9.6, 3.1), layout="constrained", width_ratios=(1.1, 0.8, 1.1)
        )
        colours = dict(zip(found["d"].values, shades(0, found.sizes["d"]), strict=True))
        for d, colour in colours.items():
            one = found.sel(d=d)
            y, error = one["curve"], one["curve_error"]
            left.errorbar(found["alpha"], y, error, color=colour, marker="o", label=f"d = {d}")
        left.set(xlabel=axis_label("alpha"), ylabel=f"{label}, mean ± s.e.")
        left.legend(fontsize=8)
        _crossings(middle, found)
        _collapse(right, found, colours, label)
        if linear and "spectral_threshold" in dataset:
            threshold = float(dataset["spectral_threshold"].min())
            for axes, line in ((left, left.axvline), (middle, middle.axhline)):
                line(threshold, color="0.4", ls=":", lw=1, zorder=0)
                axes.set_title(f"{axes.get_title()}   theory: {threshold:.2f}".strip(), fontsize=8)
        return figure


def _crossings(axes: Axes, found: xr.Dataset) -> None:
    axes.set(xlabel=r"$1/\sqrt{d_1 d_2}$", ylabel="crossing n / d")
    cross = found.isel(pair=np.flatnonzero(found["crosses"].values))
    if cross.sizes["pair"] == 0:
        axes.set_title("no two curves cross", fontsize=8)
        return
    inverse = 1 / np.sqrt(cross["d_small"] * cross["d_large"])
    hue = shades(1, 1)[0]
    axes.errorbar(
        inverse, cross["crossing"], cross["crossing_error"], fmt="o", color=hue, capsize=2
    )
    limit, error = float(found["alpha_c_crossings"]), float(found["alpha_c_crossings_error"])
    axes.errorbar([0], [limit], [error], fmt="s", color="black", capsize=2)
    axes.set_xlim(left=-0.1 * float(inverse.max()))
    title = rf"$d \to \infty$: {limit:.2f} ± {error:.2f}"
    axes.set_title(title, fontsize=8)


def _collapse(axes: Axes, found: xr.Dataset, colours: dict, label: str) -> None:
    axes.set(ylabel=label, xlabel=r"$(n/d - \alpha_c)\, d^{1/\nu}$")
    centre, nu = float(found["alpha_c"]), float(found["nu"])
    if np.isnan(centre):
        axes.set_title("nothing to collapse", fontsize=8)
        return
    for d, colour in colours.items():
        x = (found["alpha"] - centre) * float(d) ** (1 / nu)
        axes.plot(x, found["curve"].sel(d=d), color=colour, marker="o", linewidth=0.8)
    axes.set_title(
        rf"$\alpha_c$ = {centre:.2f} ± {float(found['alpha_c_error']):.2f}, "
        rf"$\nu$ = {nu:.2f} ± {float(found['nu_error']):.2f}, S = {float(found['quality']):.1f}",
        fontsize=8,
    )
