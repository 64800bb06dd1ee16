"""One batch used again: what the second step on it sees that the first cannot."""

import itertools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.style import STYLE, option_words, shades

# Colours of the start and of every step.
STEP_HUES = (4, 0, 1, 2, 3, 5)
BINS = 31


def reusing_batch(dataset: xr.Dataset) -> Figure:
    """The law of the neurons' cosine with u_1 at the start and after every step, at the last d.

    Histograms over neurons and seeds, one panel a combination of compared options, with the mean
    after each step and its standard error; the grey line is N(0, 1/d), a random neuron.
    """
    overlap, norm = dataset["overlap_trajectory"], dataset["norm_trajectory"]
    cosine = (overlap / norm).isel(d=-1, direction=0)
    own = ("seed", "neuron", "step")
    single = [k for k in cosine.dims if cosine.sizes[k] == 1 and k not in own]
    cosine = cosine.squeeze(single, drop=True)
    groups = [str(k) for k in cosine.dims if k not in own]
    choices = list(itertools.product(*(cosine[g].values for g in groups)))
    d = float(dataset["d"].values[-1])
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(choices), figsize=(1.0 + 3.0 * len(choices), 3.2),
            layout="constrained", squeeze=False,
        )  # fmt: skip
        for axes, choice in zip(panels[0], choices, strict=True):
            _laws(axes, cosine.sel(dict(zip(groups, choice, strict=True))), d)
            axes.set(xlabel=r"$w \cdot u_1 / \|w\|$", ylabel="density")
            axes.set_title(option_words(choice), fontsize=8)
            axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        return figure


def _laws(axes: Axes, cosine: xr.DataArray, d: float) -> None:
    """Histograms step by step, on bins that all of them share."""
    every = cosine.values[np.isfinite(cosine.values)]
    low, high = every.min(), every.max()
    edges = np.linspace(low - 0.05 * (high - low), high + 0.05 * (high - low), BINS)
    for hue, step in zip(STEP_HUES, cosine["step"].values, strict=False):
        flat = cosine.sel(step=step).values.ravel()
        flat = flat[np.isfinite(flat)]
        mean, error = flat.mean(), flat.std() / np.sqrt(len(flat))
        words = f"{step} step{'' if step == 1 else 's'}: mean {mean:.3f} ± {error:.3f}"
        axes.hist(flat, edges, density=True, histtype="step", color=shades(hue, 3)[1], label=words)
        axes.axvline(mean, color=shades(hue, 3)[1], lw=0.8, ls=":")
    x = np.linspace(edges[0], edges[-1], 400)
    axes.plot(x, np.sqrt(d / (2 * np.pi)) * np.exp(-d * x**2 / 2), color="0.6", lw=0.8)


def reusing_batch_dmft(dataset: xr.Dataset) -> Figure:
    """Overlaps of every neuron with both directions, and half the error, step by step.

    Means over seeds with a band of one standard deviation, at the last d and the smallest alpha;
    a hue for each batch (reused, or fresh at every step).
    """
    chosen = dataset.isel(alpha=0) if "alpha" in dataset.dims else dataset
    chosen = chosen.isel(d=-1)
    overlap, error = chosen["overlap_trajectory"], chosen["test_error_trajectory"] / 2
    groups = [str(k) for k in error.dims if k not in ("seed", "step")]
    labels = (r"$w_j \cdot u_1$", r"$w_j \cdot u_2$", r"$\frac{1}{2} E(f - g)^2$")
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(10.0, 3.2), layout="constrained")
        choices = itertools.product(*(error[g].values for g in groups))
        for hue, choice in enumerate(choices):
            place = dict(zip(groups, choice, strict=True))
            words = option_words(choice)
            for j, k in itertools.product(range(overlap.sizes["neuron"]), (0, 1)):
                one = overlap.sel(place).isel(
                    neuron=j, direction=min(k, overlap.sizes["direction"] - 1)
                )
                _band(panels[k], one, shades(hue, 3)[1 + j % 2], f"{words}, neuron {j}")
            _band(panels[2], error.sel(place), shades(hue, 3)[1], words)
        for axes, label in zip(panels, labels, strict=True):
            axes.set(xlabel="steps", ylabel=label)
            axes.legend(fontsize=7)
        return figure


def _band(axes: Axes, values: xr.DataArray, colour: Any, words: str) -> None:
    middle, spread = values.mean("seed"), values.std("seed")
    steps = values["step"].values
    axes.fill_between(steps, middle - spread, middle + spread, color=colour, alpha=0.2, lw=0)
    axes.plot(steps, middle, color=colour, marker="o", label=words)
