"""The threshold of Huber's loss against δ, beside other losses and alpha_c."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mirage.figures.style import STYLE, plain_log, shades


def loss_design(dataset: xr.Dataset) -> Figure:
    """One panel a target: thresholds n/d of two families against δ, other losses as lines."""
    targets = dataset["target"].values if "target" in dataset.threshold.dims else [None]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1,
            len(targets),
            figsize=(1.2 + 3.0 * len(targets), 3.6),
            layout="constrained",
            squeeze=False,
        )
        for axes, target in zip(panels[0], targets, strict=True):
            chosen = dataset if target is None else dataset.sel(target=target)
            for hue, family in enumerate(dataset["family"].values):
                curve = chosen.threshold.sel(family=family)
                curve = curve.where(np.isfinite(curve))
                colour = shades(hue, 3)[2]
                axes.plot(curve.delta, curve, color=colour, label=str(family).replace("_", "-"))
                if bool(curve.notnull().any()):
                    best = curve.isel(delta=int(curve.argmin("delta")))
                    axes.plot(best.delta, best, "o", color=colour)
            best_end = chosen.spectral_threshold.min("end")
            losses = dataset["loss"].values if "loss" in best_end.dims else []
            for place, loss in enumerate(losses):
                value = float(best_end.sel(loss=loss))
                if np.isfinite(value):
                    styles = ("--", "-.", ":", (0, (5, 1, 1, 1)))
                    axes.axhline(value, color="0.45", lw=1, ls=styles[place % 4], label=str(loss))
            alpha_c = float(chosen.alpha_c)
            if np.isfinite(alpha_c) and alpha_c > 0:
                axes.axhline(alpha_c, color=shades(5, 3)[2], lw=1.2, label=r"$\alpha_c$")
            axes.set_xscale("log")
            seen = [*chosen.threshold.values.ravel(), *best_end.values.ravel(), alpha_c]
            seen = [value for value in seen if np.isfinite(value) and value > 0]
            if seen:
                plain_log(axes, "y", min(seen) / 1.3, max(seen) * 1.3)
            axes.set_xlabel(r"$\delta$")
            axes.set_title("" if target is None else str(target), fontsize=8)
        panels[0, 0].set_ylabel("n / d from which eigenvectors stand out")
        panels[0, -1].legend(fontsize=7)
        return figure
