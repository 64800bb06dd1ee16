"""Measures: everything reported is a function of the order parameters M = W Uᵀ and Q = W Wᵀ.

Computed in float64 by low-dimensional Gaussian integrals; no test matrix is drawn.
"""

import abc
import functools
import inspect
import itertools
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mirage.activations import Activation
from mirage.arguments import finite, non_negative, shaped
from mirage.channels.channel import Channel
from mirage.gaussian import exact_weights, line_rule, rule, scattered
from mirage.options import Option, require
from mirage.places import diagonal
from mirage.precision import double_precision
from mirage.targets import Part, Target

# The measures that are one number a cell.
SCALARS = ("cos_best", "subspace_cosine", "test_error")
# A negative eigenvalue of Q of no more than this share of the largest is rounding.
ROUNDING = 1e-3


class Measure(Option, abc.ABC):
    """A measure of one's own, one number a cell, named in `measures`.

    The first line of its docstring says what it is, in results and figures.
    """

    group: ClassVar[str] = "measures"
    units: ClassVar[str] = "1"

    @abc.abstractmethod
    def __call__(
        self,
        *,
        overlap: Float[np.ndarray, "cells m r"],
        gram: Float[np.ndarray, "cells m m"],
        target: Target,
    ) -> Float[np.ndarray, " cells"]:
        """Of M = W Uᵀ, with U orthonormal, and Q = W Wᵀ after the last step; both are finite."""

    @classmethod
    def long_name(cls) -> str:
        """What the measure is, in a line."""
        return (inspect.getdoc(cls) or cls.name()).splitlines()[0].rstrip(".")


def scalars() -> tuple[str, ...]:
    """The names of all measures that are one number a cell."""
    return (*SCALARS, *Measure.options())


def cos_best(
    overlap: Float[np.ndarray, "*batch m r"], norm: Float[np.ndarray, "*batch m"]
) -> Float[np.ndarray, "*batch"]:
    """max_j ‖U w_j‖/‖w_j‖: how much of the best neuron lies in the target's subspace, in [0, 1].

    NaN where a neuron is not finite; a neuron that has vanished has found nothing, 0. ValueError
    for shapes that do not belong together.
    """
    shaped((..., None, None), overlap=overlap)
    shaped(overlap.shape[:-1], norm=norm)
    inside = np.linalg.norm(overlap.astype(np.float64), axis=-1)
    norm = norm.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        cosines = np.divide(inside, norm, out=np.zeros_like(inside), where=norm != 0)
    return np.asarray(np.minimum(cosines, 1.0).max(axis=-1))


def escape(
    samples: Float[np.ndarray, "runs saves"], cosine: Float[np.ndarray, "runs saves"], level: float
) -> Float[np.ndarray, " runs"]:
    """The number of samples at which a curve first reaches a level; inf where it never does.

    Between the two saves about it log(samples) is taken as linear in the curve. 0 where it starts
    there, NaN where the curve is lost before. ValueError for shapes that do not belong together, or
    a level that is not finite.
    """
    shaped((None, None), samples=samples)
    shaped(samples.shape, cosine=cosine)
    finite(level=level)
    found = np.full(len(cosine), np.inf)
    for run, (n, curve) in enumerate(zip(samples, cosine, strict=True)):
        above = np.flatnonzero(curve >= level)
        kept = np.isfinite(curve).all() or (len(above) and np.isfinite(curve[: above[0]]).all())
        if not kept:
            found[run] = np.nan
        elif len(above):
            k = above[0]
            if k == 0 or n[k - 1] == 0:
                found[run] = n[k]
                continue
            share = (level - curve[k - 1]) / (curve[k] - curve[k - 1])
            found[run] = n[k - 1] * (n[k] / n[k - 1]) ** share
    return found


