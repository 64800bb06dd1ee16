"""The weighted error of a run of `hierarchical_scaling_law` on its prediction, as a table.

    python benchmarks/scaling_laws.py FOLDER

For each link and n/d: mean and standard error over seeds, the prediction for d → ∞ and the one at
n/(d − m⋆), the dimensions that the noise of an eigenvector has, with how many standard errors lie
between; features found (median) and predicted. Then the slopes of both over the last two decades.
"""

import argparse
import sys

import numpy as np

import mirage


def table(folder: str) -> None:
    results = mirage.load(folder).squeeze("d")
    print(f"command:  {results.attrs['command']}")
    d, count = int(results["d"]), results.sizes["direction"]
    for part in results["part"].values:
        one = results.sel(part=part)
        alphas, x = one["alpha"].values, np.log(one["alpha_theory"].values)
        curve = np.log(one["weighted_mse_predicted"].values)
        predicted = np.exp(np.interp(np.log(alphas), x, curve))
        corrected = np.exp(np.interp(np.log(alphas * d / (d - count)), x, curve))
        error = one["weighted_mse"]
        seeds = int(error.count("seed").max())
        mean = error.mean("seed").values
        deviation = error.std("seed", ddof=1).values / np.sqrt(seeds)
        found = one["features_found"].median("seed").values
        visible = (one["feature_threshold"].values[:, None] < alphas).sum(axis=0)
        print(f"\n{part}, {seeds} seeds")
        print("  n/d     mean      s.e.      d -> inf  n/(d-m)   sigma  found  predicted")
        rows = zip(alphas, mean, deviation, predicted, corrected, found, visible, strict=True)
        for alpha, m, s, p, c, k, v in rows:
            print(f"  {alpha:<7g} {m:<9.5f} {s:<9.5f} {p:<9.5f} {c:<9.5f} {(m - c) / s:<6.1f} "
                  f"{k:<6g} {v}")  # fmt: skip
        last = alphas >= alphas[-1] / 100
        slopes = [
            np.polyfit(np.log(alphas[last]), np.log(v[last]), 1)[0] for v in (mean, predicted)
        ]
        print(f"  slope over the last two decades: {slopes[0]:.3f}, predicted {slopes[1]:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("folder")
    table(parser.parse_args().folder)
