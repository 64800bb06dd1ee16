"""One gradient step on a stored X: mirage, NumPy and PyTorch against the memory's read bandwidth.

    python benchmarks/gd_step.py [--rounds 7] [--wait 60] [--torch-python PATH]

Ten seeds of X (10,000 × 500, float32: 200 MB in all), m = 4, cosine, two cores. mirage runs its
own experiment; its time a step is the difference between 44 steps and 4. NumPy is
`numpy_loop.py`, one seed after the other. PyTorch is the same step on all seeds at once, or one
after the other, in several orders of its products, of which the best counts. `--torch-python`
names an interpreter that has PyTorch; without one its lines are left out.

Last, a whole stage 1 at d = 5000, n = 100,000: NumPy draws X (2 GB), mirage never does.

Every contender is a process that waits for its turn; a round lets each measure itself once. A
turn waits up to `--wait` seconds for calm cores. Turns during which other work kept more than a
tenth of a core busy are left out, unless all of a contender's were disturbed: NumPy and PyTorch,
whose threads spin while they wait for each other, suffer most from company.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from report import CALM, busy_seconds, header, line, spread, wait_until_calm

SEEDS, N, D, M = 10, 10_000, 500, 4
FEW, MANY = 4, 44  # steps
LARGE_D, LARGE_ALPHA, LARGE_STEPS, LARGE_SEEDS = 5000, 20, 10, 4
Measure = Callable[[], dict[str, float]]  # seconds by name


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def bandwidth(_: int) -> Measure:
    """Seconds to read 1 GB with two threads, in a few forms."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    halves = np.ones((2, 125_000_000), np.float32)
    pool = ThreadPoolExecutor(2)
    forms = {"sum": np.sum, "max": np.max, "dot": lambda x: np.dot(x, x)}

    def measure():
        return {
            name: min(timed(lambda form=form: list(pool.map(form, halves))) for _ in range(5))
            for name, form in forms.items()
        }

    return measure


def training(**settings) -> Callable[[], object]:
    """A function that trains all seeds of an experiment again; X is drawn and the rest compiled."""
    from mirage import Experiment
    from mirage.experiments.execute import Executor
    from mirage.runtime import Default

    runtime = Default(progress=False, memory="8 GB", compilation_cache="off")
    runtime.configure()
    executor = Executor(Experiment(runtime=runtime, **settings))
    ((batch, cells),) = executor.plan.batches

    def train():
        return list(executor.run(batch, cells))

    train()
    return train


def mirage_step(_: int) -> Measure:
    from mirage.algorithms import LayerwiseGd
    from mirage.designs import Dense
    from mirage.losses import Huber, Mse

    losses = {"one": {"huber": Huber()}, "two": {"mse": Mse(), "huber": Huber()}}
    runs = {
        (name, steps): training(
            loss=loss,
            algorithm=LayerwiseGd(steps=steps, readout_steps=0),
            design=Dense(),
            d=D,
            n=N,
            seeds=SEEDS,
        )
        for name, loss in losses.items()
        for steps in (FEW, MANY)
    }

    def measure():
        seconds = {key: timed(run) for key, run in runs.items()}
        return {k: (seconds[k, MANY] - seconds[k, FEW]) / (MANY - FEW) for k in losses}

    return measure


def mirage_large(_: int) -> Measure:
    from mirage.algorithms import LayerwiseGd
    from mirage.designs import Deferred
    from mirage.losses import Huber

    run = training(
        loss=Huber(),
        algorithm=LayerwiseGd(steps=LARGE_STEPS, readout_steps=0),
        design=Deferred(),
        d=LARGE_D,
        n=LARGE_ALPHA * LARGE_D,
        seeds=LARGE_SEEDS,
    )
    return lambda: {"large": timed(run) / LARGE_SEEDS}


def numpy_step(_: int) -> Measure:
    import numpy_loop

    numpy_loop.T1, numpy_loop.T2 = MANY - FEW, 0

    def measure():
        clocks = [numpy_loop.run_cell(D, N / D, "huber", seed)[2] for seed in range(SEEDS)]
        return {"numpy": sum(clock.seconds["stage 1"] for clock in clocks) / numpy_loop.T1}

    return measure


