"""Finite-size scaling: where recovery curves of different d cross, and how they collapse.

If recovery turns sharp at n/d = α_c as d grows, curves y(α, d) of a dimensionless measure cross
near α_c, and near it y(α, d) ≈ F((α − α_c) d^{1/ν}) with one function F for all d (Fisher and
Barber 1972; Privman, "Finite size scaling and numerical simulation", 1990). If recovery needs
more than O(d) samples, the curves move to larger α instead and never cross.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.optimize import minimize

from mirage.analysis.bootstrap import curves

# A crossing needs the larger d to lie below, then above the smaller, each in sum over α by this
# many standard errors.
SIGNIFICANT = 2.0


def finite_size(
    values: xr.DataArray,
    *,
    statistic: str = "mean",
    samples: int = 100,
    root_seed: int = 0,
) -> xr.Dataset:
    """Crossings, threshold and collapse of values (d, alpha, seed), errors by bootstrap over seeds.

    Of the result:

    - `curve` and `curve_error` (d, alpha): the statistic over seeds and its standard error;
    - `crossing`, `crossing_error`, `crosses` (pair): where the curves of the dimensions
      `d_small` < `d_large` next to each other cross (`crossing_of`); NaN and False where the
      larger d does not lie significantly below before and above after;
    - `alpha_c_crossings` ± `_error`: the value at 1/d → 0 of the line through the crossings
      against 1/√(d_small d_large), weighted by their errors; their weighted mean of two or one;
    - `alpha_c`, `nu`, `quality` ± `_error`: what minimises S (`collapse_quality`); NaN where
      no pair crosses, for then there is nothing to collapse around.

    Errors are standard deviations over `samples` resamples of the seeds.
    """
    table = curves(values, statistic=statistic, samples=samples, root_seed=root_seed)
    table = table.transpose("resample", "d", "alpha").sortby(["d", "alpha"])
    d, alpha = table["d"].values.astype(float), table["alpha"].values.astype(float)
    y = table.values
    error = np.maximum(y[1:].std(axis=0), 1e-12)

    difference = np.diff(y, axis=1)
    pairs = range(len(d) - 1)
    crosses = np.array([_significant(difference[:, p]) for p in pairs], bool)
    crossing = np.array([[crossing_of(alpha, one[p]) for p in pairs] for one in difference])
    crossing = np.where(crosses, crossing.reshape(len(y), len(pairs)), np.nan)
    crossing_error = _deviation(crossing[1:])
    crosses &= np.isfinite(crossing_error)

    middle = np.sqrt(d[1:] * d[:-1])
    limits = [extrapolated(middle, one, crossing_error) for one in crossing]
    fits = np.full((len(y), 3), np.nan)
    if crosses.any():
        start = np.array([np.nanmedian(crossing[0]), 2.0])
        fits[0] = collapse(d, alpha, y[0], error, start)
        fits[1:] = [collapse(d, alpha, one, error, fits[0, :2]) for one in y[1:]]
    names = ("alpha_c", "nu", "quality")
    return xr.Dataset(
        {
            "curve": (("d", "alpha"), y[0]),
            "curve_error": (("d", "alpha"), error),
            "crossing": ("pair", crossing[0]),
            "crossing_error": ("pair", crossing_error),
            "crosses": ("pair", crosses),
            "alpha_c_crossings": limits[0],
            "alpha_c_crossings_error": _deviation(np.array(limits[1:])),
            **{name: fits[0, i] for i, name in enumerate(names)},
            **{f"{name}_error": _deviation(fits[1:, i]) for i, name in enumerate(names)},
        },
        coords={
            "d": table["d"].values,
            "alpha": alpha,
            "d_small": ("pair", table["d"].values[:-1]),
            "d_large": ("pair", table["d"].values[1:]),
        },
    )


def crossing_of(alpha: Float[np.ndarray, " a"], difference: Float[np.ndarray, " a"]) -> float:
    """Where a difference D of two curves goes from negative to positive; NaN if it never does.

    Noise may make D change sign more than once: the change that is taken leaves the largest
    −Σ_before D + Σ_after D. Within it D is a line.
    """
    k = _split(difference)
    if k in (0, len(alpha)) or not np.isfinite(difference).all():
        return np.nan
    low, high = difference[k - 1], difference[k]
    return float(alpha[k - 1] - low * (alpha[k] - alpha[k - 1]) / (high - low))


def _split(difference: Float[np.ndarray, " a"]) -> int:
    """The k that maximises −Σ_{i<k} D_i + Σ_{i≥k} D_i."""
    return int(np.argmax(-np.concatenate([[0.0], np.cumsum(difference)])))


def _significant(difference: Float[np.ndarray, "samples a"]) -> bool:
    """Whether D, then its resamples, sums to less than zero before its split and to more after."""
    k = _split(difference[0])
    for sign, part in ((-1, difference[:, :k].sum(axis=1)), (1, difference[:, k:].sum(axis=1))):
        if not sign * part[0] > SIGNIFICANT * part[1:].std():
            return False
    return True


def extrapolated(
    size: Float[np.ndarray, " p"], crossing: Float[np.ndarray, " p"], error: Float[np.ndarray, " p"]
) -> float:
    """α_c of α×(d) = α_c + c/d through the crossings, weighted; their mean if fewer than three."""
    good = np.isfinite(crossing) & np.isfinite(error) & (error > 0)
    if not good.any():
        return np.nan
    weights = 1 / error[good]
    degree = 1 if good.sum() > 2 else 0
    fit = np.polynomial.polynomial.polyfit(1 / size[good], crossing[good], degree, w=weights)
    return float(fit[0])


def collapse(
    d: Float[np.ndarray, " k"],
    alpha: Float[np.ndarray, " a"],
    y: Float[np.ndarray, "k a"],
    error: Float[np.ndarray, "k a"],
    start: Float[np.ndarray, "2"],
) -> tuple[float, float, float]:
    """α_c, ν and S at the smallest S (`collapse_quality`), from a start (α_c, ν)."""

    def quality(point):
        return collapse_quality(d, alpha, y, error, alpha_c=point[0], nu=np.exp(point[1]))

    first = np.array([start[0], np.log(start[1])])
    simplex = first + np.array([[0, 0], [0.1 * abs(first[0]) + 1e-3, 0], [0, 0.3]])
    options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-4, "maxfev": 300}
    best = minimize(quality, first, method="Nelder-Mead", options=options)
    return float(best.x[0]), float(np.exp(best.x[1])), float(best.fun)


def collapse_quality(
    d: Float[np.ndarray, " k"],
    alpha: Float[np.ndarray, " a"],
    y: Float[np.ndarray, "k a"],
    error: Float[np.ndarray, "k a"],
    *,
    alpha_c: float,
    nu: float,
) -> float:
    """S = (1/N) Σ (y − Y)²/(δy² + δY²), near 1 for a good collapse, after Houdayer and Hartmann
    (2004, Phys. Rev. B 70, 014418).

    At each point x = (α − α_c) d^{1/ν} of one d, Y ± δY is the mean, weighted by the errors, of
    what linear interpolation gives there on the curves of the other d. Points that no other curve
    spans do not count; where less than half do, S is infinite.
    """
    scale = d ** (1 / nu)
    x = (alpha - alpha_c)[None] * scale[:, None]
    weight, moment = np.zeros_like(y), np.zeros_like(y)
    for k in range(len(d)):
        at = x / scale[k] + alpha_c  # where curve k has these x
        i = np.clip(np.searchsorted(alpha, at) - 1, 0, len(alpha) - 2)
        t = (at - alpha[i]) / (alpha[i + 1] - alpha[i])
        inside = (at >= alpha[0]) & (at <= alpha[-1])
        inside[k] = False
        value = (1 - t) * y[k, i] + t * y[k, i + 1]
        variance = ((1 - t) * error[k, i]) ** 2 + (t * error[k, i + 1]) ** 2
        weight += np.where(inside, 1 / variance, 0.0)
        moment += np.where(inside, value / variance, 0.0)
    used = weight > 0
    if used.sum() < used.size / 2:
        return np.inf
    master, variance = moment[used] / weight[used], 1 / weight[used]
    return float(np.mean((y[used] - master) ** 2 / (error[used] ** 2 + variance)))


def _deviation(resamples: np.ndarray) -> np.ndarray:
    """Standard deviation over resamples, those without a value left out; NaN if most are."""
    kept = np.isfinite(resamples)
    count = kept.sum(axis=0)
    mean = np.where(kept, resamples, 0).sum(axis=0) / np.maximum(count, 1)
    square = np.where(kept, (resamples - mean) ** 2, 0).sum(axis=0) / np.maximum(count - 1, 1)
    return np.where(2 * count > len(resamples), np.sqrt(square), np.nan)
