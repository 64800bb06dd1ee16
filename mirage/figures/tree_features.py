"""What a three-layer network has found of a tree, step by step of its first layer."""

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.recovery import HIGH, LABELS, LOW, sample_axis
from mirage.figures.style import STYLE, axis_label, shades

NEEDED = ("found_trajectory", "inside_trajectory", "feature_overlap_trajectory")


def tree_features(dataset: xr.Dataset) -> Figure:
    """Left, the linear features: how much of the directions lies in the leading span of W1, and
    dashed how much of W1 in theirs; middle, the non-linear ones: the squared correlation of h_i,
    averaged over branches, with the second layer; right, the error.

    Against steps on the first layer, a shade for each sample size: medians over seeds with
    30th-70th percentiles. Of several d the last is drawn.
    """
    missing = [name for name in NEEDED if name not in dataset]
    if missing:
        raise ValueError(
            "figure=tree_features: expected algorithm=three_layer with algorithm.every_step=true; "
            f"the results lack {', '.join(missing)}"
        )
    x = sample_axis(dataset)
    dataset = dataset.isel(d=-1)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(11.8, 3.3), layout="constrained")
        for colour, value in zip(shades(0, dataset.sizes[x]), dataset[x].values, strict=True):
            cell, words = dataset.sel({x: value}), f"{axis_label(x)} = {value:g}"
            _curve(panels[0], cell["found_trajectory"], colour)
            _curve(panels[0], cell["inside_trajectory"], colour, style="--")
            _curve(panels[1], cell["feature_overlap_trajectory"].mean("feature"), colour)
            _curve(panels[2], cell["test_error_trajectory"], colour, words)
        panels[0].set_ylabel("linear features; dashed: share of $W_1$")
        panels[1].set_ylabel("non-linear features: squared correlation")
        panels[2].set_ylabel(LABELS["test_error"])
        for axes in panels:
            axes.set_xlabel("steps on the first layer")
            axes.set_ylim(bottom=0)
        for axes in panels[:2]:
            axes.set_ylim(0, 1.02)
        panels[2].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
        seeds, d = dataset.sizes["seed"], int(dataset["d"])
        words = f"d = {d}; median, 30th-70th percentile over {seeds} seeds"
        figure.suptitle(words, fontsize=8)
        return figure


def _curve(
    axes: Axes,
    values: xr.DataArray,
    colour: tuple[float, ...],
    words: str | None = None,
    *,
    style: str = "-",
) -> None:
    values = values.squeeze([k for k in values.dims if k not in ("seed", "step")], drop=True)
    low, middle, high = values.quantile([LOW, 0.5, HIGH], dim="seed").values
    axes.fill_between(values["step"], low, high, color=colour, alpha=0.18, lw=0)
    axes.plot(values["step"], middle, color=colour, ls=style, label=words)
