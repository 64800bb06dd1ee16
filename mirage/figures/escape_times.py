"""Escape times: samples until a direction is found, against the dimension."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mirage.analysis.escape import escape_exponents
from mirage.figures.recovery import HIGH, LOW
from mirage.figures.style import STYLE, option_words, shades


def escape_times(dataset: xr.Dataset) -> Figure:
    """Median samples to escape by d with the 30th-70th percentiles, and fitted powers of d.

    One curve for each combination of compared options or parts. Where theory gives the escape time
    (`escape_samples_predicted`) it is dashed; d at which most seeds have not escaped are left out.
    """
    samples = dataset["escape_samples"]
    single = [k for k in samples.dims if samples.sizes[k] == 1 and k not in ("d", "seed")]
    samples = samples.squeeze(single, drop=True)
    groups = [str(dim) for dim in samples.dims if dim not in ("d", "seed")]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
        axes.set(xscale="log", yscale="log", xlabel="dimension d", ylabel="samples to escape")
        for hue, choice in enumerate(itertools.product(*(samples[g].values for g in groups))):
            place = dict(zip(groups, choice, strict=True))
            predicted = dataset.get("escape_samples_predicted")
            if predicted is not None:
                predicted = predicted.sel({k: v for k, v in place.items() if k in predicted.dims})
            words = option_words(choice)
            # Parts may have d of their own.
            one = samples.sel(place).dropna("d", how="all")
            _curve(axes, one, predicted, words, hue)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        seeds = dataset.sizes["seed"]
        title = f"median and 30th-70th percentile over {seeds} seeds; lines: power laws fitted"
        if "escape_samples_predicted" in dataset:
            title += "; dashed: ODE"
        axes.set_title(title, fontsize=8)
        return figure


def _curve(
    axes: Axes, samples: xr.DataArray, predicted: xr.DataArray | None, words: str, hue: int
) -> None:
    colour, pale = shades(hue, 3)[1:], shades(hue, 3)[0]
    found = escape_exponents(samples)
    kept = np.isfinite(found["median"]) & (found["median"] > 0)
    if not bool(kept.any()):
        axes.plot([], [], color=colour[0], label=f"{words}: no escape")
        return
    d, middle = found["d"].values[kept], found["median"].values[kept]
    spread = error_bars(samples, found["median"])[:, kept]
    axes.errorbar(d, middle, spread, fmt="o", color=colour[0], ecolor=pale)
    exponent, error = float(found["exponent"]), float(found["exponent_error"])
    if np.isfinite(exponent):
        line = np.exp(float(found["constant"])) * d.astype(float) ** exponent
        label = f"{words}: $d^{{{exponent:.2f} \\pm {error:.2f}}}$"
        axes.plot(d, line, color=colour[0], lw=1, label=label)
    if predicted is not None:
        points = predicted.dropna("d")
        axes.plot(points["d"], points, color=colour[1], ls="--", lw=1)


def error_bars(samples: xr.DataArray, median: xr.DataArray) -> Float[np.ndarray, "2 d"]:
    """From the medians down to the 30th and up to the 70th percentile, 0 where that is inf."""
    # By order alone: between a number and inf there is nothing to interpolate.
    low, high = samples.quantile([LOW, HIGH], dim="seed", method="nearest")
    lengths = np.stack([median - low, high - median])
    return np.where(np.isfinite(lengths), np.maximum(lengths, 0), 0)
