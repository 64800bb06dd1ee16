"""Statistics over seeds and their resamples."""

import numpy as np
import xarray as xr
from jaxtyping import Float


def curves(
    values: xr.DataArray, *, statistic: str = "median", samples: int = 0, root_seed: int = 0
) -> xr.DataArray:
    """Mean or median over seeds (`resample` = 0), then over `samples` resamples of the seeds.

    Seeds are drawn with replacement, the same ones in every cell but those of different d, which
    share no random numbers. Cells that diverged (NaN) are left out.
    """
    average = {"mean": np.nanmean, "median": np.nanmedian}[statistic]
    values = values.transpose("d", ..., "seed")
    rng = np.random.default_rng(root_seed)
    seeds = values.sizes["seed"]
    picked = rng.integers(seeds, size=(samples, values.sizes["d"], seeds))
    picked = np.concatenate([np.broadcast_to(np.arange(seeds), (1, *picked.shape[1:])), picked])
    with np.errstate(invalid="ignore"):
        averaged = [
            np.stack(
                [_average(average, one.values[..., p]) for one, p in zip(values, row, strict=True)]
            )
            for row in picked
        ]
    dims = ("resample", *values.dims[:-1])
    return xr.DataArray(np.stack(averaged), dims=dims, coords=values.isel(seed=0, drop=True).coords)


def _average(average, values: Float[np.ndarray, "*cells seeds"]) -> Float[np.ndarray, "*cells"]:
    empty = np.asarray(np.isnan(values).all(axis=-1))
    return np.where(empty, np.nan, average(np.where(empty[..., None], 0.0, values), axis=-1))
