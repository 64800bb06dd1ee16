"""What an accelerator makes of mirage: whole experiments, and a GD step against its memory.

    python benchmarks/accelerator.py [--limit 60] [--jobs "NAME;NAME"] [--folder PATH]

Every experiment is a process of its own with an empty compilation cache, given up after
`--limit` seconds; its results stay in `--folder`. The main job runs on the machine's CPU too, and
both answers are compared cell by cell: seeds draw the same numbers on every kind of device, so what
is left is rounding, amplified by the dynamics. Last, the step of `gd_step.py` with 16 seeds of X
(20,000 × 1000, float32) against what the memory can copy.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from report import header, line

NODE = "runtime=gpu_node"
LARGE = ["+experiment=huber_vs_mse", NODE]
JOBS = {
    "huber_vs_mse": ["+experiment=huber_vs_mse"],
    "huber_vs_mse, d = 2000, 5000": [*LARGE, "d=[2000,5000]"],
    "huber_vs_mse, d = 100,000": [
        "+experiment=huber_vs_mse",
        "d=100000",
        NODE,
        "runtime.seeds_at_once=5",
    ],
    "parity_transition": ["+experiment=parity_transition"],
    "repeated_data": ["+experiment=repeated_data"],
    "hierarchical_scaling_law": ["+experiment=hierarchical_scaling_law", NODE],
    "depth_advantage_accelerator": ["+experiment=depth_advantage_accelerator"],
}
SEEDS, N, D = 16, 20_000, 1000
FEW, MANY = 4, 104  # steps


def job(folder: Path, overrides: list[str], limit: float, **environment: str) -> str:
    """Run one experiment into `folder`; why it has no result, if it has none."""
    cache = tempfile.mkdtemp(prefix="mirage-cache-")
    command = [sys.executable, "-X", "faulthandler", "-m", "mirage", *overrides]
    process = subprocess.Popen(
        [*command, f"hydra.run.dir={folder}", "runtime.progress=false"],
        env={**os.environ, "XDG_CACHE_HOME": cache, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it says where it is before it leaves
        output, errors = process.communicate()
        where = [x.strip() for x in errors.splitlines() if "/mirage/" in x][:6]
        return "\n    ".join([f"not done after {limit:g} s", *output.splitlines()[-3:], *where])
    return "" if process.returncode == 0 else "\n".join(errors.splitlines()[-12:])


def report_jobs(root: Path, names: list[str], limit: float) -> None:
    print("\nfrom the shell, s: whole process, of which compiling, of which computing")
    for name in names:
        folder = root / name.replace(", ", "-").replace(" = ", "").replace(",", "_")
        start = time.perf_counter()
        failed = job(folder, JOBS[name], limit)
        seconds = time.perf_counter() - start
        if failed:
            print(f"  {name:<34}{failed}", flush=True)
            continue
        attrs = xr.open_dataset(folder / "results.nc").attrs
        times = f"{seconds:.1f}, {attrs['compile_time_s']:.1f}, {attrs['compute_time_s']:.1f}"
        line(name, times)
        sys.stdout.flush()


def report_agreement(root: Path, limit: float) -> None:
    """The main job on the CPU of the same machine, beside what the accelerator answered."""
    if not (root / "huber_vs_mse" / "results.nc").exists():
        return
    failed = job(root / "cpu", JOBS["huber_vs_mse"], 4 * limit, JAX_PLATFORMS="cpu")
    if failed:
        print(failed)
        return
    here, there = (xr.open_dataset(root / name / "results.nc") for name in ("huber_vs_mse", "cpu"))
    print("\nthe main job against the same on this machine's CPU")
    line("computing on the CPU, s", f"{there.attrs['compute_time_s']:.1f}")
    for variable in ("cos_best", "test_error"):
        a, b = here[variable], there[variable]
        line(f"{variable}: median distance", f"{float(np.abs(a - b).median()):.1e}")
        line(f"{variable}: largest distance", f"{float(np.abs(a - b).max()):.1e}")
        middle = np.abs(a.median("seed") - b.median("seed"))
        line(f"{variable}: largest distance of medians", f"{float(middle.max()):.1e}")


def report_step(rounds: int) -> None:
    """Bytes that a step has to read, over its time, as a share of what a copy moves."""
    import jax
    import jax.numpy as jnp
    from gd_step import timed, training

    from mirage.algorithms import LayerwiseGd
    from mirage.designs import Dense
    from mirage.losses import Huber, Mse

    many = jnp.ones((1 << 30,), jnp.float32)
    copy = jax.jit(lambda x: x + 1).lower(many).compile()
    times = [timed(lambda: copy(many).block_until_ready()) for _ in range(rounds + 1)]
    bandwidth = 2 * many.nbytes / min(times)
    print(f"\na GD step of {SEEDS} seeds, X of {N} x {D}")
    line("bytes copied a second, TB/s", f"{bandwidth / 1e12:.2f}")
    for words, losses in (("one loss", Huber()), ("two losses", {"mse": Mse(), "huber": Huber()})):
        seconds = {}
        for steps in (FEW, MANY):
            algorithm = LayerwiseGd(steps=steps, readout_steps=0)
            settings = {"loss": losses, "algorithm": algorithm, "design": Dense()}
            train = training(**settings, d=D, n=N, seeds=SEEDS)
            seconds[steps] = min(timed(train) for _ in range(rounds))
        step = (seconds[MANY] - seconds[FEW]) / (MANY - FEW)
        share = 4 * SEEDS * N * D / step / bandwidth
        line(f"{words}: ms a step", f"{1e3 * step:.2f}")
        line(f"{words}: X once, share of the bandwidth", f"{share:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=float, default=60.0, help="seconds an experiment may take")
    parser.add_argument("--jobs", default="all", help="names of experiments, separated by ;")
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    root = given.folder or Path(tempfile.mkdtemp(prefix="mirage-accelerator-"))
    names = [n for n in JOBS if given.jobs == "all" or n in given.jobs.split(";")]
    print(header("python benchmarks/accelerator.py"), flush=True)
    report_jobs(root, names, given.limit)
    if "huber_vs_mse" in names:
        report_agreement(root, given.limit)
    import jax

    print(f"\ndevice: {jax.device_count()} x {jax.devices()[0].device_kind}")
    report_step(5)


if __name__ == "__main__":
    main()
