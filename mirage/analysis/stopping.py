"""The best number of steps."""

import numpy as np
import xarray as xr


def best_steps(
    dataset: xr.Dataset,
    *,
    y: str = "subspace_cosine_trajectory",
    level: float = 0.9,
    resamples: int = 1000,
) -> xr.Dataset:
    """The step at which the median of `y` over seeds is largest, with a bootstrap interval.

    T* = argmax_t median_s y(t, s), the first of equals. The seeds, n_s of them, are drawn n_s
    times with replacement `resamples` times over (by a fixed key); `best_step_low` and
    `best_step_high` are the (1 ∓ `level`)/2 quantiles of the T* found. Takes `y` (..., step,
    seed), which counts as 0 where it is NaN; gives `best_step` (...) with its interval and
    `best_value` (...), the median at T*.
    """
    values = dataset[y].transpose(..., "step", "seed").fillna(0.0)
    seeds = values.sizes["seed"]
    picks = np.random.default_rng(0).integers(seeds, size=(resamples, seeds))
    steps = dataset["step"].values
    numbers = np.asarray(values.values)
    median = np.median(numbers, axis=-1)
    # One resample at a time: trajectories times resamples need not fit in memory.
    drawn = np.stack([steps[np.median(numbers[..., p], axis=-1).argmax(axis=-1)] for p in picks])
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(drawn, ends, axis=0, method="nearest")
    cell = [dim for dim in values.dims if dim not in ("step", "seed")]
    coords = {dim: dataset[dim] for dim in cell if dim in dataset.coords}
    words = f"of a {level:.0%} bootstrap interval of the best step"
    return xr.Dataset(
        {
            "best_step": (cell, steps[median.argmax(axis=-1)], _words(f"argmax of the median {y}")),
            "best_step_low": (cell, low, _words(f"lower end {words}")),
            "best_step_high": (cell, high, _words(f"upper end {words}")),
            "best_value": (cell, median.max(axis=-1), _words(f"largest median {y}")),
        },
        coords=coords,
    )


def _words(long_name: str) -> dict[str, str]:
    return {"long_name": long_name, "units": "1"}


def root_log_prefactor(best_step: xr.DataArray) -> xr.DataArray:
    """c in T* ≈ c √(log d) by least squares over d: c = Σ_d T* √(log d) / Σ_d log d.

    √(log d) is how the number of steps grows that balances the two terms of the sample size in
    Theorem 1 of arXiv 2511.15120, d κ^{2T} and d^{1 + 1/T}. Takes T* (..., d), gives c (...).
    """
    d = best_step["d"]
    root = d.copy(data=np.sqrt(np.log(d.values)))
    return (best_step * root).sum("d") / (root**2).sum("d")