def numpy_large(_: int) -> Measure:
    import numpy_loop

    numpy_loop.T1, numpy_loop.T2 = LARGE_STEPS, 0

    def measure():
        seconds = numpy_loop.run_cell(LARGE_D, LARGE_ALPHA, "huber", 0)[2].seconds
        return {"draw": seconds["draw"], "stage 1": seconds["stage 1"]}

    return measure


def torch_step(_: int) -> Measure:
    import torch

    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    x, y = torch.randn(SEEDS, N, D), torch.randn(SEEDS, N)
    w, a = 1e-3 * torch.randn(SEEDS, M, D), torch.tensor([1.0, 1.0, -1.0, -1.0])

    def pull(z, y):  # z (..., n, m)
        residual = (torch.cos(z) @ a - y).clamp(-1, 1)
        return residual[..., None] * a * -torch.sin(z) / N

    def pull_rows_last(z, y):  # z (..., m, n)
        residual = (a @ torch.cos(z) - y).clamp(-1, 1)
        return residual[..., None, :] * a[:, None] * -torch.sin(z) / N

    def one_by_one(x, w):
        return torch.stack([pull(x[s] @ w[s].T, y[s]).T @ x[s] for s in range(SEEDS)])

    w_columns, x_columns = w.mT.contiguous(), x.mT.contiguous()
    forms = {
        "bmm, W (d, m)": lambda: x.mT @ pull(x @ w_columns, y),
        "bmm, W (m, d)": lambda: pull(x @ w.mT, y).mT @ x,
        "bmm, W (m, d), rows last": lambda: pull_rows_last(w @ x.mT, y) @ x,
        "bmm, X stored (d, n)": lambda: pull_rows_last(w @ x_columns, y) @ x_columns.mT,
        "one seed after the other": lambda: one_by_one(x, w),
    }
    steps = 8

    def measure():
        return {
            name: timed(lambda form=form: [form() for _ in range(steps)]) / steps
            for name, form in forms.items()
        }

    measure()
    return measure


WORKERS = {
    f.__name__: f
    for f in (bandwidth, mirage_step, mirage_large, numpy_step, numpy_large, torch_step)
}


def work(name: str, rounds: int) -> None:
    """Say when ready, then measure once for each line read: seconds by name, cores of others."""
    measure = WORKERS[name](rounds)
    print("ready", flush=True)
    for _ in sys.stdin:
        busy, own, start = busy_seconds(), time.process_time(), time.perf_counter()
        seconds = measure()
        others = busy_seconds() - busy - (time.process_time() - own)
        print(json.dumps([seconds, others / (time.perf_counter() - start)]), flush=True)


