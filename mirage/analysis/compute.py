"""What recovery costs: from curves against n to curves against gradients and operations."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from mirage.analysis.bootstrap import curves

COSTS = ("gradient_evaluations", "flops")


def cost_to_reach(
    dataset: xr.Dataset,
    *,
    level: float = 0.8,
    measure: str = "cos_best",
    samples: int = 400,
    root_seed: int = 0,
) -> xr.Dataset:
    """The cost at which the median of a measure reaches a level, for each d, and how it grows.

    `dataset` has the measure (..., d, sample size, seed) and the costs `gradient_evaluations`
    and `flops` (..., d, sample size). Of the result, for each cost C with the options compared
    as leading dimensions:

    - C, C_low, C_high (..., d): where the median over seeds comes to stay at or above the level
      (`reached`), with the 16th and 84th percentile over `samples` resamples of the seeds; NaN
      where it is not reached within the grid, or from its first point on;
    - C_slope, C_prefactor, C_slope_error (...): the least-squares fit of log C = log prefactor +
      slope log d, the error a standard deviation over the resamples.

    With n = O~(d) samples and O(n d) operations a step, arXiv 2511.15120 has O~(d²) operations,
    slope 2 up to logarithms, and O~(d) gradient evaluations, slope 1.
    """
    size = next(kind for kind in ("alpha", "exponent", "n") if kind in dataset[measure].dims)
    table = curves(dataset[measure], samples=samples, root_seed=root_seed).sortby(size)
    others = [str(dim) for dim in table.dims if dim not in ("resample", "d", size)]
    d = table["d"].values.astype(float)
    result = xr.Dataset(attrs={"level": level, "measure": measure})
    for name in COSTS:
        cost, y = xr.broadcast(dataset[name].sortby(size), table)
        order = (*others, "resample", "d", size)
        cost, y = cost.transpose(*order).values, y.transpose(*order).values
        found = np.array(
            [reached(c, v, level) for c, v in zip(_rows(cost), _rows(y), strict=True)]
        ).reshape(cost.shape[:-1])
        fits = np.array([power_law(d, one) for one in _rows(found)]).reshape(*found.shape[:-1], 2)
        here = (*others, "d")
        low, high = _percentiles(found[..., 1:, :], axis=-2)
        result[name] = (here, found[..., 0, :])
        result[f"{name}_low"], result[f"{name}_high"] = (here, low), (here, high)
        result[f"{name}_slope"] = (others, fits[..., 0, 0])
        result[f"{name}_prefactor"] = (others, np.exp(fits[..., 0, 1]))
        down, up = _percentiles(fits[..., 1:, 0], axis=-1)
        result[f"{name}_slope_error"] = (others, (up - down) / 2)
    coords = {one: dataset[one] for one in (*others, "d")}
    return result.assign_coords(coords)


def reached(cost: Float[np.ndarray, " s"], y: Float[np.ndarray, " s"], level: float) -> float:
    """The cost from which y stays at or above a level: y a line in log cost between two points.

    NaN if the last point lies below, or if no point does.
    """
    finite = np.isfinite(y)
    cost, y = cost[finite], y[finite]
    below = np.flatnonzero(y < level)
    if len(below) == 0 or below[-1] == len(y) - 1:
        return np.nan
    k = below[-1]
    t = (level - y[k]) / (y[k + 1] - y[k])
    return float(np.exp((1 - t) * np.log(cost[k]) + t * np.log(cost[k + 1])))


def power_law(d: Float[np.ndarray, " k"], cost: Float[np.ndarray, " k"]) -> tuple[float, float]:
    """Slope and intercept of log cost against log d, by least squares; NaN below two points."""
    good = np.isfinite(cost)
    if good.sum() < 2:
        return np.nan, np.nan
    slope, intercept = np.polyfit(np.log(d[good]), np.log(cost[good]), 1)
    return float(slope), float(intercept)


def _rows(values: Float[np.ndarray, "*cells s"]) -> Float[np.ndarray, "rows s"]:
    return values.reshape(-1, values.shape[-1])


def _percentiles(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """16th and 84th percentile, NaN where a half or more of the values is missing."""
    missing = 2 * np.isnan(values).sum(axis=axis) >= values.shape[axis]
    filled = np.where(np.expand_dims(missing, axis), 0.0, values)
    low, high = np.nanquantile(filled, [0.16, 0.84], axis=axis)
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)
