"""Recovery from inputs that are not Gaussian, beside the Gaussian curve."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mirage.figures.recovery import sample_axis
from mirage.figures.style import STYLE, axis_label

LOW, HIGH = 0.3, 0.7
# Okabe and Ito's colours, apart for colour-blind readers, and a marker each.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vP"
REFERENCE = "gaussian"


def universality(dataset: xr.Dataset) -> Figure:
    """Median cos(best) over seeds against the sample size, a curve for each of the `inputs`.

    The Gaussian curve, which theory speaks of, is black with its 30th-70th percentile band; the
    others have bars of the same percentiles. Of several d the last is drawn.
    """
    x = sample_axis(dataset)
    values = dataset["cos_best"]
    values = values.isel({dim: -1 for dim in values.dims if dim not in ("inputs", x, "seed")})
    if "inputs" not in values.dims:
        values = values.expand_dims("inputs")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
        others = 0
        for name in values["inputs"].values:
            curve = values.sel(inputs=name).dropna(x, how="all")
            low, middle, high = curve.quantile([LOW, 0.5, HIGH], dim="seed").values
            points = np.asarray(curve[x].values, np.float64)
            if name == REFERENCE:
                style = {"color": "black", "lw": 2.2, "marker": "o", "zorder": 3}
                axes.fill_between(points, low, high, color="black", alpha=0.15, linewidth=0)
                axes.plot(points, middle, label=f"{name} (theory's inputs)", **style)
                continue
            style = {"color": COLOURS[others % 6], "marker": MARKERS[(others + 1) % 6], "lw": 1.2}
            bars = [middle - low, high - middle]
            axes.errorbar(points, middle, bars, elinewidth=0.7, label=str(name), **style)
            others += 1
        axes.set_xlabel(axis_label(x))
        axes.set_ylabel("cos(best)")
        axes.set_ylim(0, 1.02)
        axes.legend(title="inputs", fontsize=8, title_fontsize=8)
        seeds = dataset.sizes["seed"]
        axes.set_title(
            f"d = {int(values['d'])}; median and 30th-70th percentile over {seeds} seeds",
            fontsize=8,
        )
        return figure
