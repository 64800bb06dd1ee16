"""Points of h, their labels, and the partition of the labels into bins."""

from typing import NamedTuple

import numpy as np

from mirage.gaussian import scattered
from mirage.targets import Target
from mirage.targets.evaluation import labels

# What may be lost to labels that are not finite: a set that no sample will meet.
NEGLIGIBLE = 1e-9
# One point in so many cuts the bins.
PILOT = 4


class Sizes(NamedTuple):
    """Of one replica: nodes of the known directions, points of the rest on each, bins of labels."""

    nodes: int
    points: int
    bins: int


def sampled(
    target: Target, known: np.ndarray, rest: np.ndarray, sizes: Sizes, replica: int
) -> tuple[np.ndarray, ...]:
    """One replica of a `LabelTable`: nodes, weights, points, point weights, labels and bins.

    ValueError where labels are not finite on a set of positive measure.
    """
    seed = 4 * replica
    nodes, weights = scattered(len(known), sizes.nodes, seed=seed, half_width=6.0)

    def sample(points, seed):
        # Every node has a rule of its own: one shared by all would leave its error to all.
        z, w = _rules(len(rest), sizes.nodes, points, seed=seed)
        y = labels(target, (nodes @ known)[:, None] + z @ rest, seed=seed)
        lost = ~np.isfinite(y)
        share = float((w * lost).sum() / w.sum())
        if share > NEGLIGIBLE:
            raise ValueError(
                f"target={target.name()}: its label is not finite for {share:.2g} of all h; "
                "expected a number wherever h can be"
            )
        return z, np.where(lost, 0.0, w), np.where(lost, 0.0, y)

    # The bins are cut by points of their own: the halves are independent given the bins.
    z, w, y = sample(sizes.points // PILOT, seed + 3)
    cuts = [
        _cuts(*row, sizes.bins) for row in zip(y, w * (1 + (z**2).sum(axis=-1) ** 2), strict=True)
    ]
    z, w, y = (
        np.stack(both)
        for both in zip(*(sample(sizes.points, seed + h) for h in (1, 2)), strict=True)
    )
    bins = np.empty(y.shape, np.int32)
    for node, cut in enumerate(cuts):
        bins[:, node] = _place(y[:, node], *cut, sizes.bins)
    return nodes, weights, z, w, y, bins


def _rules(q: int, nodes: int, points: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (nodes, points, q) and weights (nodes, points) of a rule at every node."""
    z, w = scattered(q, nodes * points, seed=seed)
    if q > 1:
        return z.reshape(nodes, points, q), np.full((nodes, points), 1.0 / points)
    # Consecutive points of a line are neighbours: nodes take them in turn.
    w = w.reshape(points, nodes).T
    return z.reshape(points, nodes, 1).swapaxes(0, 1), w / w.sum(axis=1, keepdims=True)


def _cuts(y: np.ndarray, mass: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts between plain bins of nearly equal mass, and the values that repeat.

    The mass is w (1 + ‖z‖⁴): its fourth power gives the tails, where second moments given y are
    large, their share of bins.
    """
    order = np.argsort(y, kind="stable")
    y, mass = y[order], mass[order]
    starts = np.concatenate([[True], ~_same(y[1:], y[:-1])])
    first = np.flatnonzero(starts)
    single = np.add.reduceat(mass, first) * count > mass.sum()
    repeated = np.concatenate([np.diff(first), [len(y) - first[-1]]]) > 1
    values = y[first][single & repeated]
    plain = ~np.isin(np.cumsum(starts) - 1, np.flatnonzero(single & repeated))
    if not plain.any():
        return np.zeros(0), values
    share = np.cumsum(mass[plain]) / mass[plain].sum()
    at = np.searchsorted(share, np.arange(1, count) / count)
    return np.unique(y[plain][np.minimum(at, len(share) - 1)]), values


def _place(y: np.ndarray, cuts: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The bin of every label: among the plain ones, or `count` + that of its value."""
    plain = np.searchsorted(cuts, y, side="right")
    if not len(values):
        return plain
    # Nearest of the values that repeat.
    middle = np.searchsorted((values[1:] + values[:-1]) / 2, y)
    return np.where(_same(values[middle], y), count + middle, plain)


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Values that differ by rounding are one value."""
    return np.abs(a - b) <= 1e-11 * np.maximum(np.abs(a), np.abs(b))
