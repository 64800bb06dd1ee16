"""Many runs as one Dataset: each takes its place along the coordinates of all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

# What a cell holds that nobody ran, by the kind of its numbers; others become NaN.
NOTHING = {"b": False, "U": "", "S": b"", "O": ""}


def combined(runs: Sequence[xr.Dataset]) -> xr.Dataset:
    """The runs along the union of their coordinates; cells that nobody ran are NaN, False or "".

    As `xr.merge` with an outer join, in a time that grows with the cells and not with their
    square. ValueError where two runs hold different numbers for the same cell.
    """
    axes = {
        str(dim): _axis(dim, runs) for dim in dict.fromkeys(d for run in runs for d in run.dims)
    }
    places = [
        {dim: _place(axes[str(dim)], run[dim].values) for dim in run.dims if dim in run.coords}
        for run in runs
    ]
    names = dict.fromkeys(str(name) for run in runs for name in run.variables)
    whole = {name: _variable(name, runs, places, axes) for name in names if name not in axes}
    coords = {dim: _index(dim, values, runs) for dim, values in axes.items() if values is not None}
    extra = {str(name) for run in runs for name in run.coords}
    attrs = {k: v for k, v in runs[0].attrs.items() if all(_is(run.attrs, k, v) for run in runs)}
    dataset = xr.Dataset(coords=coords, attrs=attrs).assign(whole)
    return dataset.set_coords([name for name in whole if name in extra])


def _axis(dim: Any, runs: Sequence[xr.Dataset]) -> np.ndarray | None:
    """All values of a dimension: of the first run where all agree, sorted otherwise."""
    each = [run[dim].values for run in runs if dim in run.coords]
    if not each:
        return None
    if all(np.array_equal(values, each[0]) for values in each):
        return each[0]
    return np.unique(np.concatenate(each))


def _place(axis: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """Where values lie along an axis."""
    assert axis is not None
    order = np.argsort(axis, kind="stable")
    return order[np.searchsorted(axis, values, sorter=order)]


def _index(dim: str, values: np.ndarray, runs: Sequence[xr.Dataset]) -> xr.Variable:
    first = next(run for run in runs if dim in run.coords)
    return xr.Variable((dim,), values, first[dim].attrs)


def _variable(name, runs, places, axes) -> xr.Variable:
    """One variable of all runs that have it."""
    own = [
        (run.variables[name], place)
        for run, place in zip(runs, places, strict=True)
        if name in run.variables
    ]
    # The longest: a run may have a variable along a dimension that another has it not along.
    first = max((one for one, _ in own), key=lambda one: one.ndim)
    sizes = {dim: run.sizes[dim] for run in runs for dim in run.dims}
    sizes |= {dim: len(values) for dim, values in axes.items() if values is not None}
    shape = tuple(sizes[dim] for dim in first.dims)
    kind = np.result_type(*{one.dtype for one, _ in own})
    filled = np.zeros(shape, bool)
    values = np.full(shape, NOTHING.get(kind.kind, 0), kind)
    for one, place in own:
        if not set(one.dims) <= set(first.dims):
            raise ValueError(f"{name} has the dimensions {first.dims} and {one.dims}")
        along = [place.get(dim, np.arange(sizes[dim])) for dim in first.dims]
        where = np.ix_(*along)
        whole = one.set_dims({dim: len(a) for dim, a in zip(first.dims, along, strict=True)})
        new = whole.transpose(*first.dims).values
        old, there = np.asarray(values[where]), np.asarray(filled[where])
        known = _known(new)
        both = known & there
        if (new[both] != old[both]).any():
            raise ValueError(f"they differ in {name}")
        values[where] = np.where(known, new, old)
        filled[where] = known | there
    if not filled.all() and kind.kind not in NOTHING:
        values = np.where(filled, values, np.nan)
        values = values.astype(kind) if kind.kind == "f" else values
    return xr.Variable(first.dims, values, first.attrs)


def _known(values: np.ndarray) -> np.ndarray:
    """What is there, and not one that is missing."""
    if values.dtype.kind == "f":
        return ~np.isnan(values)
    return values != NOTHING["U"] if values.dtype.kind in "UO" else np.ones(values.shape, bool)


def _is(attrs: dict[str, Any], key: str, value: Any) -> bool:
    return key in attrs and bool(np.array_equal(attrs[key], value))
