"""The weighted error of runs of `hierarchical_scaling_law` on its prediction, as tables.

    python benchmarks/scaling_laws.py FOLDER [FOLDER ...]

Of the first run, for each link and n/d: mean and standard error over seeds, the prediction for
d → ∞ and the one at n/(d − m⋆), the dimensions that the noise of an eigenvector has, with how many
standard errors lie between; features found (median) and predicted. Then the slopes of both over
the last two decades. Of the others, in a line for each n/d, how far the mean is from the
prediction at n/(d − m⋆): what d does to it, and what the choice of features.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

import mirage


def opened(folder: Path) -> xr.Dataset:
    """A run; one of a single part is called by its link."""
    results = mirage.load(folder).squeeze("d")
    if "part" in results.dims:
        return results
    return results.expand_dims(part=[yaml.safe_load(results.attrs["config"])["target"]["link"]])


def table(results: xr.Dataset) -> None:
    for part in results["part"].values:
        one = results.sel(part=part)
        alphas, (predicted, corrected) = one["alpha"].values, predictions(one)
        mean, error, seeds = statistics(one)
        found = one["features_found"].median("seed").values
        visible = (one["feature_threshold"].values[:, None] < alphas).sum(axis=0)
        print(f"\n{part}, {seeds} seeds")
        print("  n/d     mean      s.e.      d -> inf  n/(d-m)   sigma  found  predicted")
        rows = zip(alphas, mean, error, predicted, corrected, found, visible, strict=True)
        for alpha, m, s, p, c, k, v in rows:
            sigma = f"{(m - c) / s:.1f}" if s > 0 else "-"
            print(f"  {alpha:<7g} {m:<9.5f} {s:<9.5f} {p:<9.5f} {c:<9.5f} {sigma:<6} {k:<6g} {v}")
        last = alphas >= alphas[-1] / 100
        slopes = [
            np.polyfit(np.log(alphas[last]), np.log(v[last]), 1)[0] for v in (mean, predicted)
        ]
        print(f"  slope over the last two decades: {slopes[0]:.3f}, predicted {slopes[1]:.3f}")


def predictions(one: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The predicted curve at n/d and at n/(d − m⋆)."""
    d, count = int(one["d"]), one.sizes["direction"]
    x = np.log(one["alpha_theory"].values)
    curve = np.log(one["weighted_mse_predicted"].values)
    at = one["alpha"].values
    return tuple(np.exp(np.interp(np.log(a), x, curve)) for a in (at, at * d / (d - count)))


def statistics(one: xr.Dataset) -> tuple[np.ndarray, np.ndarray, int]:
    error = one["weighted_mse"]
    seeds = int(error.count("seed").max())
    return error.mean("seed").values, error.std("seed", ddof=1).values / np.sqrt(seeds), seeds


def lines(results: xr.Dataset) -> None:
    select = yaml.safe_load(results.attrs["config"])["algorithm"]["select"]
    for part in results["part"].values:
        one = results.sel(part=part)
        mean, error, seeds = statistics(one)
        expected = predictions(one)[1]
        where = f"{part}, select={select}, {seeds} seeds"
        for alpha, m, s, p in zip(one["alpha"].values, mean, error, expected, strict=True):
            away = f"{m / p - 1:+.1%} ± {s / p:.1%}"
            print(f"  d = {int(one['d']):<6} n/d = {alpha:<6g} {away:<18} {where}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", type=Path)
    first, *others = (opened(folder) for folder in parser.parse_args().folders)
    print("made by python -m mirage +experiment=hierarchical_scaling_law")
    print(f"on      {first.attrs['device']}, {json.loads(first.attrs['versions'])}")
    table(first)
    if others:
        print("\nmean over prediction at n/(d - m), less one")
        for other in others:
            lines(other)
