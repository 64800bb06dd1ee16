"""What the figure of a diagnosis is drawn from."""

import math

import numpy as np
import xarray as xr

from mirage.channels.optimal import made_for
from mirage.channels.preprocessing import law_of
from mirage.diagnosis.diagnosis import Diagnosis
from mirage.experiments.label_dataset import label_dataset
from mirage.theory.spectral import bulk_density, predict

# The spectrum is shown at this multiple of the loss's threshold, or of 1 where it has none.
BEYOND = 2.0
POINTS = 400


def dataset(found: Diagnosis) -> xr.Dataset:
    """Label density, G(y), the spectrum of D beyond its threshold, and all thresholds.

    Raises ValueError for a target that depends on nothing.
    """
    if found.bins is None:
        raise ValueError("the label does not depend on h: there is nothing to draw")
    information = label_dataset(found.bins)
    chosen = next(iter(found.thresholds.values()))
    slopes = law_of(made_for(found.loss, found.target), found.bins)
    # The end of the spectrum that sees the target first is shown on the right.
    if chosen.lower is not None and chosen.best == float(chosen.lower.value):
        slopes = slopes.negated()
    alpha = BEYOND * (chosen.best if math.isfinite(chosen.best) else 1.0)
    upper = predict(slopes, np.array([alpha]))
    lower = predict(slopes.negated(), np.array([alpha]))
    high = max(float(upper.edge[0]), float(upper.outlier.max()))
    low, width = -float(lower.edge[0]), high + float(lower.edge[0])
    x = np.linspace(low - 0.1 * width, high + 0.1 * width, POINTS)
    thresholds = [
        [math.nan if end is None else float(end.value) for end in (one.upper, one.lower)]
        for one in found.thresholds.values()
    ]
    return (
        information.assign(
            spectrum=("eigenvalue", bulk_density(slopes, alpha, x)),
            edge=float(upper.edge[0]),
            outlier=("direction", upper.outlier[0]),
            overlap=("direction", upper.overlap[0]),
            threshold=(("loss", "end"), np.array(thresholds)),
            alpha_c=("found", np.array([step.alpha_c for step in found.staircase])),
        )
        .assign_coords(eigenvalue=x, loss=list(found.thresholds), end=["upper", "lower"])
        .assign_attrs(found.names, alpha=alpha)
    )
