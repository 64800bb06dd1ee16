"""The main job, from the shell to the figure, and against the NumPy loop of `numpy_loop.py`.

    python benchmarks/main_job.py [--rounds 5] [--seeds 2] [--wait 60]

Every timing is a process of its own. First a cold start: an empty cache folder, so that
everything is compiled (and Matplotlib lists its fonts). Then rounds of mirage, mirage with stage
1 alone, and NumPy, one after the other, and mirage once more at the end. NumPy runs `--seeds`
seeds of every (d, n/d, loss) cell; its time is scaled to mirage's ten.

Each process waits up to `--wait` seconds for calm cores. Timings during which other work kept
more than a tenth of a core busy are printed but left out of the medians and ratios (unless all
were disturbed): BLAS threads that wait for each other spin, so NumPy suffers most from company.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import xarray as xr
from report import CALM, Run, header, line, run, spread

SEEDS = 10
JOB = ("-m", "mirage", "+experiment=huber_vs_mse", "runtime.progress=false")
STAGE_1 = "algorithm.readout_steps=0"


@dataclass(frozen=True)
class Mirage:
    """One run of the main job: the process, and what it wrote about itself, in seconds."""

    run: Run
    compile: float
    compute: float
    after_compile: float  # computing, the population errors and the tables
    compilations: dict[str, int]
    huber_at_20: float


@dataclass(frozen=True)
class NumpyLoop:
    """One run of the NumPy loop: the process, and seconds in each part, scaled to ten seeds."""

    run: Run
    parts: dict[str, float]
    huber_at_20: float

    @property
    def stage_1(self) -> float:
        return self.parts["draw"] + self.parts["stage 1"]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def shared(self) -> float:
        """The total if both losses of a cell had used the same two draws."""
        return self.total - (self.parts["draw"] + self.parts["draw 2"]) / 2


Timing = TypeVar("Timing", Mirage, NumpyLoop)


def mirage(folder: Path, wait: float, *overrides: str) -> Mirage:
    """The main job as a subprocess, its compilation cache in `folder`."""
    output = tempfile.mkdtemp(dir=folder)
    arguments = [*JOB, f"hydra.run.dir={output}", *overrides]
    finished = run(arguments, {"XDG_CACHE_HOME": str(folder / "cache")}, wait=wait)
    results = xr.load_dataset(Path(output) / "results.nc")
    attrs = results.attrs
    return Mirage(
        run=finished,
        compile=float(attrs["compile_time_s"]),
        compute=float(attrs["compute_time_s"]),
        after_compile=float(attrs["wall_time_s"] - attrs["compile_time_s"]),
        compilations=json.loads(attrs["compilations"]),
        huber_at_20=float(np.median(results["cos_best"].sel(loss="huber", alpha=20))),
    )


def numpy_loop(seeds: int, wait: float) -> NumpyLoop:
    """The NumPy loop as a subprocess."""
    script = str(Path(__file__).with_name("numpy_loop.py"))
    finished = run([script, f"--seeds={seeds}"], wait=wait)
    seen = json.loads(finished.output)
    parts = {part: seconds * SEEDS / seeds for part, seconds in seen["seconds"].items()}
    return NumpyLoop(finished, parts, seen["huber_at_20"])


def calm(timings: list[Timing]) -> list[Timing]:
    """The undisturbed timings, or all if none was left alone."""
    return [t for t in timings if t.run.others < CALM] or timings


def report_start(cold: Mirage, warm: list[Mirage]) -> None:
    count = ", ".join(f"{n} {kind}" for kind, n in cold.compilations.items())
    print(f"\nfrom the shell to the figure (warm: best / median of {len(warm)})")
    line("cold start, s", f"{cold.run.seconds:.1f}", "<= 40")
    line("  of which compiling, s", f"{cold.compile:.1f}")
    line("warm start, s", spread([w.run.seconds for w in warm]), "<= 20")
    line("  of which tracing and reading the cache, s", spread([w.compile for w in warm]))
    line("peak memory, cold, GB", f"{cold.run.peak_gb:.2f}", "< 1.5")
    line("peak memory, warm, GB", f"{max(w.run.peak_gb for w in warm):.2f}", "< 1.5")
    line("compilations", count)


def report_runs(timings: list[tuple[str, Mirage | NumpyLoop]]) -> None:
    print("\nevery run in order, s: after compilation, and the whole process")
    print(f"  {'':<18}{'stage 1':>10}{'both':>10}{'process':>10}{'cores busy elsewhere':>24}")
    for name, timing in timings:
        if isinstance(timing, NumpyLoop):
            stage_1, both = f"{timing.stage_1:.2f}", f"{timing.total:.2f}"
        elif name == "mirage, stage 1":
            stage_1, both = f"{timing.compute:.2f}", ""
        else:
            stage_1, both = "", f"{timing.after_compile:.2f}"
        process, others = f"{timing.run.seconds:.2f}", f"{timing.run.others:.2f}"
        print(f"  {name:<18}{stage_1:>10}{both:>10}{process:>10}{others:>24}")


def report_ratios(full: list[Mirage], first: list[Mirage], loops: list[NumpyLoop]) -> None:
    print("\nwhere NumPy's time goes, s, scaled to ten seeds (best / median)")
    for part in loops[0].parts:
        line(part, spread([loop.parts[part] for loop in loops]))
    both = [m.after_compile for m in full]
    alone = [m.compute for m in first]
    rows = [
        ("both stages", [n.total for n in loops], both, ">= 6"),
        ("stage 1 alone", [n.stage_1 for n in loops], alone, ""),
        ("both, if NumPy's losses shared their draws", [n.shared for n in loops], both, ""),
    ]
    counts = f"{len(loops)} NumPy, {len(full)} mirage, {len(first)} stage 1 alone"
    print(f"\nNumPy's time over mirage's, best over best / median over median ({counts})")
    for name, theirs, ours, target in rows:
        best, middle = min(theirs) / min(ours), median(theirs) / median(ours)
        line(name, f"{best:.1f} / {middle:.1f}", target)
    print("\nthe same answer: cos(best) of Huber at n/d = 20, median over d and seeds")
    line("mirage, NumPy", f"{full[0].huber_at_20:.3f}, {loops[0].huber_at_20:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the NumPy loop")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for calm cores")
    given = parser.parse_args()
    print(
        header(
            "python benchmarks/main_job.py "
            + " ".join(f"--{k}={v:g}" for k, v in vars(given).items())
        ),
        flush=True,
    )
    timings: list[tuple[str, Mirage | NumpyLoop]] = []
    full, first, loops = [], [], []
    with tempfile.TemporaryDirectory(prefix="mirage-benchmark-") as name:
        folder = Path(name)
        cold = mirage(folder, given.wait)
        mirage(folder, 0, STAGE_1)  # so that it is compiled; not counted
        for _ in range(given.rounds):
            full.append(mirage(folder, given.wait))
            first.append(mirage(folder, given.wait, STAGE_1))
            loops.append(numpy_loop(given.seeds, given.wait))
            timings += [("mirage", full[-1]), ("mirage, stage 1", first[-1])]
            timings += [(f"NumPy, {given.seeds} seeds", loops[-1])]
        full.append(mirage(folder, given.wait))
    report_start(cold, calm(full))
    report_runs([("mirage, cold", cold), *timings, ("mirage", full[-1])])
    report_ratios(calm(full), calm(first), calm(loops))


if __name__ == "__main__":
    main()
