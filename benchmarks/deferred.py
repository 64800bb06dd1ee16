"""Layer-wise GD at d = 20,000 and n = 600,000 on one core, X (48 GB) never drawn.

    python benchmarks/deferred.py [--repeats 5] [--wait 60]

One seed, m = 4, ten steps, `design=deferred`; stage 1 alone and with stage 2, each in a process
of its own, which repeats the run with other root seeds after compiling.
"""

import argparse
import json
import os
import tempfile
from statistics import median

from report import header, line, run, spread

D, ALPHA, STEPS, READOUT_STEPS = 20_000, 30, 10, 100


def measure(readout_steps: int, repeats: int) -> list[dict[str, float]]:
    """Timings of each repetition, in this process, which is pinned to one core first."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import mirage
    from mirage.algorithms import LayerwiseGd
    from mirage.designs import Deferred
    from mirage.runtime import Default

    timings = []
    for root_seed in range(repeats):
        experiment = mirage.Experiment(
            algorithm=LayerwiseGd(steps=STEPS, readout_steps=readout_steps),
            design=Deferred(),
            d=D,
            alpha=ALPHA,
            seeds=1,
            root_seed=root_seed,
            runtime=Default(progress=False),
        )
        results = mirage.simulate(experiment)
        timings.append(
            {
                "compute": float(results.attrs["compute_time_s"]),
                "compile": float(results.attrs["compile_time_s"]),
                "cos_best": float(results["cos_best"].squeeze()),
            }
        )
    return timings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for calm cores")
    parser.add_argument("--readout-steps", type=int, help="measure this one alone, print JSON")
    given = parser.parse_args()
    if given.readout_steps is not None:
        print(json.dumps(measure(given.readout_steps, given.repeats)))
        return
    command = f"python benchmarks/deferred.py --repeats={given.repeats} --wait={given.wait:g}"
    print(header(command))
    print(f"\nd = {D}, n = {ALPHA * D}, m = 4, {STEPS} steps, Huber, h_4(h1) + h_4(h2), one core")
    for name, readout_steps in (("stage 1", 0), ("both stages", READOUT_STEPS)):
        arguments = [__file__, f"--readout-steps={readout_steps}", f"--repeats={given.repeats}"]
        with tempfile.TemporaryDirectory(prefix="mirage-benchmark-") as cache:
            finished = run(arguments, {"XDG_CACHE_HOME": cache}, wait=given.wait)
        timings = json.loads(finished.output)
        print(f"\n{name}")
        line("seconds a seed, best / median", spread([t["compute"] for t in timings]), "<= 2.5")
        line("each repetition", ", ".join(f"{t['compute']:.2f}" for t in timings))
        line("compiling, the first time, s", f"{timings[0]['compile']:.1f}")
        line("peak memory, compiling included, GB", f"{finished.peak_gb:.2f}", "< 1")
        line("cos(best), median", f"{median(t['cos_best'] for t in timings):.3f}")
        line("cores busy elsewhere", f"{finished.others:.2f}")


if __name__ == "__main__":
    main()