def principal_cosines(
    overlap: Float[np.ndarray, "*batch m r"],
    gram: Float[np.ndarray, "*batch m m"],
    *,
    tolerance: float = 1e-4,
) -> Float[np.ndarray, "*batch k"]:
    """Cosines of the principal angles between the rows of W and those of an orthonormal U.

    Largest first, k = min(m, r). W counts as spanning the eigenvectors of Q whose eigenvalue
    exceeds `tolerance` times the largest: with the default, a direction in which W has less than
    a hundredth of its largest extent is lost, and its cosine is 0. NaN where W is not finite, or no
    W has this Q. ValueError for shapes that do not belong together, or a tolerance < 0.
    """
    inside, rank, finite = _spanned(overlap, gram, tolerance)
    cosines = np.linalg.svd(inside, compute_uv=False)
    # Exactly: of what is lost an SVD leaves rounding.
    cosines = np.where(np.arange(cosines.shape[-1]) < rank[..., None], cosines, 0.0)
    return np.where(finite[..., None], np.minimum(cosines, 1.0), np.nan)


def direction_overlap(
    overlap: Float[np.ndarray, "*batch m r"],
    gram: Float[np.ndarray, "*batch m m"],
    *,
    tolerance: float = 1e-4,
) -> Float[np.ndarray, "*batch r"]:
    """‖P u_k‖² for every row of an orthonormal U, P the projection on the rows of W.

    What W spans, NaN and ValueError are as for `principal_cosines`.
    """
    inside, _, finite = _spanned(overlap, gram, tolerance)
    return np.where(finite[..., None], np.minimum((inside**2).sum(axis=-2), 1.0), np.nan)


def matrix_mse(
    overlap: Float[np.ndarray, "*batch m r"],
    gram: Float[np.ndarray, "*batch m m"],
    *,
    tolerance: float = 1e-4,
) -> Float[np.ndarray, "*batch"]:
    """‖P − UᵀU‖²_F/r, P as for `direction_overlap`: 1 where nothing is found, 0 where all is.

    NaN and ValueError as for `principal_cosines`.
    """
    inside, rank, finite = _spanned(overlap, gram, tolerance)
    r = overlap.shape[-1]
    error = (rank + r - 2 * (inside**2).sum(axis=(-2, -1))) / r
    return np.where(finite, np.maximum(error, 0.0), np.nan)


def weighted_mse(
    amplitudes: Float[np.ndarray, " r"], direction_overlaps: Float[np.ndarray, "*batch r"]
) -> Float[np.ndarray, "*batch"]:
    """Σ_k a_k² (1 − ‖P u_k‖²)/Σ_k a_k²: MSE_γ of arXiv 2602.05846, definition 2.7.

    ValueError for no vector of numbers other than 0, or an array of another number of directions.
    """
    shaped((None,), amplitudes=amplitudes)
    accepted = "expected a vector of numbers, not all 0"
    require(bool(0 < np.linalg.norm(amplitudes) < np.inf), "amplitudes", amplitudes, accepted)
    shaped((..., len(amplitudes)), direction_overlaps=direction_overlaps)
    square = amplitudes**2
    return np.asarray(((1 - direction_overlaps) * square).sum(axis=-1) / square.sum())


