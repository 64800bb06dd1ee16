"""Full-batch GD on one batch, beside what is published and against log d, as two tables.

    python benchmarks/reused_batch.py DMFT_FOLDER STEPS_FOLDER

DMFT_FOLDER is that of a run of `reusing_batch_dmft`: M and half the error after every step, with
the distance from the simulation that the authors of arXiv 2402.03220 publish (d = 5000, n = 3d, 32
seeds) in standard errors of the difference. STEPS_FOLDER is that of a run of `log_d_steps`: the
median step at which cos(best) reaches 0.5, and its slope in log d.
"""

import argparse
import sys

import numpy as np

import mirage
from mirage.analysis.escape import steps_to, straight_in_log_d

# t: M_00, M_01, M_10, M_11 and half the error.
PUBLISHED = {
    1: (0.07572, -0.06258, -0.07569, 0.06294, 0.42017),
    2: (0.12384, -0.10184, -0.12391, 0.10223, 0.38590),
    3: (0.15618, -0.12758, -0.15637, 0.12796, 0.36828),
    4: (0.17998, -0.14607, -0.18021, 0.14645, 0.35871),
    5: (0.19887, -0.16036, -0.19898, 0.16090, 0.35335),
    6: (0.21468, -0.17219, -0.21459, 0.17286, 0.35042),
}
PUBLISHED_SEEDS = 32


def published(folder: str) -> None:
    results = mirage.load(folder)
    print(f"command:  {results.attrs['command']}")
    reused = results.isel(algorithm=0).squeeze()
    seeds = reused.sizes["seed"]
    print(f"{seeds} seeds: M00, M01, M10, M11, half the error (standard errors from the published)")
    for step, known in PUBLISHED.items():
        overlap = reused["overlap_trajectory"].sel(step=step).values.reshape(seeds, 4)
        error = reused["test_error_trajectory"].sel(step=step).values[:, None] / 2
        found = np.concatenate([overlap, error], axis=1)
        spread = found.std(axis=0, ddof=1) * np.sqrt(1 / seeds + 1 / PUBLISHED_SEEDS)
        mean = found.mean(axis=0)
        pairs = zip(mean, (mean - known) / spread, strict=True)
        print(f"  t = {step}: " + ", ".join(f"{m:.5f} ({z:+.1f})" for m, z in pairs))


def against_log_d(folder: str) -> None:
    results = mirage.load(folder)
    print(f"\ncommand:  {results.attrs['command']}")
    steps = steps_to(results["cos_best_trajectory"], level=0.5).squeeze("alpha")
    for target in steps["target"].values:
        one = steps.sel(target=target)
        line = straight_in_log_d(one)
        slope = f"{float(line['slope']):.2f} ± {float(line['slope_error']):.2f}"
        print(f"{target}: {slope} steps for a factor e in d")
        for d in one["d"].values:
            values = one.sel(d=d).values
            print(f"  d = {d}: median {np.median(values):.1f}, from {values.min():.1f} to "
                  f"{values.max():.1f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("dmft_folder")
    parser.add_argument("steps_folder")
    options = parser.parse_args()
    published(options.dmft_folder)
    against_log_d(options.steps_folder)
