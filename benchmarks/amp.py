"""Bayes-AMP against the scripts of `amp_scripts.py`, and what its theory and its figures take.

    python benchmarks/amp.py [--rounds 5] [--wait 60] [--skip-large]

One iteration for the parity sign(h1 h2) at d = 500, n/d = 3, in turns: mirage alone (one seed) and
in a batch of seeds, two NumPy iterations with a channel for all samples at once (the script's
quadrature by a fixed rule, and a closed form), and once the script that takes a sample at a time.
Then the experiment `parity_transition` at its defaults from the shell; curves of state evolution,
compilation included, in a process of their own; and AMP on an X of 100,000 columns that is never
stored.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from amp_scripts import (
    closed_form_iteration,
    scripted_iteration,
    seconds,
    start,
    vectorised_iteration,
)
from report import header, line, run

STEPS, SEEDS = 40, 32
ITERATIONS = """
import json, sys
from mirage import Experiment, simulate
from mirage.algorithms import Amp
from mirage.designs import Dense
from mirage.runtime import Default
from mirage.targets import Parity
steps, seeds = int(sys.argv[1]), int(sys.argv[2])
algorithm = Amp(start="informed", start_overlap=0.3, steps=steps, tolerance=0.0)
quiet = Default(progress=False)
problem = {"target": Parity(), "design": Dense(), "d": 500, "alpha": 3.0}
results = simulate(Experiment(**problem, algorithm=algorithm, seeds=seeds, runtime=quiet))
print(json.loads(results.attrs["times_s"])["train"] / float(results.steps_taken.sum()))
"""
CURVE = """
import sys, time
start = time.perf_counter()
import numpy as np
from mirage.channels.registry import channel_of
from mirage.targets import Parity, Staircase, GrandStaircase, PhaseRetrieval
from mirage.theory.overlap_curves import curve
target, low, high, count = eval(sys.argv[1])(), *map(float, sys.argv[2:])
imported = time.perf_counter()
found = curve(channel_of(target), np.linspace(low, high, int(count)))
print(time.perf_counter() - imported, imported - start, int(found.converged.all()))
"""
CURVES = [
    ("Parity", "2", "6", "40", 5),
    ("PhaseRetrieval", "0.4", "1.5", "40", 5),
    ("Staircase", "0.4", "5", "40", 60),
    ("GrandStaircase", "0.4", "5", "40", 60),
]
LARGE = (
    "-m", "mirage", "target=phase_retrieval", "algorithm=amp", "algorithm.start=random",
    "algorithm.start_length=0.3", "design=deferred", "d=100000", "alpha=1.5", "exponent=null",
    "seeds=1", "runtime.progress=false",
)  # fmt: skip


def once(steps: int, seeds: int, wait: float) -> float:
    """Seconds of one iteration of one seed, after compilation."""
    return float(run(["-c", ITERATIONS, str(steps), str(seeds)], wait=wait).output)


def iterations(rounds: int, wait: float) -> None:
    print("\nmilliseconds an iteration and seed, d = 500, n/d = 3: best / median")
    problem = start(np.random.default_rng(0), 500, 1500, 0.5)
    numpy = {"NumPy, fixed rule": vectorised_iteration, "NumPy, closed form": closed_form_iteration}
    taken: dict[str, list[float]] = {name: [] for name in ("one seed", f"{SEEDS} seeds", *numpy)}
    for _ in range(rounds):
        taken["one seed"].append(once(400, 1, wait))
        taken[f"{SEEDS} seeds"].append(once(STEPS, SEEDS, wait))
        for name, step in numpy.items():
            taken[name].append(statistics.median(seconds(step, problem, 20)))
    scripted = seconds(scripted_iteration, problem, 1)[0]
    for name, values in taken.items():
        line(name, f"{1e3 * min(values):.2f} / {1e3 * statistics.median(values):.2f}")
    line("one sample at a time (once)", f"{1e3 * scripted:.0f}")
    batch = statistics.median(taken[f"{SEEDS} seeds"])
    line("script / mirage in a batch", f"{scripted / batch:.0f}", "1000")
    for name, target in zip(numpy, ("10", ""), strict=True):
        ratio = statistics.median(taken[name]) / batch
        line(f"{name} / mirage in a batch", f"{ratio:.1f}", target)


def experiment(wait: float) -> None:
    print("\n+experiment=parity_transition at its defaults: d = 500, 72 seeds, 12 n/d, 200 steps")
    with tempfile.TemporaryDirectory() as folder:
        job = ["-m", "mirage", "+experiment=parity_transition", f"hydra.run.dir={folder}"]
        done = run([*job, "runtime.progress=false"], wait=wait)
        results = xr.load_dataset(Path(folder) / "results.nc")
    line("seconds from the shell to the figure", f"{done.seconds:.0f}", "300")
    line("of these compiling", f"{results.attrs['compile_time_s']:.0f}")
    line("peak memory, GB", f"{done.peak_gb:.1f}")


def curves(wait: float) -> None:
    print("\ncurves of state evolution, compilation included, seconds after imports")
    for name, low, high, count, limit in CURVES:
        done = run(["-c", CURVE, name, low, high, count], wait=wait)
        taken, imports, converged = done.output.split()
        words = f"{count} n/d from {low} to {high}"
        settled = "all converged" if converged == "1" else "NOT ALL CONVERGED"
        line(
            f"{name}, {words}",
            f"{float(taken):.1f}",
            f"{limit}; imports {float(imports):.1f} s, {settled}",
        )


def large(wait: float) -> None:
    print("\nAMP on h² with design=deferred, d = 100,000, n/d = 1.5, one seed, from a random start")
    with tempfile.TemporaryDirectory() as folder:
        done = run([*LARGE, f"hydra.run.dir={folder}"], wait=wait)
        results = xr.load_dataset(Path(folder) / "results.nc")
    steps = float(results.steps_taken.squeeze())
    times = json.loads(results.attrs["times_s"])
    line("seconds from the shell to the figure", f"{done.seconds:.0f}")
    line("seconds a step", f"{times['train'] / steps:.1f}")
    line("steps, overlap", f"{steps:.0f}, {abs(float(results.overlap.squeeze())):.4f}")
    line("peak memory, GB", f"{done.peak_gb:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait", type=float, default=60)
    parser.add_argument("--skip-large", action="store_true")
    options = parser.parse_args()
    skipped = " --skip-large" if options.skip_large else ""
    words = f"--rounds {options.rounds} --wait {options.wait:g}{skipped}"
    print(header(f"python benchmarks/amp.py {words}"))
    iterations(options.rounds, options.wait)
    curves(options.wait)
    experiment(options.wait)
    if not options.skip_large:
        large(options.wait)


if __name__ == "__main__":
    main()