def _spanned(overlap, gram, tolerance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Û Uᵀ for an orthonormal basis Û of the rows of W, its rank, and where W is one and finite."""
    non_negative(tolerance=tolerance)
    shaped((..., None, None), overlap=overlap)
    shaped((*overlap.shape[:-1], overlap.shape[-2]), gram=gram)
    finite = np.isfinite(gram).all(axis=(-2, -1)) & np.isfinite(overlap).all(axis=(-2, -1))
    gram = np.where(finite[..., None, None], gram, 0.0).astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    finite = np.asarray(finite & _is_gram(values))
    keep = (values > tolerance * values[..., -1:]) & (values > 0)
    scale = np.where(keep, 1 / np.sqrt(np.where(keep, values, 1)), 0)
    basis = np.swapaxes(vectors * scale[..., None, :], -1, -2)
    inside = basis @ np.where(finite[..., None, None], overlap, 0.0).astype(np.float64)
    return inside, np.asarray(keep.sum(axis=-1)), finite


def _is_gram(eigenvalues: np.ndarray) -> np.ndarray:
    """Whether a Gram matrix can have these, smallest first."""
    return np.asarray(eigenvalues[..., 0] >= -ROUNDING * np.abs(eigenvalues).max(axis=-1))


def _possible(*covariances: np.ndarray) -> np.ndarray:
    """Which cells have finite and positive semi-definite matrices alone."""
    possible = np.ones(len(covariances[0]), bool)
    for matrices in covariances:
        finite = np.asarray(np.isfinite(matrices).all(axis=(-2, -1)))
        known = np.where(finite[:, None, None], matrices, 0.0).astype(np.float64)
        possible &= finite & _is_gram(np.linalg.eigvalsh(known))
    return possible


def population_error(
    target: Target,
    activation: Activation,
    *,
    readout: Float[np.ndarray, "cells m"],
    biases: Float[np.ndarray, "cells m"],
    intercept: Float[np.ndarray, " cells"] | None = None,
    overlap: Float[np.ndarray, "cells m r"],
    gram: Float[np.ndarray, "cells m m"],
) -> Float[np.ndarray, " cells"]:
    """E(f − g)² for f(x) = Σ_j a_j σ(w_j·x + b_j) + c and g(h) = E[y | h], a number a cell.

    Given M and Q the pre-activations and h are jointly Gaussian, so that

        E f² = Σ_jk a_j a_k E[σ(z_j) σ(z_k)],    E f g = Σ_j a_j E_h[g(h) E[σ(z_j) | h]],

    with one integral left after averaging σ in closed form (or by quadrature) over what is
    not conditioned on; g enters term by term, each over its own few directions. NaN where a
    cell is not finite, or no W has its Q. ValueError for shapes that do not belong together.
    """
    shaped((None, None), readout=readout)
    cells, m = readout.shape
    shaped((cells, m), biases=biases)
    shaped((cells, m, target.rank), overlap=overlap)
    shaped((cells, m, m), gram=gram)
    if intercept is not None:
        shaped((cells,), intercept=intercept)
    with double_precision():
        a, b, m, q = (
            jax.device_put(np.asarray(field, np.float64))
            for field in (readout, biases, overlap, gram)
        )
        known = target_integrals(target)
        square, mean = (np.asarray(v) for v in _model_moments(activation, a, b, q))
        c = np.asarray(0.0 if intercept is None else intercept, np.float64)
        overlaps = [_overlap_with_part(activation, *part, a, b, m, q) for part in known.parts]
        with np.errstate(invalid="ignore"):  # cells that are not finite
            error = square + known.square + c * (c + 2 * mean - 2 * known.mean)
            error = error - 2 * sum(map(np.asarray, overlaps), np.zeros(()))
        return np.where(_possible(gram), error, np.nan)


class TargetIntegrals(NamedTuple):
    """E g², E g, and of each term of g its directions, points on them and weights times g."""

    square: float
    mean: float
    parts: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]


def target_integrals(target: Target) -> TargetIntegrals:
    """What a population error needs of the target alone; remembered for the last ones."""
    try:
        return _integrals(target)
    except TypeError:  # a target with arrays among its settings has no hash
        return _integrals.__wrapped__(target)


@functools.lru_cache(maxsize=32)
def _integrals(target: Target) -> TargetIntegrals:
    with double_precision():
        terms = target.parts()
        rules = [rule(len(active)) for _, active in terms]
        values = _evaluated([part for part, _ in terms], [points for points, _ in rules])
        parts, means, variances = [], [], []
        for (_, active), (points, weights), g in zip(terms, rules, values, strict=True):
            parts.append((np.asarray(active, np.int32), points, weights * g))
            means.append(weights @ g)
            variances.append(weights @ g**2 - means[-1] ** 2)
        variance = sum(variances)
        for i, j in itertools.combinations(range(len(terms)), 2):
            if not set(terms[i][1]).isdisjoint(terms[j][1]):
                variance += 2 * (_mean_of_product(terms[i], terms[j]) - means[i] * means[j])
        mean = sum(means)
        return TargetIntegrals(float(variance + mean**2), float(mean), tuple(parts))


def _mean_of_product(first: Part, second: Part) -> float:
    """E[f g] of two terms, by an integral over the directions of both."""
    (f, on_f), (g, on_g) = first, second
    union = sorted({*on_f, *on_g})
    points, weights = rule(len(union))
    columns = [[union.index(i) for i in active] for active in (on_f, on_g)]
    of_f, of_g = _evaluated([f, g], [points[:, some] for some in columns])
    return float(weights @ (of_f * of_g))


def _evaluated(functions: list[Callable], points: list[np.ndarray]) -> list[np.ndarray]:
    """Each function at its points: few in one program, many one operation after the other."""

    def all_of_them(points):
        return [function(h) for function, h in zip(functions, points, strict=True)]

    few = len(functions) <= 8  # more would take longer to compile together
    evaluated = jax.jit(all_of_them) if few else all_of_them
    return [np.asarray(values) for values in evaluated(jax.device_put(points))]


@functools.partial(jax.jit, static_argnums=0)
def _model_moments(activation, *cells):
    """E f² and E f of every cell, without its intercept."""

    def one(cell):
        a, b, q = cell
        return a @ activation.products(b, q) @ a, a @ activation.smoothed(b, diagonal(q))

    return jax.lax.map(one, cells)


@functools.partial(jax.jit, static_argnums=0)
def _overlap_with_part(activation, active, points, g, *cells):
    """E[f g_part] of every cell, by an integral over the part's directions of g E[f | h]."""

    def one(cell):
        a, b, m, q = cell
        m = m[:, active]
        rest = jnp.maximum(diagonal(q) - (m**2).sum(axis=1), 0)

        def neuron(total, values):
            a_j, b_j, m_j, rest_j = values
            mean = points @ m_j + b_j
            return total + a_j * activation.smoothed(mean, jnp.full_like(mean, rest_j)), None

        conditional, _ = jax.lax.scan(neuron, jnp.zeros_like(g), (a, b, m, rest))
        return g @ conditional

    return jax.lax.map(one, cells)


# Points of ω over which the error of a posterior mean is averaged, above rank 1.
BELIEFS = 2**12


def bayes_error(
    channel: Channel,
    target: Target,
    *,
    overlap: Float[np.ndarray, "cells r r"],
    gram: Float[np.ndarray, "cells r r"],
    covariance: Float[np.ndarray, "cells r r"],
) -> Float[np.ndarray, " cells"]:
    """E(f − g)² for f(x) = E[g(h) | h ~ N(Ûx, C)], a number a cell.

    With M = Û Uᵀ and Q = Û Ûᵀ, ω = Û x is N(0, Q) and h | ω is N(Mᵀ Q⁻¹ ω, I − Mᵀ Q⁻¹ M): an
    average over ω alone, with E[g | ω] from the channel at both beliefs. NaN where a cell is not
    finite, or Q or C no covariance. ValueError for shapes that do not belong together.
    """
    r = target.rank
    shaped((None, r, r), overlap=overlap)
    shaped(overlap.shape, gram=gram, covariance=covariance)
    if r == 1:
        points, weights = line_rule(96)
        points = points[:, None]
    else:
        points, weights = scattered(r, BELIEFS, seed=0)
        weights = exact_weights(points, weights, degree=8)
    with double_precision():
        cells = [jax.device_put(np.asarray(a, np.float64)) for a in (overlap, gram, covariance)]
        means = _beliefs(channel, *map(jax.device_put, (points.T, weights)), *cells)
    error = np.asarray(means) + target_integrals(target).square
    return np.where(_possible(gram, covariance), error, np.nan)


@eqx.filter_jit
def _beliefs(channel, points, weights, *cells):
    """E f² − 2 E f g of every cell."""

    def one(cell):
        m, q, c = cell
        small = 1e-9 * jnp.eye(len(q))
        omega = jnp.linalg.cholesky(q + small) @ points
        turn = jnp.linalg.solve(q + small, m).T
        f = channel.predict(omega, c + small)
        g = channel.predict(turn @ omega, jnp.eye(len(q)) - turn @ m + small)
        return weights @ (f**2 - 2 * f * g)

    return jax.lax.map(one, cells)


def target_mean(target: Target) -> float:
    """E g(h), term by term."""
    return target_integrals(target).mean


def target_square(target: Target) -> float:
    """E g(h)², term by term where the terms share no direction."""
    return target_integrals(target).square
