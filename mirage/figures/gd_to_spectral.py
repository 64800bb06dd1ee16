"""Gradient descent with small steps beside the spectral estimator that it tends to."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mirage.figures.recovery import HIGH, LOW
from mirage.figures.style import STYLE, shades


def gd_to_spectral(dataset: xr.Dataset) -> Figure:
    """cos(best) of GD against the time step size × steps, one curve a step size, and as a line that
    of the spectral estimator; medians and 30th-70th percentiles over seeds.
    """
    dataset = dataset.isel(d=-1, alpha=-1)
    names = [str(name) for name in dataset["algorithm"].values]
    descents = [name for name in names if "step_size" in name]
    estimates = [name for name in names if name.startswith("spectral")]
    if not descents or not estimates:
        raise ValueError("figure=gd_to_spectral: expected algorithms with a step_size and spectral")
    curves = dataset["cos_best_trajectory"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
        for name, colour in zip(descents, shades(0, len(descents)), strict=True):
            size = float(name.split("step_size=")[1].split(",")[0].rstrip(")"))
            one = curves.sel(algorithm=name).dropna("step", how="all")
            low, middle, high = one.quantile([LOW, 0.5, HIGH], dim="seed").values
            time = size * np.asarray(one["step"], np.float64)
            axes.fill_between(time, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(time, middle, color=colour, label=f"GD, step size {size:g}")
        level = dataset["cos_best"].sel(algorithm=estimates[0]).median("seed")
        axes.axhline(float(level), color="0.3", ls="--", label="spectral estimator")
        axes.set(xlabel="step size × steps", ylabel="cos(best)", ylim=(0, 1.02))
        axes.legend(fontsize=8)
        words = f"d = {int(dataset['d'])}, n/d = {float(dataset['alpha']):g}"
        axes.set_title(f"{words}, {dataset.sizes['seed']} seeds", fontsize=8)
        return figure
