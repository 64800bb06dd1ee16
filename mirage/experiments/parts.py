"""Several experiments as one result: grids that differ in more than a grid can say."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from mirage.experiments.experiment import SAMPLES, Experiment

# Attributes that add up over parts.
SECONDS = ("wall_time_s", "compute_time_s", "compile_time_s")


def joined(results: Mapping[str, xr.Dataset], parts: Mapping[str, Experiment]) -> xr.Dataset:
    """The results of all parts along the dimension `part`, NaN where a part has no such cell.

    A sample axis of one value in every part goes, and `n` stays: parts may have their own.
    """
    several = any(len(part.sample_values) > 1 for part in parts.values())
    sets = [result if several else _without_samples(result) for result in results.values()]
    index = xr.DataArray(list(results), dims="part", name="part")
    index.attrs = {"long_name": "part of the experiment", "units": "1"}
    varying = [name for name in sets[0].data_vars if any(name in other for other in sets)]
    whole = xr.concat(
        sets, dim=index, join="outer", combine_attrs="override", data_vars="all", coords="minimal",
        compat="override",
    )  # fmt: skip
    whole = whole[[*varying, *(name for name in whole.data_vars if name not in varying)]]
    for flag in ("diverged", "failed"):  # neither is a cell that a part does not have
        if flag in whole:
            whole[flag] = (whole[flag] == 1).assign_attrs(whole[flag].attrs)
    return whole.assign_attrs(_attributes([result.attrs for result in results.values()]))


def _without_samples(result: xr.Dataset) -> xr.Dataset:
    kinds = [kind for kind in SAMPLES if kind in result.dims]
    result = result.squeeze(kinds, drop="n" not in kinds)
    return result.reset_coords("n") if "n" in result.coords else result


def _attributes(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Those of the first, with times added up and the plan of every part."""
    first = dict(each[0])
    failures = [one for attrs in each for one in json.loads(attrs.get("failures", "[]"))]
    if failures:
        first["failures"] = json.dumps(failures)
    for key in SECONDS:
        if key in first:
            first[key] = round(float(np.sum([attrs[key] for attrs in each])), 3)
    if "times_s" in first:
        times = [json.loads(attrs["times_s"]) for attrs in each]
        first["times_s"] = json.dumps({k: round(sum(t[k] for t in times), 3) for k in times[0]})
        counts = [json.loads(attrs["compilations"]) for attrs in each]
        first["compilations"] = json.dumps({k: sum(c[k] for c in counts) for k in counts[0]})
        first["plan"] = json.dumps([json.loads(attrs["plan"]) for attrs in each])
    return first
