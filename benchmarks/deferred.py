"""Layer-wise GD with `design=deferred`, X never drawn: large sizes, and scaling against `dense`.

    python benchmarks/deferred.py [--repeats 3] [--wait 60] [--sizes-only]

Ten steps with m = 4 at d = 20,000, 100,000 and 1,000,000 (which takes 5 GB), three with
`design=streamed` at an X of 16 GB, then `deferred` and `dense` at n = 20 d as d doubles, with
what `Design.seconds` and `Design.bytes_working` predict. Each run is a process of its own, which
repeats with other root seeds after compiling. The scaling goes to `docs/deferred_scaling.png`.
"""

import argparse
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from report import header, line, run, spread

FIGURE = Path(__file__).parents[1] / "docs" / "deferred_scaling.png"
STEPS, WIDTH, RANK = 10, 4, 2
DEFERRED = (250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000)
DENSE = (250, 500, 1000, 2000, 4000, 6000)  # X of the last one is 2.9 GB


@dataclass(frozen=True)
class Case:
    """One experiment; `cores` seeds are held at a time, one a core."""

    d: int
    n: int
    design: str = "deferred"
    seeds: int = 1
    cores: int = 1
    steps: int = STEPS
    readout_steps: int = 0
    once: bool = False  # too long to repeat


@dataclass(frozen=True)
class Measured:
    """Seconds a seed of each repetition, the first compilation, the peak of the process."""

    seconds: list[float]
    compile: float
    peak_gb: float
    cos_best: float
    others: float


SIZES = (
    ("one seed, one core, stage 1", Case(20_000, 600_000), "<= 2.4", "< 1"),
    ("one seed, one core, both stages", Case(20_000, 600_000, readout_steps=100), "<= 2.4", "< 1"),
    ("one seed, one core, stage 1", Case(100_000, 2_000_000), "<= 8", "< 2"),
    ("two seeds, two cores, stage 1", Case(100_000, 2_000_000, seeds=2, cores=2), "<= 8", "< 2"),
    (
        "two seeds, two cores, both stages",
        Case(100_000, 2_000_000, seeds=2, cores=2, readout_steps=100),
        "<= 8",
        "< 2",
    ),
    ("one seed, one core, stage 1", Case(1_000_000, 10_000_000, once=True), "", "< 14"),
    (
        "design=streamed, X of 16 GB, one seed, one core, 3 steps",
        Case(2000, 2_000_000, design="streamed", steps=3, once=True),
        "",
        "< 1",
    ),
)


def account(case: Case) -> tuple[float, int, int]:
    """Seconds a seed, bytes working and bytes drawn, by the design's own account."""
    from mirage.designs import Design

    design = Design.options()[case.design]()
    columns = {"right": RANK + WIDTH * case.steps, "left": WIDTH * case.steps}
    working = design.bytes_working(n_max=case.n, d=case.d, **columns)
    drawn = design.bytes_drawn(n_max=case.n, d=case.d)
    return design.seconds(n=case.n, d=case.d, **columns, steps=case.steps), working, drawn


