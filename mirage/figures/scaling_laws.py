"""Learning curves of targets with many features, on their predictions."""

import itertools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.style import STYLE, axis_label, option_words, shades


def hierarchical_scaling_law(dataset: xr.Dataset) -> Figure:
    """MSE_γ of the found subspace against n/d: mean and standard error over seeds, the prediction
    as a line, ticks where it sees another feature; dashed the slope −1 + 1/(2γ). Squares: the
    posterior mean, where theory was asked for it.
    """
    return _curves(
        dataset, "weighted_mse", "weighted_mse_predicted", "weighted MSE of the features"
    )


def readout_risk(dataset: xr.Dataset) -> Figure:
    """Excess risk E(f − g)² of the two-stage network against n/d: mean and standard error over
    seeds, as a line what the best readout makes of the predicted subspace; dashed −1 + 1/(2γ).
    """
    return _curves(dataset, "test_error", "excess_risk_predicted", "excess risk $E(f - g)^2$")


def _curves(dataset: xr.Dataset, name: str, predicted: str, words: str) -> Figure:
    if not {"alpha", "seed"} <= set(dataset.dims) or name not in dataset:
        raise ValueError(f"figure: expected simulated cells of {name} along alpha, found none")
    dataset = dataset.isel(d=-1)
    values = dataset[name]
    groups = [str(dim) for dim in values.dims if dim not in ("alpha", "seed")]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.8, 4.0), layout="constrained")
        choices = list(itertools.product(*(values[g].values for g in groups)))
        for hue, choice in enumerate(choices):
            place = dict(zip(groups, choice, strict=True))
            one = values.sel(place)
            colour = shades(hue, 3)[1]
            count = one.count("seed")
            mean, error = one.mean("seed"), one.std("seed", ddof=1) / np.sqrt(count)
            seeds = int(count.max())
            label = ", ".join([option_words(choice), f"{seeds} seeds"]).lstrip(", ")
            axes.errorbar(one["alpha"], mean, error, fmt="o", color=colour, label=label)
            _prediction(axes, dataset, predicted, place, colour, hue)
            if f"{name}_bayes" in dataset:
                best = dataset[f"{name}_bayes"]
                best = best.sel({k: v for k, v in place.items() if k in best.dims})
                label = "Bayes-optimal, d → ∞" if hue == 0 else "_"
                axes.plot(best["alpha"], best, "s:", color=colour, mfc="none", label=label)
        alphas = dataset["alpha"]
        axes.set(xscale="log", yscale="log", xlabel=axis_label("alpha"), ylabel=words)
        axes.set_xlim(float(alphas.min()) / 1.5, float(alphas.max()) * 1.5)
        lowest = float(values.mean("seed").min())
        axes.set_ylim(lowest / 3, 2 * float(values.max()))
        axes.legend(fontsize=8, loc="lower left")
        axes.set_title(
            f"d = {int(dataset['d'])}; mean and standard error, lines: d → ∞", fontsize=8
        )
        return figure


def _prediction(
    axes: Axes, dataset: xr.Dataset, name: str, place: dict[str, Any], colour: Any, hue: int
) -> None:
    """The curve, a tick at every transition, and once the slope for many features."""
    if name not in dataset:
        return
    curve = dataset[name].sel({k: v for k, v in place.items() if k in dataset[name].dims})
    axes.plot(curve["alpha_theory"], curve, color=colour, lw=1.1)
    thresholds = dataset["feature_threshold"]
    at = thresholds.sel({k: v for k, v in place.items() if k in thresholds.dims}).values
    height = np.interp(np.log(at), np.log(curve["alpha_theory"]), curve)
    axes.plot(at, height, "|", color=colour, ms=9)
    rate = float(dataset["rate"].max())
    if hue == 0 and np.isfinite(rate):
        x = np.array([float(dataset["alpha"].min()), float(dataset["alpha"].max())])
        top = float(np.interp(np.log(x[0]), np.log(curve["alpha_theory"]), curve))
        line = top * (x / x[0]) ** rate
        axes.plot(x, line, "--", color="0.5", lw=1, label=rf"slope {rate:.2f} = $-1 + 1/(2\gamma)$")
