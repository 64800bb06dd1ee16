"""Escape times against the dimension: how many samples until a direction is found."""

import numpy as np
import xarray as xr

from mirage.analysis.bootstrap import curves

RESAMPLES = 400


def escape_exponents(samples: xr.DataArray, *, resamples: int = RESAMPLES) -> xr.Dataset:
    """The power of d by which median escape times grow, and whether there is a logarithm in it.

    `samples` is (..., d, seed), inf where a seed has not escaped. By least squares over the d at
    which more than half of the seeds have:

        log n = constant + exponent · log d,        n/d = offset + log_slope · log d,

    each with the standard deviation over resamples of the seeds (`exponent_error`,
    `log_slope_error`); NaN where fewer than two d are left. `median` (..., d) is what was fitted.
    """
    found = curves(samples, samples=resamples)
    medians = found.isel(resample=0, drop=True)
    log_d = _log(found["d"].astype(float))
    fitted = found.where(np.isfinite(medians))
    exponents, constants = _line(log_d, _log(fitted))
    slopes, _ = _line(log_d, fitted / fitted["d"].astype(float))
    points = medians.where(np.isfinite(medians)).count("d")

    def whole(values):
        return values.isel(resample=0, drop=True)

    def error(values):
        # A resample in which some d has no finite median has no line.
        return values.isel(resample=slice(1, None)).std("resample", skipna=True).where(points > 1)

    named = {
        "median": (medians, "median samples to escape"),
        "exponent": (whole(exponents), "exponent of d in the median escape time"),
        "exponent_error": (error(exponents), "its standard error"),
        "constant": (whole(constants), "log of the prefactor"),
        "log_slope": (whole(slopes), "slope of n/d in log d"),
        "log_slope_error": (error(slopes), "its standard error"),
    }
    return xr.Dataset(
        {k: v.assign_attrs(long_name=words, units="1") for k, (v, words) in named.items()}
    )


def steps_to(curve: xr.DataArray, *, level: float) -> xr.DataArray:
    """The step at which a curve (..., step) first reaches a level, linear in between.

    inf where it never does, NaN where it is lost before.
    """
    curve = curve.transpose(..., "step")
    flat = curve.values.reshape(-1, curve.sizes["step"])
    found = np.full(len(flat), np.inf)
    for run, values in enumerate(flat):
        above = np.flatnonzero(values >= level)
        if not np.isfinite(values[: above[0]] if len(above) else values).all():
            found[run] = np.nan
        elif len(above):
            k = above[0]
            share = 1.0 if k == 0 else (level - values[k - 1]) / (values[k] - values[k - 1])
            found[run] = k - 1 + share
    return curve.isel(step=0, drop=True).copy(data=found.reshape(curve.shape[:-1]))


def straight_in_log_d(steps: xr.DataArray, *, resamples: int = RESAMPLES) -> xr.Dataset:
    """steps = offset + slope · log d for the medians over seeds (`median`) of (..., d, seed).

    `slope_error` is the standard deviation of the slope over resamples of the seeds.
    """
    found = curves(steps, samples=resamples)
    slopes, offsets = _line(_log(found["d"].astype(float)), found)
    error = slopes.isel(resample=slice(1, None)).std("resample")
    return xr.Dataset(
        {
            "median": found.isel(resample=0, drop=True),
            "slope": slopes.isel(resample=0, drop=True),
            "offset": offsets.isel(resample=0, drop=True),
            "slope_error": error,
        }
    )


def _log(values: xr.DataArray) -> xr.DataArray:
    with np.errstate(divide="ignore"):
        return values.copy(data=np.log(values.values))


def _line(x: xr.DataArray, y: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Slope and constant of y against x over d, by least squares over finite points."""
    y = y.where(np.isfinite(y))
    x = x.where(y.notnull())
    centre_x, centre_y = x.mean("d"), y.mean("d")
    spread = ((x - centre_x) ** 2).sum("d")
    slope = ((x - centre_x) * (y - centre_y)).sum("d") / spread.where(spread > 0)
    return slope, centre_y - slope * centre_x
