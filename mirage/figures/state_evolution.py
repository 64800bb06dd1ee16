"""What AMP finds for d → ∞ and what could be found: overlaps and errors against n/d."""

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure

from mirage.figures.style import STYLE
from mirage.figures.thresholds import (
    alike,
    draw_errors,
    draw_overlaps,
    draw_thresholds,
    each_target,
    theory_handles,
)


def state_evolution(dataset: xr.Dataset) -> Figure:
    """A row a target: the overlaps Q_kk and the generalisation error, with the thresholds.

    Solid from no knowledge, as AMP starts, dashed from an informed start, light and dotted the
    Bayes-optimal ones; directions whose overlaps are the same are drawn once.
    """
    targets = each_target(dataset)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(targets),
            2,
            figsize=(8.6, 0.4 + 2.8 * len(targets)),
            layout="constrained",
            squeeze=False,
        )
        for (left, right), (name, theory) in zip(panels, targets, strict=True):
            groups = alike(theory)
            draw_overlaps(left, theory, groups)
            left.set_ylabel("overlap $Q_{kk}$")
            draw_errors(right, theory)
            right.set_ylim(bottom=0)
            known = theory.dropna("alpha", how="all")["alpha"]  # each target has its own
            low, high = float(known.min()), float(known.max())
            for axes in (left, right):
                draw_thresholds(axes, theory, low=low, high=high)
            left.set_title(name, fontsize=9, loc="left", pad=16)
            handles = theory_handles(theory, groups)
            right.legend(handles=handles, fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
        return figure