def measure(case: Case, repeats: int) -> list[dict[str, float]]:
    """Timings of each repetition, in this process, which is pinned to its cores first."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-case.cores :])
    import mirage
    from mirage.algorithms import LayerwiseGd
    from mirage.designs import Design
    from mirage.runtime import Default

    timings = []
    # Of as many seeds as there are cores, with some room for what is not the design's.
    memory = f"{1.2 * case.cores * sum(account(case)[1:]) + 1e8:.0f} B"
    for root_seed in range(repeats):
        experiment = mirage.Experiment(
            algorithm=LayerwiseGd(steps=case.steps, readout_steps=case.readout_steps),
            design=Design.options()[case.design](),
            d=case.d,
            n=case.n,
            seeds=case.seeds,
            root_seed=root_seed,
            runtime=Default(progress=False, memory=memory),
        )
        results = mirage.simulate(experiment)
        timings.append(
            {
                "seconds": float(results.attrs["compute_time_s"]) / case.seeds,
                "compile": float(results.attrs["compile_time_s"]),
                "cos_best": float(results["cos_best"].median()),
            }
        )
    return timings


def process(case: Case, repeats: int, wait: float) -> Measured:
    """`measure` in a process of its own, its compilation cache empty."""
    arguments = [__file__, f"--case={json.dumps(asdict(case))}", f"--repeats={repeats}"]
    with tempfile.TemporaryDirectory(prefix="mirage-benchmark-") as cache:
        finished = run(arguments, {"XDG_CACHE_HOME": cache}, wait=wait)
    timings = json.loads(finished.output)
    return Measured(
        seconds=[t["seconds"] for t in timings],
        compile=timings[0]["compile"],
        peak_gb=finished.peak_gb,
        cos_best=median(t["cos_best"] for t in timings),
        others=finished.others,
    )


def report_sizes(repeats: int, wait: float) -> None:
    for name, case, seconds, memory in SIZES:
        seen = process(case, 1 if case.once else repeats, wait)
        print(f"\nd = {case.d:,}, n = {case.n:,}: {name}")
        line("seconds a seed, best / median", spread(seen.seconds), seconds)
        line("compiling, the first time, s", f"{seen.compile:.1f}")
        line("peak memory, compiling included, GB", f"{seen.peak_gb:.2f}", memory)
        line("cos(best), median", f"{seen.cos_best:.3f}")
        line("cores busy elsewhere", f"{seen.others:.2f}")


def report_scaling(repeats: int, wait: float) -> None:
    print("\nscaling at n = 20 d, one core, stage 1; best seconds and peak GB of the process")
    print(f"  {'design':<10}{'d':>8}{'n + d':>12}{'s':>9}{'predicted':>11}{'ratio':>7}", end="")
    print(f"{'GB':>8}{'predicted':>11}")
    curves: dict[str, list[tuple[int, float, float]]] = {}
    for design, dimensions in (("deferred", DEFERRED), ("dense", DENSE)):
        for d in dimensions:
            # Several seeds where one takes no longer than the first call of a compiled function.
            case = Case(d, 20 * d, design=design, seeds=max(1, 8000 // d))
            seen = process(case, repeats, wait)
            seconds, working, drawn = account(case)
            best, memory = min(seen.seconds), (working + drawn) / 1e9
            curves.setdefault(design, []).append((case.n + d, best, seen.peak_gb))
            print(
                f"  {design:<10}{d:>8}{case.n + d:>12}{best:>9.3f}{seconds:>11.3f}"
                f"{seconds / best:>7.2f}{seen.peak_gb:>8.2f}{memory:>11.2f}",
                flush=True,
            )
    draw(curves)


def draw(curves: dict[str, list[tuple[int, float, float]]]) -> None:
    """Seconds and memory against n + d, with a line of slope one for the eye."""
    import matplotlib.pyplot as plt

    from mirage.figures.style import STYLE, shades

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
        labels = ("seconds a seed", "peak memory of the process, GB")
        for column, (panel, label) in enumerate(zip(axes, labels, strict=True), start=1):
            for hue, (design, points) in enumerate(curves.items()):
                x, y = [p[0] for p in points], [p[column] for p in points]
                panel.loglog(x, y, marker="o", color=shades(hue, 1)[0], label=design)
            panel.set_xlabel("n + d, at n = 20 d")
            panel.set_ylabel(label)
        size, seconds, _ = curves["deferred"][-1]
        first = curves["deferred"][0][0]
        linear = [seconds * first / size, seconds]
        axes[0].loglog([first, size], linear, ":", color="grey", label="linear in n + d")
        axes[0].legend()
        figure.savefig(FIGURE)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for calm cores")
    parser.add_argument("--sizes-only", action="store_true", help="no scaling table")
    parser.add_argument("--case", help="measure this one alone, print JSON")
    given = parser.parse_args()
    if given.case is not None:
        print(json.dumps(measure(Case(**json.loads(given.case)), given.repeats)))
        return
    flags = " --sizes-only" * given.sizes_only
    command = f"python benchmarks/deferred.py --repeats={given.repeats} --wait={given.wait:g}"
    print(header(command + flags))
    print(f"m = {WIDTH}, {STEPS} steps, Huber, h_4(h1) + h_4(h2)", flush=True)
    report_sizes(given.repeats, given.wait)
    if not given.sizes_only:
        report_scaling(given.repeats, given.wait)


if __name__ == "__main__":
    main()
