"""What the smallest sample sizes of a search say: their trend with d, and the theorem's."""

import numpy as np
import xarray as xr
from scipy.special import ndtri


def searched(dataset: xr.Dataset) -> str:
    """What a search was over: `exponent`, `alpha` or `n`; ValueError if there was none."""
    names = [str(v).removesuffix("_min") for v in dataset if str(v).endswith("_min")]
    if not names:
        raise ValueError("expected the results of a search, with exponent_min, alpha_min or n_min")
    return names[0]


def trend(dataset: xr.Dataset) -> xr.Dataset:
    """Slope of the smallest exponent (or alpha, n) against log d, by weighted least squares.

    The weight of a point is 1/s², s its interval's half-width in standard deviations of a
    normal law. `slope` and its standard error `slope_error`, for every setup and threshold;
    NaN where fewer than three sizes were found.
    """
    over, confidence = searched(dataset), dataset.attrs["confidence"]
    parts = [dataset[f"{over}_min{end}"] for end in ("", "_low", "_high")]
    x = np.log(dataset["d"].values)

    def fit(value, low, high):
        sigma = (high - low) / 2 / ndtri((1 + confidence) / 2)
        good = np.isfinite(value) & np.isfinite(sigma) & (sigma > 0)
        if good.sum() < 3:
            return np.nan, np.nan
        weight = 1 / sigma[good] ** 2
        centred = x[good] - np.average(x[good], weights=weight)
        spread = (weight * centred**2).sum()
        return (weight * centred * value[good]).sum() / spread, spread**-0.5

    slope, error = xr.apply_ufunc(
        fit, *parts, input_core_dims=[["d"]] * 3, output_core_dims=[[], []], vectorize=True
    )
    return xr.Dataset({"slope": slope, "slope_error": error})


def theorem_samples(d: np.ndarray, steps: np.ndarray, condition_number: float) -> np.ndarray:
    """d log d · T1² κ^{2 T1} + d^{1 + 1/T1} κ², the n of Theorem 1 up to a constant.

    arXiv 2511.15120; `steps` is T1 ≥ 1, `condition_number` κ. Arrays broadcast.
    """
    d, steps = np.asarray(d, float), np.asarray(steps, float)
    noise = d * np.log(d) * steps**2 * condition_number ** (2 * steps)
    return noise + d ** (1 + 1 / steps) * condition_number**2
