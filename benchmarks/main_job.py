"""The main job, from the shell to the figure, and against the NumPy loop of `numpy_loop.py`.

    python benchmarks/main_job.py [--rounds 3] [--seeds 2]

Every timing is a process of its own. First a cold start: an empty cache folder, so that
everything is compiled (and Matplotlib lists its fonts). Then rounds of mirage, mirage with stage
1 alone, and NumPy, one after the other, and mirage once more at the end. NumPy runs `--seeds`
seeds of every (d, n/d, loss) cell; its time is scaled to mirage's ten.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import xarray as xr
from report import Run, header, run, spread

SEEDS = 10
JOB = ("-m", "mirage", "+experiment=huber_vs_mse")
STAGE_1 = "algorithm.readout_steps=0"


@dataclass(frozen=True)
class Mirage:
    """One run of the main job: the process, and what it wrote about itself."""

    run: Run
    compile: float
    compute: float
    after_compile: float  # computing, the population errors, and the tables
    compilations: dict[str, int]
    huber_at_20: float


@dataclass(frozen=True)
class NumpyLoop:
    """One run of the NumPy loop, its seconds scaled to ten seeds."""

    run: Run
    seconds: dict[str, float]
    huber_at_20: float

    @property
    def stage_1(self) -> float:
        return self.seconds["draw"] + self.seconds["stage 1"]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def shared(self) -> float:
        """The total if both losses of a cell had used the same two draws."""
        return self.total - (self.seconds["draw"] + self.seconds["draw 2"]) / 2


def mirage(folder: Path, cache: Path, *overrides: str) -> Mirage:
    output = Path(tempfile.mkdtemp(dir=folder))
    arguments = [*JOB, f"hydra.run.dir={output}", "runtime.progress=false", *overrides]
    finished = run(arguments, {"XDG_CACHE_HOME": str(cache)})
    results = xr.load_dataset(output / "results.nc")
    attrs = results.attrs
    at_20 = results["cos_best"].sel(loss="huber", alpha=20)
    return Mirage(
        run=finished,
        compile=float(attrs["compile_time_s"]),
        compute=float(attrs["compute_time_s"]),
        after_compile=float(attrs["wall_time_s"] - attrs["compile_time_s"]),
        compilations=json.loads(attrs["compilations"]),
        huber_at_20=float(np.median(at_20)),
    )


def numpy_loop(seeds: int) -> NumpyLoop:
    finished = run([str(Path(__file__).with_name("numpy_loop.py")), f"--seeds={seeds}"])
    seen = json.loads(finished.output)
    seconds = {part: value * SEEDS / seeds for part, value in seen["seconds"].items()}
    return NumpyLoop(finished, seconds, seen["huber_at_20"])


def target(name: str, value: str, aim: str = "") -> None:
    print(f"{name:<44}{value:>16}   {aim}".rstrip())


def report_start(cold: Mirage, warm: list[Mirage]) -> None:
    print("\nfrom the shell to the figure (warm: best / median of", len(warm), "runs)")
    target("cold start, s", f"{cold.run.seconds:.1f}", "target <= 40")
    target("  of which compiling, s", f"{cold.compile:.1f}")
    target("warm start, s", spread([w.run.seconds for w in warm]), "target <= 20")
    target("  of which reading compiled code, s", spread([w.compile for w in warm]))
    target("peak memory, cold, GB", f"{cold.run.peak_gb:.2f}", "target < 1.5")
    target("peak memory, warm, GB", f"{max(w.run.peak_gb for w in warm):.2f}", "target < 1.5")
    count = ", ".join(f"{n} {kind}" for kind, n in cold.compilations.items())
    target("compilations, cold and warm", count)


def report_numpy(
    full: list[Mirage], first: list[Mirage], numpy: list[NumpyLoop], seeds: int
) -> None:
    print(f"\nseconds of each run, in order (NumPy: {seeds} seeds x {SEEDS / seeds:g})")
    print("                 stage 1 alone   both stages   cores busy with other work")
    for i, whole in enumerate(full):
        print(f"mirage, both     {'':>13}{whole.after_compile:>14.2f}{whole.run.others:>14.2f}")
        if i < len(numpy):
            one, loop = first[i], numpy[i]
            print(f"mirage, stage 1  {one.compute:>13.2f}{'':>14}{one.run.others:>14.2f}")
            print(
                f"NumPy            {loop.stage_1:>13.2f}{loop.total:>14.2f}{loop.run.others:>14.2f}"
            )
    print("\nwhere NumPy's time goes, s (best / median)")
    for part in numpy[0].seconds:
        target(f"  {part}", spread([loop.seconds[part] for loop in numpy]))
    print("\nNumPy's time over mirage's after compilation   best over best, median over median")
    rows = [
        ("both stages", [n.total for n in numpy], [m.after_compile for m in full], "target >= 5"),
        ("stage 1 alone", [n.stage_1 for n in numpy], [m.compute for m in first], ""),
        (
            "both, NumPy's losses sharing their draws",
            [n.shared for n in numpy],
            [m.after_compile for m in full],
            "",
        ),
    ]
    for name, theirs, ours, aim in rows:
        best, middle = min(theirs) / min(ours), median(theirs) / median(ours)
        target(f"  {name}", f"{best:.1f}, {middle:.1f}", aim)
    print(
        "\nmedian cos(best) of Huber at n/d = 20 over d and seeds: "
        f"mirage {full[0].huber_at_20:.3f}, NumPy {numpy[0].huber_at_20:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the NumPy loop")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mirage-benchmark-") as name:
        folder, cache = Path(name), Path(name) / "cache"
        cold = mirage(folder, cache)
        mirage(folder, cache, STAGE_1)  # compiled once, not counted
        full, first, numpy = [], [], []
        for _ in range(given.rounds):
            full.append(mirage(folder, cache))
            first.append(mirage(folder, cache, STAGE_1))
            numpy.append(numpy_loop(given.seeds))
        full.append(mirage(folder, cache))
    print(header(f"python benchmarks/main_job.py --rounds {given.rounds} --seeds {given.seeds}"))
    report_start(cold, full)
    report_numpy(full, first, numpy, given.seeds)


if __name__ == "__main__":
    main()
