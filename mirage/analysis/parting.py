"""Where gradient descent and power iteration part."""

import numpy as np
import xarray as xr

THRESHOLD = 0.1


def parting(dataset: xr.Dataset, *, threshold: float = THRESHOLD) -> xr.Dataset:
    """The norm of the GD iterate where its distance from the power iterate first exceeds a value.

    With D_t = ‖W_t − P_t‖/‖P_t‖ and N_t = max_j ‖w_j‖ after step t, and s the first step with
    D_s > `threshold`, log N is interpolated between steps s − 1 and s at equal log D. Takes
    `distance_trajectory` (..., step) and `norm_trajectory` (..., step, neuron); gives
    `parting_norm` (...), NaN where they do not part.
    """
    distance = dataset["distance_trajectory"].transpose(..., "step")
    norm = dataset["norm_trajectory"].max("neuron", skipna=False).transpose(*distance.dims)
    d, n = (np.asarray(a.values, np.float64) for a in (distance, norm))
    above = d > threshold
    step = above.argmax(axis=-1)[..., None]
    parts = above.any(axis=-1) & (step[..., 0] > 0)

    def at(values, place):
        floor = np.finfo(np.float64).tiny  # D_0 = 0
        return np.log(np.maximum(np.take_along_axis(values, place, -1)[..., 0], floor))

    before = np.maximum(step - 1, 0)
    d0, d1, n0, n1 = at(d, before), at(d, step), at(n, before), at(n, step)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.log(threshold) - d0) / (d1 - d0)
        found = np.where(parts, np.exp(n0 + share * (n1 - n0)), np.nan)
    words = f"max_j |w_j| of the GD iterate where |W - P|/|P| = {threshold:g}"
    attrs = {"long_name": words, "units": "1"}
    return xr.Dataset({"parting_norm": distance.isel(step=0, drop=True).copy(data=found)}).assign(
        parting_norm=lambda x: x["parting_norm"].assign_attrs(attrs)
    )
