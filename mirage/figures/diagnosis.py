"""The figure of a diagnosis: labels, what they say of h, the spectrum, and thresholds."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.style import STYLE, plain_log, shades


def diagnosis(dataset: xr.Dataset) -> Figure:
    """Four panels: p(y), G(y), the spectrum of D with its outliers, thresholds in n/d."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 2, figsize=(7.6, 5.6), layout="constrained")
        label_density(panels[0, 0], dataset)
        label_information(panels[0, 1], dataset)
        _spectrum(panels[1, 0], dataset)
        _thresholds(panels[1, 1], dataset)
        names = dataset.attrs
        figure.suptitle(f"{names['target']}, {names['loss']}", fontsize=10)
        return figure


def label_density(axes: Axes, dataset: xr.Dataset) -> None:
    """p(y): a curve where there is a density, a bar with its probability for single values."""
    smooth = dataset.where(dataset.density.notnull(), drop=True)
    single = dataset.where(dataset.density.isnull(), drop=True)
    if smooth.sizes["place"]:
        axes.fill_between(smooth.label, smooth.density, color=shades(0, 3)[1], alpha=0.35, lw=0)
        axes.plot(smooth.label, smooth.density, color=shades(0, 3)[2])
        axes.set_ylim(0, 1.2 * float(smooth.density.quantile(0.97)))
        axes.set_ylabel("density of y")
    if single.sizes["place"]:
        bars = axes.twinx() if smooth.sizes["place"] else axes
        bars.vlines(single.label, 0, single.probability, color=shades(1, 3)[2], lw=2.5)
        bars.set_ylim(0, 1.05 * max(0.5, float(single.probability.max())))
        bars.set_ylabel("probability of single values")
        bars.grid(False)
    _central(axes, dataset)
    axes.set_xlabel("label y")


def label_information(axes: Axes, dataset: xr.Dataset) -> None:
    """The entries of G(y) = E[hhᵀ − I | y] that do not vanish."""
    g = dataset.information
    size = float(np.abs(g).weighted(dataset.probability).mean("place").max())
    r = g.sizes["direction"]
    pairs = [(i, j) for i in range(r) for j in range(i, r)]
    smooth = dataset.density.notnull().values
    drawn = 0
    for i, j in pairs:
        entry = g.isel(direction=i, other=j)
        weight = float(np.abs(entry).weighted(dataset.probability).mean())
        if weight < 0.02 * size:
            continue
        colour = shades(drawn, 3)[2]
        label = f"$G_{{{i + 1}{j + 1}}}$"
        if smooth.any():
            axes.plot(entry.label[smooth], entry[smooth], color=colour, label=label)
        if (~smooth).any():
            axes.plot(
                entry.label[~smooth],
                entry[~smooth],
                "o",
                color=colour,
                label=None if smooth.any() else label,
            )
        drawn += 1
    _central(axes, dataset)
    axes.set_xlabel("label y")
    axes.set_ylabel(r"$E[hh^\top - I\,|\,y]$")
    axes.legend(fontsize=8)


def _central(axes: Axes, dataset: xr.Dataset) -> None:
    """Labels within the central 98 % and a margin: tails would squeeze the rest."""
    share = np.cumsum(dataset.probability.values) / float(dataset.probability.sum())
    y = dataset.label.values
    low, high = y[np.searchsorted(share, 0.01)], y[min(np.searchsorted(share, 0.99), len(y) - 1)]
    margin = 0.08 * (high - low) if high > low else 1.0
    axes.set_xlim(low - margin, high + margin)


def _spectrum(axes: Axes, dataset: xr.Dataset) -> None:
    axes.plot(dataset.eigenvalue, dataset.spectrum, color=shades(0, 3)[2])
    axes.fill_between(dataset.eigenvalue, dataset.spectrum, color=shades(0, 3)[1], alpha=0.35, lw=0)
    for k in range(dataset.sizes["direction"]):
        if float(dataset.overlap[k]) > 0:
            at = float(dataset.outlier[k])
            axes.axvline(at, color=shades(1, 3)[2])
            words = f"overlap² {float(dataset.overlap[k]):.2f}"
            axes.text(
                at,
                0.95 - 0.1 * k,
                words,
                transform=axes.get_xaxis_transform(),
                ha="right",
                fontsize=7,
            )
    axes.set_ylim(0, None)
    axes.set_xlabel(f"eigenvalues of D at n/d = {dataset.attrs['alpha']:.3g}")
    axes.set_ylabel("density")


def _thresholds(axes: Axes, dataset: xr.Dataset) -> None:
    """Thresholds of losses as points, alpha_c of each step as lines, on one axis."""
    best = dataset.threshold.min("end")  # NaN where T is not bounded
    names = [str(name) for name in dataset.loss.values]
    finite = np.isfinite(best.values)
    axes.plot(best.values[finite], np.flatnonzero(finite), "o", color=shades(0, 3)[2])
    for row in np.flatnonzero(~finite):
        axes.text(
            0.98,
            float(row),
            _why(dataset, int(row)),
            transform=axes.get_yaxis_transform(),
            ha="right",
            fontsize=8,
        )
    steps = dataset.alpha_c.values
    for number, value in enumerate(steps):
        if np.isfinite(value) and value > 0:
            axes.axvline(value, color=shades(1, 3)[2], lw=1)
            words = f"step {number + 1}" if len(steps) > 1 else r"$\alpha_c$"
            axes.text(
                value, 1.01, words, transform=axes.get_xaxis_transform(), ha="center", fontsize=7
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    known = [*best.values[finite], *steps[np.isfinite(steps) & (steps > 0)]]
    if known:
        plain_log(axes, "x", min(known) / 1.6, max(known) * 1.6)
    axes.set_xlabel("n / d from which eigenvectors stand out")


def _why(dataset: xr.Dataset, row: int) -> str:
    """Why a loss has no threshold."""
    ends = dataset.threshold.values[row]
    return "no transition" if np.isinf(ends).any() else "T(y) not bounded"
