"""Full-batch steps to recovery against the logarithm of the dimension."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mirage.analysis.escape import steps_to, straight_in_log_d
from mirage.figures.escape_times import error_bars
from mirage.figures.style import STYLE, option_words, shades

LEVEL = 0.5


def log_d_steps(dataset: xr.Dataset) -> Figure:
    """The step at which cos(best) reaches 0.5, interpolated, against d on a logarithmic axis.

    Medians and 30th-70th percentiles over seeds, with the line steps = a + b log d and b with its
    standard error; one curve a combination of compared options.
    """
    steps = steps_to(dataset["cos_best_trajectory"], level=LEVEL)
    single = [k for k in steps.dims if steps.sizes[k] == 1 and k not in ("d", "seed")]
    steps = steps.squeeze(single, drop=True)
    groups = [str(k) for k in steps.dims if k not in ("d", "seed")]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.8, 3.6), layout="constrained")
        for hue, choice in enumerate(itertools.product(*(steps[g].values for g in groups))):
            one = steps.sel(dict(zip(groups, choice, strict=True)))
            colour = shades(hue, 3)[1]
            found = straight_in_log_d(one)
            median = found["median"]
            axes.errorbar(one["d"], median, error_bars(one, median), fmt="o", color=colour)
            line = found["offset"] + found["slope"] * np.log(one["d"].astype(float))
            words = option_words(choice)
            slope = f"{float(found['slope']):.2f} ± {float(found['slope_error']):.2f}"
            axes.plot(one["d"], line, color=colour, lw=1, label=f"{words}: slope {slope}")
        axes.set(xscale="log", xlabel="dimension d", ylabel=f"steps until cos(best) = {LEVEL:g}")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
        seeds = dataset.sizes["seed"]
        axes.set_title(f"median and 30th-70th percentile over {seeds} seeds", fontsize=8)
        return figure
