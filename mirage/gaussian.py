"""Expectations over a standard Gaussian vector, in float64, right for kinks, jumps and tails.

Two kinds of rule: fixed ones (`line_rule`, `rule`), exact to rounding for functions that are
smooth but for what they do at zero; and randomised ones (`scattered`), for any function, whose
error is seen in the scatter of independent replicas.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from mirage.arguments import finite_array, positive, shaped, whole
from mirage.options import require

# Nodes along each direction, and where the rule ends, for ranks 1, 2, ...: up to 13 so that h_20²
# is not cut (|h| ≤ 9 leaves out a mass of 2e-19). A tensor rule stays under 4e5 points; that of
# rank 4 is good to 1e-4, and above it Sobol points do better than what a tensor rule can afford.
LINES = {1: (320, 13.0), 2: (160, 13.0), 3: (64, 9.0), 4: (24, 9.0)}
SOBOL_POINTS = 2**17


@functools.cache
def line_rule(nodes: int, half_width: float = 9.0) -> tuple[np.ndarray, np.ndarray]:
    """Composite Gauss-Legendre rule for E[f(z)], z ~ N(0, 1), on |z| ≤ `half_width`.

    The panels meet at 0, so a kink or a jump there costs nothing. `nodes` is even; half of
    them lie on each side, in panels of at most 16. Returns points and weights, each
    `(nodes,)` float64; the weights hold the density and sum to 1. ValueError for a number of nodes
    that is not even and positive, or a `half_width` ≤ 0.
    """
    whole(2, nodes=nodes)
    require(nodes % 2 == 0, "nodes", nodes, "expected an even number")
    positive(half_width=half_width)
    half = nodes // 2
    panels = math.ceil(half / 16)
    while half % panels:
        panels += 1
    x, w = np.polynomial.legendre.leggauss(half // panels)
    edges = np.linspace(0.0, half_width, panels + 1)
    centre, radius = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    right = (centre[:, None] + radius[:, None] * x).ravel()
    density = np.exp(-(right**2) / 2) / math.sqrt(2 * math.pi)
    weight = (radius[:, None] * w).ravel() * density
    points = np.concatenate([-right[::-1], right])
    weights = np.concatenate([weight[::-1], weight])
    return points, weights / weights.sum()


@functools.cache
def rule(rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Points `(N, rank)` and weights `(N,)` with E[f(h)] ≈ Σ w f(h), h ~ N(0, I_rank).

    A tensor product of `line_rule` up to rank 4; above it, a scrambled Sobol sequence of
    2^17 points, seeded, whose error is of order 1e-4 for a smooth f and 1e-3 for one that jumps.
    ValueError for a rank that is no whole number ≥ 0.
    """
    whole(0, rank=rank)
    if rank == 0:
        return np.zeros((1, 0)), np.ones(1)
    if rank in LINES:
        x, w = line_rule(*LINES[rank])
        points = np.stack(np.meshgrid(*[x] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
        weights = functools.reduce(np.multiply.outer, [w] * rank).ravel()
        keep = weights > (1e-45 if rank <= 2 else 1e-22)  # corners that cannot count
        return points[keep], weights[keep]
    from scipy.stats import qmc  # slow to import, and seldom needed

    uniform = qmc.Sobol(rank, rng=0).random(SOBOL_POINTS)
    points = ndtri(np.clip(uniform, 1e-12, 1 - 1e-12))
    return points, np.full(SOBOL_POINTS, 1.0 / SOBOL_POINTS)


@functools.cache
def gauss_hermite(
    rank: int, nodes: int
) -> tuple[Float[np.ndarray, "count rank"], Float[np.ndarray, " count"]]:
    """Points and weights of the tensor Gauss-Hermite rule: exact to degree 2 nodes − 1 a line.

    ValueError for a rank that is no whole number ≥ 0, or fewer nodes than one.
    """
    whole(0, rank=rank)
    whole(1, nodes=nodes)
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    points = np.stack(np.meshgrid(*[x] * rank, indexing="ij"), axis=-1) if rank else np.zeros(0)
    weights = functools.reduce(np.multiply.outer, [w / w.sum()] * rank, np.ones(()))
    return points.reshape(weights.size, rank), weights.ravel()


def scattered(
    rank: int, count: int, *, seed: int, half_width: float = 9.0
) -> tuple[Float[np.ndarray, "count rank"], Float[np.ndarray, " count"]]:
    """Randomised points and weights: E[f(h)] ≈ Σ w f(h) without bias, replicas by `seed`.

    On a line, equidistant points on |z| ≤ `half_width` behind a random shift, which converge
    faster than any power of `count` for smooth f and as 1/count past a jump. In more
    dimensions a scrambled Sobol sequence, with `count` a power of two. ValueError for a rank below
    0, fewer points than one, a seed that is no whole number ≥ 0, or a `half_width` ≤ 0.
    """
    whole(0, rank=rank, seed=seed)
    whole(1, count=count)
    positive(half_width=half_width)
    if rank == 0:
        return np.zeros((count, 0)), np.full(count, 1.0 / count)
    if rank == 1:
        shift = np.random.default_rng(seed).random()
        z = (np.arange(count) + shift) * (2 * half_width / count) - half_width
        weights = np.exp(-(z**2) / 2)
        return z[:, None], weights / weights.sum()
    from scipy.stats import qmc  # slow to import, and not needed for a single index

    uniform = qmc.Sobol(rank, rng=seed).random(count)
    # Points of a scrambled sequence lie on a grid of 2^-64: none is 0 or 1 but by rounding.
    return ndtri(np.clip(uniform, 1e-16, 1 - 1e-16)), np.full(count, 1.0 / count)


def exact_weights(
    points: Float[np.ndarray, "count rank"], weights: Float[np.ndarray, " count"], *, degree: int
) -> Float[np.ndarray, " count"]:
    """The weights, changed as little as can be, so that polynomials up to a degree are exact.

    Of total degree up to `degree`, or as many as a quarter of the points allows. Heavy tails, such
    as those of He4², then cost a scattered rule nothing. ValueError for arrays that do not belong
    together or are not finite, and for a degree below 0.
    """
    finite_array((None, None), points=points)
    finite_array((len(points),), weights=weights)
    whole(0, degree=degree)
    count, rank = points.shape
    while math.comb(degree + rank, rank) > max(1, count // 4):
        degree -= 1
    basis = np.stack([f for k in range(degree + 1) for f in hermite_functions(points, k)])
    # The constant comes first, and is the only one with a mean.
    mean = np.zeros(len(basis))
    mean[0] = 1.0
    return weights * (np.linalg.solve((weights * basis) @ basis.T, mean) @ basis)


class Estimate(NamedTuple):
    """A number, or an array of them, and one standard error of each."""

    value: Float[np.ndarray, "*shape"]
    error: Float[np.ndarray, "*shape"]


def expectation(
    function: Callable[[Float[np.ndarray, "count rank"]], Float[np.ndarray, "count ..."]],
    rank: int,
    *,
    count: int = 2**16,
    replicas: int = 8,
) -> Estimate:
    """E[f(h)] for h ~ N(0, I_rank), from independent randomised rules and their scatter.

    ValueError as `scattered`, and for fewer replicas than two.
    """
    whole(2, replicas=replicas)
    sums = []
    for seed in range(replicas):
        points, weights = scattered(rank, count, seed=seed)
        sums.append(np.tensordot(weights, np.asarray(function(points), np.float64), axes=1))
    return mean_and_error(np.stack(sums))


def mean_and_error(replicas: Float[np.ndarray, "replicas ..."]) -> Estimate:
    """The mean over replicas and its standard error; ValueError for fewer than two."""
    count = len(replicas) if np.ndim(replicas) else 0
    require(count >= 2, "replicas", replicas, "expected an array of at least two")
    error = replicas.std(axis=0, ddof=1) / math.sqrt(len(replicas))
    return Estimate(np.asarray(replicas.mean(axis=0)), np.asarray(error))


def multi_indices(rank: int, degree: int) -> list[tuple[int, ...]]:
    """All (k_1, ..., k_rank) of whole numbers ≥ 0 with Σ k_i = degree.

    ValueError for a rank or a degree that is no whole number ≥ 0.
    """
    whole(0, rank=rank, degree=degree)
    if rank == 0:
        return [()] if degree == 0 else []
    ranges = itertools.product(range(degree + 1), repeat=rank - 1)
    return [(degree - sum(rest), *rest) for rest in ranges if sum(rest) <= degree]


def hermite_functions(
    z: Float[np.ndarray, "*batch rank"], degree: int
) -> Iterator[Float[np.ndarray, "*batch"]]:
    """Π_i h_{k_i}(z_i), normalised Hermite polynomials, for every multi-index of the degree.

    One after another in the order of `multi_indices`: orthonormal for z ~ N(0, I). ValueError for
    a z without directions, or a degree that is no whole number ≥ 0.
    """
    shaped((..., None), z=z)
    whole(0, degree=degree)
    return _hermite_functions(z, degree)


def _hermite_functions(z, degree):
    lines = [
        hermite_lines(np.ascontiguousarray(z[..., axis]), degree) for axis in range(z.shape[-1])
    ]
    for index in multi_indices(z.shape[-1], degree):
        factors = [lines[axis][k] for axis, k in enumerate(index) if k]
        yield functools.reduce(np.multiply, factors) if factors else np.ones(z.shape[:-1])


def hermite_lines(x: Float[np.ndarray, "*batch"], degree: int) -> list[Float[np.ndarray, "*batch"]]:
    """h_0(x) to h_degree(x): normalised Hermite polynomials; ValueError for a degree below 0."""
    whole(0, degree=degree)
    values = [np.ones_like(x), x][: degree + 1]
    for k in range(1, degree):
        values.append((x * values[k] - math.sqrt(k) * values[k - 1]) / math.sqrt(k + 1))
    return values


def hermite_coefficients(
    function: Callable[[Float[np.ndarray, "count rank"]], Float[np.ndarray, " count"]],
    rank: int,
    degree: int,
    *,
    count: int = 2**16,
    replicas: int = 8,
) -> Estimate:
    """E[f(h) Π_i h_{k_i}(h_i)] for every multi-index of the degree, in `multi_indices` order.

    ValueError as `expectation`, and for a rank below 1 or a degree that is no whole number ≥ 0.
    """
    whole(1, rank=rank)
    whole(0, degree=degree)

    def products(points):
        f = np.asarray(function(points), np.float64)
        return np.stack([f * h for h in hermite_functions(points, degree)], axis=-1)

    return expectation(products, rank, count=count, replicas=replicas)


def contraction(
    first: Float[np.ndarray, "*batch indices"],
    second: Float[np.ndarray, "*batch indices"],
    rank: int,
    degree: int,
) -> Float[np.ndarray, "*batch rank rank"]:
    """Σ over all indices but one of two symmetric tensors given by their Hermite coefficients.

    With c_k = E[f h_k] the tensor of f is E[f He_k(h)]/√degree!, whose squared norm is Σ_k c_k²:
    the trace of the contraction of a tensor with itself. Its range is spanned by the
    directions that the tensor sees. ValueError for a rank or a degree below 1, and for arrays of
    another number of coefficients.
    """
    whole(1, rank=rank, degree=degree)
    indices = {index: place for place, index in enumerate(multi_indices(rank, degree))}
    shaped((..., len(indices)), first=first, second=second)
    result = np.zeros((*first.shape[:-1], rank, rank))
    for shared in multi_indices(rank, degree - 1):
        places, factors = [], []
        for axis in range(rank):
            raised = list(shared)
            raised[axis] += 1
            places.append(indices[tuple(raised)])
            # T_{i shared} = c √(k!/degree!); (degree−1)!/shared! entries are equal.
            factors.append(math.sqrt(raised[axis] / degree))
        f = first[..., places] * np.array(factors)
        g = second[..., places] * np.array(factors)
        result += f[..., :, None] * g[..., None, :]
    return result
