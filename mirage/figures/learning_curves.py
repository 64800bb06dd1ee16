"""Which direction is learnt when: overlaps along a run, one panel a compared option."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.recovery import HIGH, LOW
from mirage.figures.style import STYLE, option_words, shades


def direction_cosines(dataset: xr.Dataset) -> xr.DataArray:
    """max over neurons of |w_j·u_k|/‖w_j‖ at every save, (..., seed, step, direction)."""
    overlap, norm = dataset["overlap_trajectory"], dataset["norm_trajectory"]
    return abs(overlap / norm.where(norm > 0)).max("neuron")


def learning_curves(dataset: xr.Dataset) -> Figure:
    """The best cosine with every direction against samples seen over d, or steps.

    A panel for each combination of compared options, a hue for each direction, a shade for each
    d: medians and 30th-70th percentiles over seeds. Dotted lines: what theory predicts.
    """
    cosines = direction_cosines(dataset)
    single = [k for k in cosines.dims if cosines.sizes[k] == 1 and k not in ("d", "direction")]
    cosines = cosines.squeeze([k for k in single if k not in ("seed", "step")], drop=True)
    groups = [str(k) for k in cosines.dims if k not in ("d", "seed", "step", "direction")]
    choices = list(itertools.product(*(cosines[g].values for g in groups)))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(choices), figsize=(1.2 + 3.0 * len(choices), 3.3),
            layout="constrained", sharey=True, squeeze=False,
        )  # fmt: skip
        for axes, choice in zip(panels[0], choices, strict=True):
            place = dict(zip(groups, choice, strict=True))
            chosen = dataset.sel({k: v for k, v in place.items() if k in dataset.dims})
            _panel(axes, chosen, cosines.sel(place))
            axes.set_title(option_words(choice).replace(", ", "\n"), fontsize=8)
        panels[0][0].set_ylabel(r"$\max_j |w_j \cdot u_k| / \|w_j\|$")
        panels[0][0].set_ylim(0, 1.02)
        panels[0][-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
        return figure


def _panel(axes: Axes, dataset: xr.Dataset, cosines: xr.DataArray) -> None:
    seen = dataset.get("samples_seen")
    for k in range(cosines.sizes["direction"]):
        colours = shades(k, cosines.sizes["d"] + 1)[1:]
        for colour, d in zip(colours, cosines["d"].values, strict=True):
            one = cosines.sel(d=d).isel(direction=k)
            x = one["step"].values if seen is None else _common(seen.sel(d=d)) / float(d)
            low, middle, high = one.quantile([LOW, 0.5, HIGH], dim="seed").values
            keep = slice(None) if seen is None else x > 0
            words = f"$u_{k + 1}$" + (f", d = {d}" if cosines.sizes["d"] > 1 else "")
            axes.fill_between(x[keep], low[keep], high[keep], color=colour, alpha=0.18, lw=0)
            axes.plot(x[keep], middle[keep], color=colour, label=words)
    if seen is not None:
        axes.set_xscale("log")
    axes.set_xlabel("steps" if seen is None else "samples seen / d")


def _common(seen: xr.DataArray) -> np.ndarray:
    """The marks of a run, the same for every seed that was not stopped."""
    return seen.max([dim for dim in seen.dims if dim != "step"]).values
