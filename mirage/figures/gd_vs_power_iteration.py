"""Until when gradient descent is a power iteration."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mirage.analysis.parting import THRESHOLD, parting
from mirage.figures.style import STYLE, shades

LOW, HIGH = 0.3, 0.7
# Below this the distance is rounding.
FLOOR = 1e-6


def gd_vs_power_iteration(dataset: xr.Dataset) -> Figure:
    """Distance of GD from power iteration against the norm of W, and the norm where they part.

    A column for each `weight_decay`, a shade for each `initial_norm`; lines join the medians over
    seeds of both quantities at each step. Of several d and sample sizes, the last is drawn.
    """
    panels, curves = "weight_decay", "initial_norm"
    kept = {"seed", panels, curves}
    distance = dataset["distance_trajectory"]
    last = {dim: -1 for dim in distance.dims if dim not in kept | {"step"}}
    dataset = dataset.isel(last)
    for dim in (panels, curves):
        if dim not in dataset.dims:
            dataset = dataset.expand_dims({dim: [np.nan]})
    distance = dataset["distance_trajectory"].median("seed")
    norm = dataset["norm_trajectory"].max("neuron").median("seed")
    parted = parting(dataset)["parting_norm"]
    decays, starts = dataset[panels].values.tolist(), dataset[curves].values.tolist()
    colours = shades(0, len(starts))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2,
            len(decays),
            figsize=(1.2 + 2.1 * len(decays), 4.4),
            height_ratios=(3, 2),
            sharex="row",
            sharey="row",
            squeeze=False,
            layout="constrained",
        )
        for column, decay in enumerate(decays):
            top, bottom = axes[:, column]
            for colour, start in zip(colours, starts, strict=True):
                place = {panels: decay, curves: start}
                x, y = norm.sel(place).values, distance.sel(place).values
                seen = y > FLOOR
                label = rf"$\varepsilon_0 = {_power(start)}$"
                top.loglog(x[seen], y[seen], "o-", color=colour, label=label)
                values = parted.sel(place).dropna("seed").values
                if not len(values):
                    continue
                low, middle, high = np.quantile(values, [LOW, 0.5, HIGH])
                top.plot(middle, THRESHOLD, "D", color="black", ms=4, zorder=3)
                bottom.errorbar(
                    start,
                    middle,
                    [[middle - low], [high - middle]],
                    fmt="D",
                    ms=4,
                    color=colour,
                    capsize=3,
                )
            top.axhline(THRESHOLD, color="black", lw=0.8, ls="--")
            guide = np.geomspace(3e-3, 0.6, 2)
            top.loglog(guide, 0.2 * guide**2, color="grey", lw=0.9, ls=":", label=r"slope 2")
            top.set_title(_weight_decay(decay), fontsize=9)
            top.set_xlabel(r"GD iterate, $\mathrm{max}_j\,\|w_j\|$")
            bottom.set_xscale("log")
            bottom.set_xlabel(r"initial norm $\varepsilon_0$")
        axes[0, 0].set_ylabel(r"$\|W_t - P_t\| \,/\, \|P_t\|$")
        axes[0, 0].set_ylim(FLOOR, 3)
        axes[1, 0].set_ylabel(f"norm where it\nexceeds {THRESHOLD:g}")
        axes[1, 0].set_ylim(0, 1)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
        seeds = dataset.sizes["seed"]
        figure.suptitle(
            f"d = {int(dataset['d'])}; medians over {seeds} seeds, "
            "bars: 30th-70th percentile; diamonds: where they part",
            fontsize=8,
        )
        return figure


def _weight_decay(value: float) -> str:
    return "" if np.isnan(value) else rf"weight decay $\beta_1 = {value:g}$"


def _power(value: float) -> str:
    """10^{-3} for 1e-3; other numbers as they are."""
    exponent = np.log10(value)
    whole = np.isfinite(exponent) and np.isclose(exponent, round(exponent))
    return f"10^{{{round(exponent)}}}" if whole else f"{value:g}"
