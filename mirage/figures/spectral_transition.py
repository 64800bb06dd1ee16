"""Squared overlaps at finite d on the curves of the spectral estimator for d → ∞."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.style import STYLE, axis_label, plain_log, shades

MARKERS = ("o", "s", "^", "D")


def spectral_transition(dataset: xr.Dataset) -> Figure:
    """One panel an algorithm: cos(best)² of each loss and d, mean and standard error over seeds.

    Dashed curves are the predictions for the spectral estimator, the dotted line alpha_c.
    """
    compared = "algorithm" in dataset.cos_best.dims
    algorithms = dataset["algorithm"].values if compared else [dataset["algorithm"].item()]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1,
            len(algorithms),
            figsize=(1.0 + 3.6 * len(algorithms), 3.6),
            layout="constrained",
            sharey=True,
            squeeze=False,
        )
        for axes, algorithm in zip(panels[0], algorithms, strict=True):
            _panel(axes, dataset.sel(algorithm=algorithm) if compared else dataset)
            axes.set_title(str(algorithm).split("(")[0].replace("_", " "), fontsize=9)
        panels[0, 0].set_ylabel("cos(best)$^2$")
        panels[0, -1].legend(fontsize=7)
        return figure


def _panel(axes: Axes, dataset: xr.Dataset) -> None:
    losses = dataset["loss"].values if "loss" in dataset.cos_best.dims else [None]
    for hue, loss in enumerate(losses):
        chosen = dataset if loss is None else dataset.sel(loss=loss)
        squares = chosen.cos_best**2
        colours = shades(hue, dataset.sizes["d"])
        for place, d in enumerate(dataset["d"].values):
            one = squares.sel(d=d)
            error = one.std("seed", ddof=1) / np.sqrt(one.count("seed"))
            axes.errorbar(
                dataset["alpha"],
                one.mean("seed"),
                error,
                fmt=MARKERS[place % len(MARKERS)],
                ls="none",
                color=colours[place],
                label=", ".join([*([] if loss is None else [str(loss)]), f"d = {d}"]),
            )
        if "cos_best_predicted" in dataset:
            inside = dataset["alpha_theory"] < 1.1 * float(dataset["alpha"].max())
            inside &= dataset["alpha_theory"] > 0.7 * float(dataset["alpha"].min())
            curve = chosen.cos_best_predicted[inside] ** 2
            axes.plot(curve["alpha_theory"], curve, "--", lw=1.2, color=shades(hue, 3)[2])
    if "alpha_c" in dataset and np.isfinite(dataset.alpha_c).all():
        axes.axvline(float(dataset.alpha_c), color="0.4", ls=":", lw=1)
    alpha = dataset["alpha"]
    plain_log(axes, "x", float(alpha.min()) / 1.5, float(alpha.max()) * 1.2)
    axes.set_ylim(0, 1)
    axes.set_xlabel(axis_label("alpha"))