@contextmanager
def worker(
    name: str, rounds: int, python: str = sys.executable
) -> Iterator[Callable[[], tuple[dict[str, float], float]]]:
    """A process of its own that measures when asked to."""
    threads = {"OPENBLAS_NUM_THREADS": "1"} if name == "bandwidth" else {}
    process = subprocess.Popen(
        [python, __file__, f"--worker={name}", f"--rounds={rounds}"],
        env={**os.environ, **threads},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    def answer() -> str:
        said = stdout.readline()
        if not said:
            raise RuntimeError(f"{name} stopped, exit code {process.wait()}")
        return said

    def ask():
        stdin.write("\n")
        stdin.flush()
        return json.loads(answer())

    answer()
    yield ask
    stdin.close()
    process.wait()


def compare(names: list[str], rounds: int, wait: float, torch: str = "") -> dict[str, list[float]]:
    """Each worker in turn, `rounds` times over: seconds by name."""
    pythons = dict.fromkeys(names, sys.executable) | ({"torch_step": torch} if torch else {})
    turns: dict[str, list[tuple[dict[str, float], float]]] = {name: [] for name in pythons}
    with ExitStack() as stack:
        workers = {k: stack.enter_context(worker(k, rounds, p)) for k, p in pythons.items()}
        for _ in range(rounds):
            for name, ask in workers.items():
                wait_until_calm(wait)
                turns[name].append(ask())
    seconds = {}
    for name, taken in turns.items():
        calm = [values for values, others in taken if others < CALM]
        busy = ", ".join(f"{others:.2f}" for _, others in taken)
        print(f"{name}: {len(calm)} of {rounds} turns calm; cores busy elsewhere: {busy}")
        kept = calm or [values for values, _ in taken]
        seconds |= {key: [values[key] for values in kept] for key in kept[0]}
    return seconds


def torch_version(python: str) -> str:
    """The version of PyTorch that an interpreter has, empty for none."""
    command = [python, "-c", "import torch; print(torch.__version__)"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def ms(values: list[float]) -> str:
    return spread([1e3 * value for value in values])


def ratio(theirs: list[float], ours: list[float]) -> str:
    return f"{min(theirs) / min(ours):.2f} / {median(theirs) / median(ours):.2f}"


def report_step(seconds: dict[str, list[float]], torch: str) -> None:
    forms = {name: seconds[name] for name in ("sum", "max", "dot")}
    read = [1 / min(values) for values in zip(*forms.values(), strict=True)]  # GB/s
    size = SEEDS * N * D * 4 / 1e9
    print("\nreading 1 GB with two threads, GB/s (best / median)")
    line("the best of sum, max and dot", f"{max(read):.1f} / {median(read):.1f}")
    print(f"\na dense step, Huber, ms (best / median){torch and f', PyTorch {torch}'}")
    line("mirage", ms(seconds["one"]))
    line("mirage, MSE and Huber in the same products", ms(seconds["two"]))
    line("NumPy", ms(seconds["numpy"]))
    theirs = {n: v for n, v in seconds.items() if n not in (*forms, "one", "two", "numpy")}
    for name, values in theirs.items():
        line(f"PyTorch, {name}", ms(values))
    print("\nwhat a step is worth (best over best / median over median)")
    for name, key, target in (("one loss", "one", ">= 0.30"), ("two losses", "two", "")):
        floor = [size / rate for rate in read]
        line(f"share of read bandwidth, {name}", ratio(floor, seconds[key]), target)
    line("NumPy's time over mirage's", ratio(seconds["numpy"], seconds["one"]), ">= 2")
    line("the same, two losses", ratio([2 * s for s in seconds["numpy"]], seconds["two"]))
    if theirs:
        best = min(theirs.values(), key=min)
        line("PyTorch's best over mirage's", ratio(best, seconds["one"]), ">= 1.3")
    else:
        print("  PyTorch not installed: pip install torch")


def report_large(seconds: dict[str, list[float]]) -> None:
    print(
        f"\nstage 1 with its draw, d = {LARGE_D}, n = {LARGE_ALPHA * LARGE_D}, {LARGE_STEPS} steps,"
        " Huber, no stage 2: s a seed (best / median)"
    )
    both = [sum(parts) for parts in zip(seconds["draw"], seconds["stage 1"], strict=True)]
    line(f"mirage, design=deferred, {LARGE_SEEDS} seeds", spread(seconds["large"]))
    line("NumPy, one seed", spread(both))
    line("  of which drawing X", spread(seconds["draw"]))
    line("NumPy's time over mirage's", ratio(both, seconds["large"]), ">= 30")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for calm cores")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter with PyTorch")
    parser.add_argument("--worker", choices=WORKERS, help="measure one alone, on request")
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.rounds)
        return
    command = f"python benchmarks/gd_step.py --rounds={given.rounds} --wait={given.wait:g}"
    version = torch_version(given.torch_python)
    print(header(command + (" --torch-python=PATH" if version else "")), flush=True)
    names = ["bandwidth", "mirage_step", "numpy_step"]
    python = given.torch_python if version else ""
    print()
    report_step(compare(names, given.rounds, given.wait, python), version)
    print()
    report_large(compare(["mirage_large", "numpy_large"], max(2, given.rounds // 3), given.wait))


if __name__ == "__main__":
    main()
