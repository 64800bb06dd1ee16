"""Information and generative exponents, and the leaps by which directions are found one by one.

The information exponent is the lowest degree k ≥ 1 with E[y He_k(h)] ≠ 0 (Ben Arous et al. 2021),
the generative exponent that with E_y‖E[He_k(h) | y]‖² ≠ 0 (Damian, Lee, Bruna 2024): the label may
be transformed first. In several directions each is the first step of a staircase: at a step the
directions z not yet known are seen at the lowest degree at which E[y He_k(z) | h_known] (or
E[He_k(z) | y, h_known]) does not vanish, and the new directions are all that this tensor sees. The
largest degree of a step is the leap (Abbe, Boix-Adserà, Misiakiewicz 2023), here in its form that
rotations of h leave alone.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mirage.channels.labels import LabelTable, LabelTables, complement
from mirage.gaussian import (
    contraction,
    gauss_hermite,
    hermite_functions,
    hermite_lines,
    mean_and_error,
    multi_indices,
    scattered,
)
from mirage.options import require
from mirage.targets import Target
from mirage.targets.evaluation import values
from mirage.theory.directions import RANGE, SIGMAS, aligned, depends, tidy

# The highest degree looked at, by rank; that of a polynomial is its own.
DEGREES = {1: 12, 2: 8, 3: 6, 4: 4}
# Polynomials are recognised by a Gauss-Hermite rule of NODES a line, exact to degree 2 × 24 − 1, up
# to the HIGHEST degree.
NODES, HIGHEST = 24, 20
# Squared coefficients, relative to the variance, that rounding leaves of a zero.
ROUNDING = 1e-18
# Randomised rules: (nodes of the known directions, points of the rest on each), by rank.
COUNTS = {1: 2**17, 2: 2**18, 3: 2**18, 4: 2**18}
REPLICAS = 8


class Leap(NamedTuple):
    """One step: the degree at which `directions` (k, r) are seen, None when undecided.

    `tolerance` is the largest share of the variance (of 1, for a generative step) that a tensor
    called zero may have; 0 for polynomials, whose exponents are exact.
    """

    degree: int | None
    directions: Float[np.ndarray, "k r"]
    tolerance: float


class Seen(NamedTuple):
    """What a degree sees: the contraction of its tensor, (q, q), with its standard error."""

    matrix: Float[np.ndarray, "q q"]
    noise: float
    rounding: float


def information_leaps(target: Target) -> list[Leap]:
    """The staircase of correlations E[y He_k(z) | h_known]; ValueError above rank 4."""
    degree = polynomial_degree(target)
    if degree is not None:
        return _leaps(target, functools.partial(_exact, target, degree), degree)
    return _leaps(target, functools.partial(_correlations, target), _degrees(target))


def generative_leaps(tables: LabelTables) -> list[Leap]:
    """The staircase of E[He_k(z) | y, h_known]; ValueError above rank 4."""
    seen = functools.partial(_labelled, tables)
    return _leaps(tables.target, seen, _degrees(tables.target))


def _degrees(target) -> int:
    accepted = f"expected at most {max(DEGREES)} directions"
    require(target.rank in DEGREES, "target.rank", target.rank, accepted)
    return DEGREES[target.rank]


def _leaps(target, seen, degrees) -> list[Leap]:
    known, steps = np.zeros((0, target.rank)), []
    while len(known) < target.rank:
        rest = complement(known)
        if not depends(target, known, rest):
            break
        tolerance, at = 0.0, seen(known, rest)
        for degree in range(1, degrees + 1):
            found = at(degree)
            noise = max(SIGMAS * found.noise, found.rounding)
            tolerance = max(tolerance, noise if found.noise else 0.0)  # none where it is exact
            sizes, vectors = np.linalg.eigh(found.matrix)
            if sizes.sum() > noise:
                kept = sizes > max(noise, RANGE**2 * sizes[-1])
                directions = vectors[:, kept if kept.any() else [-1]].T @ rest
                directions = tidy(aligned(target, directions))
                steps.append(Leap(degree, directions, tolerance))
                known = np.concatenate([known, directions])
                break
        else:
            steps.append(Leap(None, rest, tolerance))
            break
    return steps


def exponent(leaps: list[Leap]) -> int | None:
    """The first step's degree: the information or generative exponent; None when undecided."""
    return leaps[0].degree if leaps else None


def leap(leaps: list[Leap]) -> int | None:
    """The largest degree of a step; None when one is undecided."""
    degrees = [step.degree for step in leaps if step.degree is not None]
    return max(degrees) if degrees and len(degrees) == len(leaps) else None


