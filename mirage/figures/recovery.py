"""Recovery curves: a measure against the number of samples."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.style import STYLE, axis_label, shades

LOW, HIGH = 0.3, 0.7
LABELS = {"cos_best": "cos(best)", "test_error": r"population error $E(f-f^\star)^2$"}


def sample_axis(dataset: xr.Dataset) -> str:
    """Which of alpha, exponent and n the dataset is a grid of."""
    return next(kind for kind in ("alpha", "exponent", "n") if kind in dataset.dims)


def recovery(dataset: xr.Dataset, *, y: str = "cos_best") -> Figure:
    """Median over seeds of a measure, with its 30th-70th percentile band, against the sample size.

    One hue family for each combination of compared options, one shade for each d. Without cells,
    what theory predicts of the spectral estimator alone.
    """
    if y not in dataset and "cos_best_predicted" in dataset:
        return _predictions(dataset)
    x = sample_axis(dataset)
    groups = [str(dim) for dim in dataset[y].dims if dim not in ("d", x, "seed")]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
        choices = list(itertools.product(*(dataset[g].values for g in groups)))
        for hue, choice in enumerate(choices):
            chosen = dataset[y].sel(dict(zip(groups, choice, strict=True)))
            colours = shades(hue, dataset.sizes["d"])
            for colour, d in zip(colours, dataset["d"].values, strict=True):
                label = ", ".join([*map(str, choice), f"d = {d}"])
                band(axes, chosen.sel(d=d), x, colour, label)
            if x == "alpha" and y == "cos_best":
                _theory(axes, dataset, dict(zip(groups, choice, strict=True)), shades(hue, 3)[2])
        axes.set_xlabel(axis_label(x))
        axes.set_ylabel(LABELS.get(y, y))
        if y == "cos_best":
            axes.set_ylim(0, 1.02)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, ncols=len(choices) if len(choices) <= 3 else 1)
        seeds = dataset.sizes["seed"]
        words = f"median and 30th-70th percentile over {seeds} seeds"
        if "cos_best_predicted" in dataset and x == "alpha":
            words += "; dashed: spectral estimator, d → ∞"
        axes.set_title(words, fontsize=8)
        return figure


def _predictions(dataset: xr.Dataset) -> Figure:
    """The spectral estimator's curves for d → ∞, a hue for each combination of options."""
    predicted = dataset["cos_best_predicted"]
    groups = [str(dim) for dim in predicted.dims if dim != "alpha_theory"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
        choices = list(itertools.product(*(dataset[g].values for g in groups)))
        for hue, choice in enumerate(choices):
            curve = predicted.sel(dict(zip(groups, choice, strict=True)))
            words = ", ".join(map(str, choice)) or None
            axes.plot(curve["alpha_theory"], curve, color=shades(hue, 3)[2], label=words)
        if groups:
            axes.legend(fontsize=8)
        axes.set_xscale("log")
        axes.set_xlabel(axis_label("alpha"))
        axes.set_ylabel(LABELS["cos_best"])
        axes.set_ylim(0, 1.02)
        axes.set_title("spectral estimator, d → ∞", fontsize=8)
        return figure


def _theory(axes: Axes, dataset: xr.Dataset, choice: dict, colour: tuple[float, ...]) -> None:
    """The spectral estimator's curve for d → ∞, and alpha_c as a line, for a choice of options."""
    if "cos_best_predicted" not in dataset:
        return
    predicted, alpha_c = (
        dataset[name].sel({k: v for k, v in choice.items() if k in dataset[name].dims})
        for name in ("cos_best_predicted", "alpha_c")
    )
    low, high = float(dataset["alpha"].min()), float(dataset["alpha"].max())
    inside = (dataset["alpha_theory"] > 0.7 * low) & (dataset["alpha_theory"] < 1.1 * high)
    curve = predicted[inside]
    if bool((curve > 0).any()):
        axes.plot(curve["alpha_theory"], curve, color=colour, ls="--", lw=1)
    if 0.7 * low < float(alpha_c) < 1.1 * high:
        axes.axvline(float(alpha_c), color="0.4", ls=":", lw=1)
        place = axes.get_xaxis_transform()
        axes.text(float(alpha_c), 0.98, r" $\alpha_c$", transform=place, va="top", fontsize=8)


def band(axes: Axes, values: xr.DataArray, x: str, colour: tuple[float, ...], label: str) -> None:
    """One curve; cells that diverged do not count, points where all did are left out."""
    values = values.dropna(x, how="all")
    if values.sizes[x] == 0:
        return
    low, middle, high = values.quantile([LOW, 0.5, HIGH], dim="seed", skipna=True).values
    points = np.asarray(values[x].values)
    axes.fill_between(points, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(points, middle, color=colour, marker="o", label=label)
