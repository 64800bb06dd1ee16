"""What labels say of h: G(y) = E[hhᵀ − I | y], a panel a target."""

import math

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure

from mirage.figures.diagnosis import label_information as entries
from mirage.figures.style import STYLE


def label_information(dataset: xr.Dataset) -> Figure:
    """The entries of G(y) that do not vanish, against y, with alpha_c over each panel."""
    targets = dataset["target"].values if "target" in dataset.information.dims else [None]
    columns = min(3, len(targets))
    rows = math.ceil(len(targets) / columns)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            rows,
            columns,
            figsize=(0.6 + 2.6 * columns, 0.4 + 2.4 * rows),
            layout="constrained",
            squeeze=False,
        )
        for axes, target in zip(panels.ravel(), targets, strict=False):
            chosen = dataset if target is None else dataset.sel(target=target)
            known = chosen.dropna("place", subset=["probability"])
            for axis in ("direction", "other"):  # as many as the target has
                known = known.dropna(axis, how="all", subset=["information"])
            known = known.set_coords("label")
            entries(axes, known)
            alpha_c = float(chosen.alpha_c)
            value = "∞" if math.isinf(alpha_c) else f"{alpha_c:.3g}"
            axes.set_title(f"{'' if target is None else target}, $\\alpha_c$ = {value}", fontsize=8)
        for axes in panels.ravel()[len(targets) :]:
            axes.set_axis_off()
        return figure
