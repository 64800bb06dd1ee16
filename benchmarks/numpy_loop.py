"""Layer-wise gradient descent as a plain NumPy loop: what `main_job.py` compares against.

The same algorithm, target, losses and grid as `conf/experiment/huber_vs_mse.yaml`, float32, two
BLAS threads, one cell (d, n/d, loss, seed) after the other, each with its own X.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "2"
os.environ["MKL_NUM_THREADS"] = "2"

import argparse
import itertools
import json
import time
from dataclasses import dataclass, field

import numpy as np

D = (200, 300, 500)
ALPHA = (2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 30, 40)
LOSSES = ("mse", "huber")
M = 4  # neurons, in two pairs that cancel
T1, ETA1, BETA1, EPS0 = 20, 2.0, 0.0, 1e-3
T2, BETA2 = 100, 1e-3


@dataclass
class Clock:
    """Seconds in each part of a cell: X of each stage drawn, and what is done with it."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now


def h4(x: np.ndarray) -> np.ndarray:
    """The normalised Hermite polynomial He_4/√24."""
    square = x * x
    return (square * square - 6 * square + 3) / np.float32(24**0.5)


def sample(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) and y = h_4(x_1) + h_4(x_2)."""
    X = rng.standard_normal((n, d), dtype=np.float32)
    return X, h4(X[:, 0]) + h4(X[:, 1])


def slope(loss: str, f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """ℓ'(f, y) of the square loss or of Huber's with δ = 1."""
    residual = f - y
    return residual if loss == "mse" else np.clip(residual, -1, 1)


def run_cell(d: int, alpha: float, loss: str, seed: int) -> tuple[float, np.ndarray, Clock]:
    """Both stages in one cell: cos(best), the output weights a, and where the time went."""
    rng = np.random.default_rng([seed, d, int(alpha), LOSSES.index(loss)])
    n = int(alpha * d)
    clock = Clock()

    X, y = sample(rng, n, d)
    clock.lap("draw")

    w = rng.standard_normal((M // 2, d), dtype=np.float32)
    w *= np.float32(EPS0) / np.linalg.norm(w, axis=1, keepdims=True)
    W = np.concatenate([w, w])
    signs = rng.choice(np.array([-1, 1], np.float32), M // 2)
    a = np.concatenate([signs, -signs])
    centre = slope(loss, np.zeros_like(y), y).mean()
    for _ in range(T1):
        Z = X @ W.T
        residual = slope(loss, np.cos(Z) @ a, y) - centre
        g = residual[:, None] * a * -np.sin(Z) / n
        W = W - ETA1 * (g.T @ X + BETA1 * W)
    cosines = np.linalg.norm(W[:, :2], axis=1) / np.linalg.norm(W, axis=1)
    clock.lap("stage 1")

    del X
    X, y = sample(rng, n, d)
    clock.lap("draw 2")

    W = W / np.linalg.norm(W, axis=1, keepdims=True)
    features = np.cos(X @ W.T + rng.standard_normal(M, dtype=np.float32))
    eta2 = 1 / (np.linalg.eigvalsh(features.T @ features / n)[-1] + BETA2)
    for _ in range(T2):
        residual = slope(loss, features @ a, y)
        a = a - eta2 * (features.T @ residual / n + BETA2 * a)
    clock.lap("stage 2")
    return float(cosines.max()), a, clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    seeds = parser.parse_args().seeds
    seconds: dict[str, float] = {}
    huber_at_20 = []
    for d, alpha, loss, seed in itertools.product(D, ALPHA, LOSSES, range(seeds)):
        cosine, _, clock = run_cell(d, alpha, loss, seed)
        for part, value in clock.seconds.items():
            seconds[part] = seconds.get(part, 0.0) + value
        if (alpha, loss) == (20, "huber"):
            huber_at_20.append(cosine)
    print(json.dumps({"seconds": seconds, "huber_at_20": float(np.median(huber_at_20))}))


if __name__ == "__main__":
    main()
