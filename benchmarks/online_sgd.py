"""One-pass SGD against a plain NumPy loop, and what the experiments on it take.

    python benchmarks/online_sgd.py [--rounds 3] [--wait 60] [--skip-large]

In turns: one neuron at d = 2048, a sample a step, in NumPy as scripts do it and by `online_sgd` for
40 seeds; then the chain of order parameters, 40 seeds of one neuron and one direction; then
`reusing_batch` with 20 seeds and `full_batch_gd` at d = 100,000 from the shell.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from report import header, line, run

D, SEEDS = 2048, 40
ONLINE = """
import json, sys
from mirage import Experiment, simulate
from mirage.activations import Relu
from mirage.algorithms import OnlineSgd, OrderParameterChain
from mirage.losses import Mse
from mirage.network import TwoLayer
from mirage.runtime import Default
from mirage.targets import PhaseRetrieval
kind, d, steps, seeds = sys.argv[1], *map(int, sys.argv[2:])
algorithm = {"online": OnlineSgd, "chain": OrderParameterChain}[kind](step_size=0.1, saves=10)
network = TwoLayer(width=1, symmetric=False, initial_norm=1.0, output="ones")
model = {"target": PhaseRetrieval(), "network": network, "activation": Relu(), "loss": Mse()}
cells = {"d": d, "n": steps, "seeds": seeds, "runtime": Default(progress=False)}
results = simulate(Experiment(**model, **cells, algorithm=algorithm))
assert not results.diverged.any()
print(json.loads(results.attrs["times_s"])["train"] / steps / seeds)
"""


def script(steps: int) -> float:
    """Seconds a step of one neuron with relu on y = h², a fresh sample each."""
    rng = np.random.default_rng(0)
    u, w = np.eye(D)[0], rng.standard_normal(D)
    w /= np.linalg.norm(w)
    start = time.perf_counter()
    for _ in range(steps):
        x = rng.standard_normal(D)
        y = (u @ x) ** 2
        z = w @ x
        w = w - 0.1 / D * (max(z, 0.0) - y) * (z > 0) * x
    return (time.perf_counter() - start) / steps


def online(rounds: int, wait: float) -> None:
    print(f"\nmicroseconds a step and seed, one neuron, d = {D}: best / median")
    taken: dict[str, list[float]] = {"online_sgd, 40 seeds": [], "NumPy loop": []}
    for _ in range(rounds):
        done = run(["-c", ONLINE, "online", str(D), "20000", str(SEEDS)], wait=wait)
        taken["online_sgd, 40 seeds"].append(float(done.output))
        taken["NumPy loop"].append(script(5000))
    for name, values in taken.items():
        line(name, f"{1e6 * min(values):.1f} / {1e6 * statistics.median(values):.1f}")
    ours, theirs = (statistics.median(values) for values in taken.values())
    line("NumPy / mirage", f"{theirs / ours:.1f}", "8")


def chain(wait: float) -> None:
    steps = 10_000_000
    done = run(["-c", ONLINE, "chain", "1000000", str(steps), str(SEEDS)], wait=wait)
    words = "chain at d = 10⁶, 10⁷ steps of 40 seeds, seconds"
    line(words, f"{float(done.output) * steps * SEEDS:.0f}", "60")


def shell(words: str, command: str, wait: float, target: str, *, a_seed: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        job = ["-m", "mirage", *command.split(), f"hydra.run.dir={folder}"]
        done = run([*job, "runtime.progress=false"], wait=wait)
        results = xr.load_dataset(Path(folder) / "results.nc")
    train = json.loads(results.attrs["times_s"])["train"] / results.sizes["seed"]
    value = train if a_seed else done.seconds
    line(words, f"{value:.1f}", target)
    line("  peak memory, GB", f"{done.peak_gb:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wait", type=float, default=60)
    parser.add_argument("--skip-large", action="store_true")
    options = parser.parse_args()
    skipped = " --skip-large" if options.skip_large else ""
    words = f"--rounds {options.rounds} --wait {options.wait:g}{skipped}"
    print(header(f"python benchmarks/online_sgd.py {words}"))
    online(options.rounds, options.wait)
    print("\nfrom the shell, compilation included")
    chain(options.wait)
    shell("reusing_batch, d = 5000, 20 seeds, seconds", "+experiment=reusing_batch seeds=20",
          options.wait, "60")  # fmt: skip
    if not options.skip_large:
        large = "+experiment=log_d_steps d=[100000] seeds=2 compare.target=[phase_retrieval]"
        shell("full_batch_gd, d = 10⁵, n/d = 10, seconds a seed", large, options.wait, "60",
              a_seed=True)  # fmt: skip


if __name__ == "__main__":
    main()
