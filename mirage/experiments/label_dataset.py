"""What labels say of h as a labelled Dataset, for results and figures."""

import numpy as np
import xarray as xr

from mirage.channels.label_information import label_information
from mirage.channels.labels import LabelBins


def label_dataset(bins: LabelBins) -> xr.Dataset:
    """`probability`, `density` and `information` (direction, other) at every `place`.

    The coordinate `label` ascends with the place; the density of single values is NaN.
    """
    found = label_information(bins)
    places, r = found.information.shape[:2]
    columns = {
        "probability": (("place",), found.probability, "probability of the label"),
        "density": (("place",), found.density, "density of the label"),
        "information": (
            ("place", "direction", "other"),
            found.information,
            "G(y) = E[hhᵀ − I | y]",
        ),
    }
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": words, "units": "1"})
            for name, (dims, values, words) in columns.items()
        },
        coords={
            "label": ("place", found.label, {"long_name": "label y", "units": "1"}),
            "place": np.arange(places),
            "direction": np.arange(r),
            "other": np.arange(r),
        },
    )
