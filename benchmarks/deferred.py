"""Layer-wise GD at d = 20,000 and n = 600,000 on one core, X (48 GB) never drawn.

    python benchmarks/deferred.py [--repeats 5]

One seed, m = 4, ten steps, `design=deferred`; stage 1 alone and with stage 2, each in a process
of its own, which repeats the run with other root seeds after compiling.
"""

import argparse
import json
import os
import time

from report import header, run, spread

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
        start = time.perf_counter()
        results = mirage.simulate(experiment)
        timings.append(
            {
                "wall": time.perf_counter() - start,
                "compute": float(results.attrs["compute_time_s"]),
                "compile": float(results.attrs["compile_time_s"]),
                "cos_best": float(results["cos_best"].squeeze()),
            }
        )
    return timings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--readout-steps", type=int, help="measure this one alone, print JSON")
    given = parser.parse_args()
    if given.readout_steps is not None:
        print(json.dumps(measure(given.readout_steps, given.repeats)))
        return
    print(header(f"python benchmarks/deferred.py --repeats {given.repeats}"))
    print(f"\nd = {D}, n = {ALPHA * D}, m = 4, {STEPS} steps, Huber, h_4(h1) + h_4(h2), one core")
    for name, readout_steps in (("stage 1", 0), (f"and {READOUT_STEPS} of stage 2", READOUT_STEPS)):
        arguments = [__file__, f"--readout-steps={readout_steps}", f"--repeats={given.repeats}"]
        finished = run(arguments)
        timings = json.loads(finished.output)
        seconds = [t["compute"] for t in timings]
        cosines = [t["cos_best"] for t in timings]
        print(f"\n{name}")
        print(f"  seconds a seed, best / median   {spread(seconds)}   target <= 2.5")
        print(f"  each repetition                 {', '.join(f'{s:.2f}' for s in seconds)}")
        print(f"  compiling, the first time       {timings[0]['compile']:.1f}")
        print(f"  peak memory, GB                 {finished.peak_gb:.2f}   target < 1")
        print(f"  cos(best)                       {', '.join(f'{c:.3f}' for c in cosines)}")
        print(f"  cores busy with other work      {finished.others:.2f}")


if __name__ == "__main__":
    main()
