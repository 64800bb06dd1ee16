"""E g(h) and E g(h)² of any target, and whether they are finite at all."""

import math

import numpy as np

from mirage.gaussian import scattered
from mirage.targets import Target
from mirage.targets.evaluation import values

# Radii at which tails are looked at: beyond the first a standard Gaussian vector is never seen.
TAIL, END = 10.0, 14.0
# Shares of E g² by which tails, or a finer rule, may change it before it counts as infinite.
TAIL_SHARE, FINER_SHARE = 1e-3, 0.05
COARSE, FINE, REPLICAS = 2**13, 2**17, 4


def mean_and_square(target: Target) -> tuple[float, float]:
    """E g and E g²; inf for the latter where tails or poles make the integral diverge."""
    if _tails_diverge(target):
        return math.nan, math.inf
    coarse, fine = (_averages(target, count) for count in (COARSE, FINE))
    if not np.isfinite(fine).all() or fine[1] > (1 + FINER_SHARE) * coarse[1]:
        return math.nan, math.inf
    return float(fine[0]), float(fine[1])


def _averages(target: Target, count: int) -> np.ndarray:
    sums = []
    for seed in range(REPLICAS):
        points, weights = scattered(target.rank, count, seed=seed)
        g = values(target, points)
        sums.append([weights @ g, weights @ g**2])
    return np.mean(sums, axis=0)


def _tails_diverge(target: Target) -> bool:
    """Whether the density of g² over radii grows where that of h has long died out."""
    directions = np.random.default_rng(0).standard_normal((256, target.rank))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = np.linspace(END / 400, END, 400)
    with np.errstate(all="ignore"):
        squares = values(target, radii[:, None, None] * directions) ** 2
        density = np.nanmean(squares, axis=1) * _radial_density(target.rank, radii)
    if not np.isfinite(density).all():
        return True
    beyond = density[radii > TAIL].sum()
    return bool(beyond > TAIL_SHARE * density.sum())


def _radial_density(rank: int, radii: np.ndarray) -> np.ndarray:
    """The density of ‖h‖, h ~ N(0, I_rank), up to a factor."""
    return np.exp((rank - 1) * np.log(radii) - radii**2 / 2)
