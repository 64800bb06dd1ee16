"""Subspace recovery against the number of steps, and the best number of steps."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from mirage.analysis.stopping import best_steps, root_log_prefactor
from mirage.figures.recovery import sample_axis
from mirage.figures.style import STYLE, axis_label, shades

Y = "subspace_cosine_trajectory"
LOW, HIGH = 0.3, 0.7
LEVEL = 0.9
# The ratio of extents beyond which `principal_cosines` counts a direction as lost.
RESOLUTION = 100


def stopping_time(dataset: xr.Dataset) -> Figure:
    """The smallest principal cosine of W and U against T1, and the best T1 against d.

    Above, a panel for each `condition_number`, a shade for each d: medians and 30th-70th
    percentile bands over seeds, and dotted the T at which κ^T = 100, the largest ratio of extents
    at which a direction still counts. Below, the argmax of each median with its bootstrap
    interval and c √(log d), c fitted; without κ = 1, where nothing collapses and no step is best.
    Of several sample sizes the last is drawn.
    """
    kind, panels = sample_axis(dataset), "condition_number"
    dims = dataset[Y].dims
    kept = {panels, "d", "seed", "step"}
    dataset = dataset.isel({dim: -1 for dim in dims if dim not in kept})
    if panels not in dims:
        dataset = dataset.expand_dims({panels: [np.nan]})
    kappas, sizes = dataset[panels].values.tolist(), dataset["d"].values
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(1.6 + 1.5 * max(len(kappas), 3), 4.9), layout="constrained")
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.1, 1))
        top, bottom = halves
        axes = top.subplots(1, len(kappas), sharey=True, squeeze=False)[0]
        for hue, (panel, kappa) in enumerate(zip(axes, kappas, strict=True)):
            for colour, d in zip(shades(hue, len(sizes)), sizes, strict=True):
                values = dataset[Y].sel({panels: kappa, "d": d}).fillna(0.0)
                low, middle, high = values.quantile([LOW, 0.5, HIGH], dim="seed").values
                steps = dataset["step"].values
                panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
                panel.plot(steps, middle, "o-", color=colour, label=f"d = {d}")
            if kappa > 1:
                panel.axvline(np.log(RESOLUTION) / np.log(kappa), color="black", lw=1, ls=":")
            panel.set_title(_kappa(kappa), fontsize=9)
            panel.set_xlabel(r"steps $T_1$")
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            panel.set_ylim(0, 1.02)
        axes[0].set_ylabel("smallest principal\ncosine of W and U")
        # Shades run alike in every hue: the legend shows them in grey.
        handles = []
        for grey in shades(4, len(sizes)):
            handles += axes[0].plot([], [], "o-", color=grey)
        handles.append(Line2D([], [], color="black", lw=1, ls=":"))
        labels = [*(f"d = {d}" for d in sizes), rf"$\kappa^{{T_1}} = {RESOLUTION}$"]
        top.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
        _best(bottom.subplots(), dataset, panels)
        seeds = dataset.sizes["seed"]
        figure.suptitle(
            f"{axis_label(kind)} = {float(dataset[kind]):g}; median over {seeds} seeds; bands: "
            f"30th-70th percentile; bars: {LEVEL:.0%} bootstrap interval",
            fontsize=8,
        )
        return figure


def _best(axes, dataset, panels):
    found = best_steps(dataset, level=LEVEL)
    kappas, sizes = dataset[panels].values.tolist(), dataset["d"].values
    line = np.geomspace(sizes.min(), sizes.max(), 50)
    curves = [(hue, kappa) for hue, kappa in enumerate(kappas) if kappa != 1]
    for place, (hue, kappa) in enumerate(curves):
        colour = shades(hue, 3)[1]
        one = found.sel({panels: kappa})
        best = one["best_step"].values
        bars = [best - one["best_step_low"].values, one["best_step_high"].values - best]
        prefactor = float(root_log_prefactor(one["best_step"]))
        # Side by side, so that bars do not hide each other.
        shift = 1.04 ** (place - (len(curves) - 1) / 2)
        label = f"{_kappa(kappa)}, argmax of the median"
        axes.errorbar(sizes * shift, best, bars, fmt="o", color=colour, capsize=3, label=label)
        words = rf"${prefactor:.2f}\,\sqrt{{\log d}}$ (prefactor fitted)"
        axes.plot(line, prefactor * np.sqrt(np.log(line)), "--", lw=1, color=colour, label=words)
    axes.set_xscale("log")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("dimension d")
    axes.set_ylabel(r"best $T_1$")
    handles, labels = axes.get_legend_handles_labels()
    pairs = [i for k in range(len(curves)) for i in (len(curves) + k, k)]  # points, then their line
    axes.legend(
        [handles[i] for i in pairs],
        [labels[i] for i in pairs],
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )


def _kappa(value: float) -> str:
    return "" if np.isnan(value) else rf"$\kappa = {value:g}$"
