"""Weak recovery: the samples a dimension, n/d, at which a target's directions can be seen at all.

Troiani, Dandi, Defilippis, Zdeborová, Loureiro, Krzakala, "Fundamental computational limits of
weak learnability in high-dimensional multi-index models", arXiv 2405.15480: with
G(y) = E[h hᵀ − I | y], and where E[h | y] = 0,

    1/alpha_c = max { ‖E[G M G]‖_F : M ⪰ 0, ‖M‖_F = 1 },

the top eigenvalue of M ↦ E[G M G]; repeated with the directions found among what is known, it is
the grand staircase.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mirage.channels.labels import LabelTable, LabelTables, complement, second_moments
from mirage.gaussian import mean_and_error
from mirage.theory.directions import RANGE, SIGMAS, aligned, depends, tidy

# What is seen of a direction when those known are off by rounding of the rules.
FAINT = 1e-5


class Threshold(NamedTuple):
    """alpha_c and its standard error, with M: `matrix` (q, q), of largest rank, ‖M‖_F = 1.

    `value` is inf where second moments see nothing: `least` is the smallest alpha_c that the
    tolerance leaves possible then.
    """

    value: float
    error: float
    matrix: Float[np.ndarray, "q q"]
    least: float


class Step(NamedTuple):
    """One step of the staircase.

    `directions` (k, r) are orthonormal; `kind` is trivial (first moments see them), easy
    (second moments do) or hard (neither). `alpha_c` is exact where `lower_bound` is False; else
    it supposes the directions of earlier steps recovered perfectly.
    """

    directions: Float[np.ndarray, "k r"]
    kind: str
    alpha_c: float
    error: float
    lower_bound: bool
    # For a hard step: the smallest alpha_c that the tolerance leaves possible.
    least: float


def staircase(tables: LabelTables) -> list[Step]:
    """The steps by which a target's directions are found, until none is left or the rest is hard.

    Directions on which the target does not depend are in no step. ValueError where the rank is
    too large or the target is not finite (`label_table`).
    """
    target = tables.target
    r = target.rank
    steps: list[Step] = []
    known = np.zeros((0, r))
    while len(known) < r:
        rest = complement(known)
        if not depends(target, known, rest):
            break
        step = _step(tables(known), rest, lower_bound=bool(steps))
        step = step._replace(directions=tidy(aligned(target, step.directions)))
        steps.append(step)
        if step.kind == "hard":
            break
        known = np.concatenate([known, step.directions])
    return steps


def _step(table: LabelTable, rest: np.ndarray, *, lower_bound: bool) -> Step:
    seen = first_moment_directions(table)
    if len(seen):
        return Step(tidy(seen @ rest), "trivial", 0.0, 0.0, lower_bound, 0.0)
    threshold = alpha_c(table)
    if math.isinf(threshold.value):
        return Step(tidy(rest), "hard", math.inf, 0.0, lower_bound, threshold.least)
    directions = tidy(_range(threshold.matrix) @ rest)
    return Step(directions, "easy", threshold.value, threshold.error, lower_bound, threshold.value)


def first_moment_directions(table: LabelTable) -> Float[np.ndarray, "k q"]:
    """An orthonormal basis of the directions in which E[z | y, a] is not zero."""
    means = table.conditional(1)
    products = np.einsum("rab,rabi,rabj->rij", table.weight(), means[:, 0], means[:, 1])
    value, error = mean_and_error((products + products.swapaxes(1, 2)) / 2)
    values, vectors = np.linalg.eigh(value)
    noise = SIGMAS * np.linalg.norm(error) + FAINT
    return vectors[:, values > noise].T


def alpha_c(table: LabelTable) -> Threshold:
    """The threshold of a table with E[z | y, a] = 0, with the error of replicas and of bins."""
    fine, coarse = _top(second_moments(table)), _top(second_moments(table, coarse=True))
    error = mean_and_error(fine.jackknife).error
    # Twice as many bins leave a quarter of the error: what is left after one more such step.
    gap = fine.value - coarse.value
    value = fine.value + gap / 3
    # A ratio of two means is biased by one over the points in a bin, on a line by its square.
    crowd = table.points.shape[3] / table.count
    bias = fine.value / (crowd**2 if table.unknown == 1 else 2 * crowd)
    error = math.hypot(float(error), 2 * gap / 3, bias)
    noise = SIGMAS * error + 1e-9
    least = 1 / max(value + noise, 1e-300)
    if value < noise:
        return Threshold(math.inf, 0.0, np.eye(table.unknown), least)
    return Threshold(1 / value, error / value**2, fine.matrix, least)


class _Top(NamedTuple):
    value: float
    jackknife: np.ndarray  # pseudo-values, whose mean and error are those of the estimate
    matrix: np.ndarray


def _top(moments: np.ndarray) -> _Top:
    """Top eigenvalue of M ↦ E[G M G] and the element of largest rank of its eigenspace."""
    replicas, q = moments.shape[:2]
    basis = _symmetric_basis(q)

    def operator(tensor):  # <B, E[G B' G]> = Σ B_il G_ij B'_jk G_kl
        return np.einsum("ail,ijkl,bjk->ab", basis, tensor, basis, optimize=True)

    operators = np.stack([operator(tensor) for tensor in moments])
    operators = (operators + operators.swapaxes(1, 2)) / 2
    total = operators.mean(axis=0)
    values, vectors = np.linalg.eigh(total)
    without = [(total * replicas - one) / (replicas - 1) for one in operators]
    left_out = np.array([np.linalg.eigvalsh(one)[-1] for one in without])
    jackknife = replicas * values[-1] - (replicas - 1) * left_out
    # Eigenvalues that replicas cannot tell apart are one, and I falls on its eigenspace as the
    # element of largest rank: every positive M in it is below a multiple of that projection.
    spread = SIGMAS * float(mean_and_error(operators).error.max()) + 1e-3 * abs(values[-1])
    same = vectors[:, values > values[-1] - spread]
    identity = np.einsum("aij,ij->a", basis, np.eye(q))
    matrix = np.einsum("a,aij->ij", same @ (same.T @ identity), basis)
    norm = np.linalg.norm(matrix)
    return _Top(float(values[-1]), jackknife, matrix / norm if norm > 0 else np.eye(q))


def _symmetric_basis(q: int) -> np.ndarray:
    """An orthonormal basis of the symmetric q × q matrices."""
    basis = []
    for i in range(q):
        for j in range(i, q):
            matrix = np.zeros((q, q))
            matrix[i, j] = matrix[j, i] = 1.0 if i == j else math.sqrt(0.5)
            basis.append(matrix)
    return np.stack(basis)


def _range(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors[:, values > RANGE * values[-1]].T