def polynomial_degree(target: Target) -> int | None:
    """The degree of a target that is a polynomial (of degree at most 20), else None.

    Its Hermite coefficients up to that degree, by a rule that is exact for a polynomial's, have to
    give its values at other points.
    """
    rank = target.rank
    if rank not in DEGREES:
        return None
    points, weights = gauss_hermite(rank, NODES)
    g = values(target, points)
    trial = 4 * np.random.default_rng(2).standard_normal((256, rank))
    wanted = values(target, trial)
    scale = np.abs(wanted).max()
    if not (np.isfinite(g).all() and np.isfinite(scale)):
        return None
    rest, size = wanted.copy(), math.sqrt(float(weights @ g**2))
    node, weight = gauss_hermite(1, NODES)
    line = weight * np.stack(hermite_lines(node[:, 0], HIGHEST))
    coefficients = g.reshape([NODES] * rank)
    for _ in range(rank):  # the first axis gives way to a last one of degrees
        coefficients = np.tensordot(coefficients, line, axes=(0, 1))
    here = [hermite_lines(x, HIGHEST) for x in np.ascontiguousarray(trial.T)]
    degree = 0
    for k in range(HIGHEST + 1):
        for index in multi_indices(rank, k):
            if abs(coefficients[index]) > 1e-10 * size:
                factors = (here[axis][power] for axis, power in enumerate(index))
                rest -= coefficients[index] * functools.reduce(np.multiply, factors)
                degree = k
        if np.abs(rest).max() < 1e-6 * scale:
            return max(degree, 1)
    return None


def _exact(target, degree, known, rest):
    """Correlations of a polynomial by Gauss-Hermite rules."""
    nodes = degree + 1
    a, weights = gauss_hermite(len(known), nodes)
    z, w = gauss_hermite(len(rest), nodes)
    g = values(target, (a @ known)[:, None] + z @ rest)
    mean = weights @ g @ w
    square = weights @ g**2 @ w
    variance = square - mean**2
    q = len(rest)

    def at(k):
        moments = np.stack([g * f @ w for f in hermite_functions(z, k)], axis=-1)
        matrix = np.einsum("a,aij->ij", weights, contraction(moments, moments, q, k)) / variance
        return Seen(matrix, 0.0, float(ROUNDING * square / variance))

    return at


def _correlations(target, known, rest):
    """Correlations of any target by randomised rules, in halves whose errors are independent."""
    s, q = len(known), len(rest)
    nodes = 1 if s == 0 else 128 if s == 1 else 512
    points = COUNTS[target.rank] // nodes
    replicas = []
    for replica in range(REPLICAS):
        a, weights = scattered(s, nodes, seed=3 * replica, half_width=6.0)
        halves = []
        for half in (1, 2):
            z, w = scattered(q, points, seed=3 * replica + half)
            g = values(target, (a @ known)[:, None] + z @ rest)
            halves.append((z, w, np.where(np.isfinite(g), g, 0.0)))
        replicas.append((weights, halves))
    flat = [(weights @ (g @ w), weights @ (g**2 @ w)) for weights, h in replicas for z, w, g in h]
    mean, square = np.mean(flat, axis=0)
    variance = square - mean**2

    def at(k):
        matrices = []
        for weights, halves in replicas:
            first, second = (
                np.stack([(g - mean) @ (w * f) for f in hermite_functions(z, k)], axis=-1)
                for z, w, g in halves
            )
            both = contraction(first, second, q, k)
            matrices.append(np.einsum("a,aij->ij", weights, both + both.swapaxes(1, 2)) / 2)
        value, error = mean_and_error(np.stack(matrices) / variance)
        return Seen(value, float(np.trace(error)), ROUNDING * square / variance)

    return at


def _labelled(tables, known, rest):
    """Conditional moments given the label, from its table."""
    table = tables(known)

    def at(k):
        value, error = mean_and_error(_conditional(table, k))
        return Seen(value, float(np.trace(error)), 1e-9)

    return at


def _conditional(table: LabelTable, degree: int) -> np.ndarray:
    """E_{y,a} of the contraction of E[He_k(z) | y, a]/√k! with itself, a replica each."""
    moments, q = table.conditional(degree), table.unknown
    both = contraction(moments[:, 0], moments[:, 1], q, degree)
    both = (both + both.swapaxes(-1, -2)) / 2
    return np.einsum("rab,rabij->rij", table.weight(), both)
