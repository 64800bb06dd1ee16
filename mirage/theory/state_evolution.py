"""State evolution: the overlap of Bayes-AMP for d → ∞, step by step and where it comes to rest.

    Q̂ = α E[g_out g_outᵀ],    Q ← Q̂ (I + Q̂)⁻¹,

with ω ~ N(0, Q), h | ω ~ N(ω, I − Q), y ~ P(·|h): Q is the overlap Û Uᵀ = Û Ûᵀ (Aubin et al., arXiv
1806.05451; Troiani et al., arXiv 2405.15480). All in float64; call inside `double_precision()`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mirage.arguments import overlap_matrix, positive, shaped, whole
from mirage.channels.channel import Channel, Information
from mirage.options import require
from mirage.precision import double_precision
from mirage.small_matrices import cholesky

# What stands for no overlap and for all of it at the start.
UNINFORMED, INFORMED = 1e-3, 1 - 1e-3
# Below this the overlap counts as none, this close to 1 as all.
NEGLIGIBLE = 1e-6
# MAX_STEPS counts pairs of steps.
TOLERANCE, MAX_STEPS = 1e-9, 2000
# A step is carried on by at most so many times its length, or by these shares of what is wanted
# where that would leave the overlaps that are possible.
FARTHEST = 40.0
SHARES = (1.0, 0.9, 0.5)
# The step of differences, for a posterior variance of 1.
DIFFERENCE = 3e-4
# A negative eigenvalue of no more than this is rounding.
ROUNDING = 1e-13


def update(
    channel: Channel, overlap: Float[Array, "r r"], alpha: Float[Array, ""] | float
) -> Float[Array, "r r"]:
    """One step of the map, at α = n/d; ValueError as `fixed_point`."""
    positive(alpha=alpha)
    overlap_matrix(channel.rank, overlap=overlap)
    return _answer(_score(channel, channel.information(overlap)), alpha)


def _score(channel, information):
    """E[g gᵀ]: of a `diagonal_only` channel the diagonal, which is all that it vouches for."""
    score = information.score
    return jnp.diag(jnp.diag(score)) if channel.diagonal_only else score


def _answer(score, alpha):
    """Q̂ (I + Q̂)⁻¹ for Q̂ = α E[g gᵀ]."""
    conjugate = alpha * score
    eye = jnp.eye(len(score), dtype=score.dtype)
    new = jnp.linalg.solve(eye + conjugate, conjugate)
    return (new + new.T) / 2


@eqx.filter_jit
def mapped(
    channel: Channel, overlap: Float[Array, "r r"], alpha: Float[Array, ""]
) -> tuple[Float[Array, "r r"], Information]:
    """`update`, compiled, with the averages that it comes from.

    All that is not differentiated runs through this one program from Python: compiling the
    averages of a channel takes seconds, more than a curve does. ValueError for another shape than
    (r, r): what Q and α are is not known here.
    """
    shaped((channel.rank, channel.rank), overlap=overlap)
    information = channel.information(overlap)
    return _answer(_score(channel, information), alpha), information


def trajectory(
    channel: Channel, *, alpha: float | Array, start: Float[Array, "r r"], steps: int
) -> Float[Array, "steps r r"]:
    """The overlap after 0, 1, ..., `steps` steps from a given one; ValueError as `fixed_point`."""
    positive(alpha=alpha)
    overlap_matrix(channel.rank, start=start)
    whole(0, steps=steps)
    return _trajectory(channel, alpha, start, steps)


@eqx.filter_jit
def _trajectory(channel, alpha, start, steps):
    def step(overlap, _):
        new = update(channel, overlap, alpha)
        return new, new

    _, rest = jax.lax.scan(step, start, None, length=steps)
    return jnp.concatenate([start[None], rest])


class FixedPoint(NamedTuple):
    """Where the map comes to rest, and whether it did within the steps allowed."""

    overlap: Float[Array, "r r"]
    converged: Bool[Array, ""]


def fixed_point(
    channel: Channel,
    *,
    alpha: float | Array,
    start: Float[Array, "r r"],
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> FixedPoint:
    """The fixed point that iterating the map from `start` leads to; differentiable in α and Δ.

    The iteration runs in optimistix, on two half steps Q ← (Q + F(Q))/2 and their continuation
    (`carried_on`): the same fixed points, reached sooner. Half steps, since F makes some changes
    of Q alternate: parity's Q11 − Q22 changes its sign and little else. Derivatives are those of
    the implicit function. `tolerance` is on the last change of Q, `max_steps` counts pairs.
    ValueError for an α, a tolerance or a number of steps ≤ 0, and a `start` that is no overlap,
    0 ≤ Q ≤ I.
    """
    import optimistix as optx  # slow to import, and needed for derivatives alone

    positive(alpha=alpha, tolerance=tolerance)
    overlap_matrix(channel.rank, start=start)
    whole(1, max_steps=max_steps)

    def accelerated(overlap, arguments):
        channel, alpha = arguments

        def half(q, _):
            new = (q + update(channel, q, alpha)) / 2
            return new, new

        _, (first, second) = jax.lax.scan(half, overlap, None, length=2)
        return carried_on(overlap, first, second)

    solver = optx.FixedPointIteration(rtol=tolerance, atol=tolerance)
    solution = optx.fixed_point(
        accelerated, solver, start, (channel, alpha), max_steps=max_steps, throw=False
    )
    return FixedPoint(solution.value, solution.result == optx.RESULTS.successful)


@jax.jit
def carried_on(
    overlap: Float[Array, "r r"], first: Float[Array, "r r"], second: Float[Array, "r r"]
) -> Float[Array, "r r"]:
    """Where three iterates lead to if their differences go on as a geometric sequence.

    Aitken's Δ² along the last step, with ratio ρ = ⟨Δ1, Δ2⟩/|Δ1|²: ρ/(1 − ρ) more of it. Where
    they grow, ρ > 1, the distance from the fixed point that is left is doubled. Never further
    than half of |Q| or |I − Q|: about either end the map is anything but linear, and beyond the
    fixed point that is aimed at there may be another branch. ValueError unless the three are
    square matrices of one size.
    """
    overlap_matrix(None, overlap=overlap)
    shaped(overlap.shape, first=first, second=second)
    factor = _how_much_further(*map(jax.lax.stop_gradient, (overlap, first, second)))
    return second + factor * (second - first)


def _how_much_further(overlap, first, second):
    before, after = first - overlap, second - first
    eye = jnp.eye(len(overlap), dtype=overlap.dtype)
    tiny = 1e-300
    ratio = (before * after).sum() / jnp.maximum((before**2).sum(), tiny)
    factor = jnp.clip(ratio / jnp.maximum(jnp.abs(1 - ratio), 1e-9), 0.0, FARTHEST)
    room = jnp.minimum((second**2).sum(), ((eye - second) ** 2).sum())
    factor = jnp.minimum(factor, jnp.sqrt(room / jnp.maximum((after**2).sum(), tiny)) / 2)
    tried = factor * jnp.asarray(SHARES, overlap.dtype)

    def possible(share):
        q = second + share * after
        roots = cholesky(q + ROUNDING * eye), cholesky(eye - q + ROUNDING * eye)
        return jnp.isfinite(jnp.stack(roots)).all()

    fits = jax.vmap(possible)(tried)
    return jnp.where(fits.any(), tried[jnp.argmax(fits)], 0.0)


def start_of(kind: str, rank: int) -> Float[np.ndarray, "r r"]:
    """The start `uninformed` or `informed`; ValueError for another, or a rank below 1."""
    known = {"uninformed": UNINFORMED, "informed": INFORMED}
    require(kind in tuple(known), "kind", kind, f"expected one of {', '.join(known)}")
    whole(1, rank=rank)
    return known[kind] * np.eye(rank)


def averages(
    channel: Channel, overlaps: Float[np.ndarray, "count r r"]
) -> tuple[Float[np.ndarray, " count"], Float[np.ndarray, " count"]]:
    """E[E[y|ω]²] and E[log P(y|ω)] at every overlap; ValueError for none, or what is no overlap."""
    shaped((None, channel.rank, channel.rank), overlaps=overlaps)
    require(len(overlaps) > 0, "overlaps", overlaps, "expected at least one")
    overlap_matrix(channel.rank, overlaps=overlaps)
    with double_precision():
        found = [mapped(channel, jnp.asarray(q, np.float64), jnp.zeros(()))[1] for q in overlaps]
        pairs = [(float(one.square), float(one.log_evidence)) for one in found]
    square, evidence = np.array(pairs).T
    return square, evidence


def stability(channel: Channel, overlap: Float[np.ndarray, "r r"]) -> float:
    """The largest factor by which small symmetric changes of Q grow in a step, over α.

    At Q = 0 it is 1/alpha_c, with E[h|y] = 0: weak recovery needs an α above its inverse.
    ValueError for a Q that is no overlap, 0 ≤ Q ≤ I.
    """
    overlap_matrix(channel.rank, overlap=overlap)
    return growth(lambda q: _score_at(channel, q), overlap)


def _score_at(channel, overlap) -> np.ndarray:
    with double_precision():
        _, information = mapped(channel, jnp.asarray(overlap, np.float64), jnp.ones(()))
        return np.asarray(_score(channel, information))


def growth(
    function: Callable[[Float[np.ndarray, "r r"]], Float[np.ndarray, "r r"]],
    overlap: Float[np.ndarray, "r r"],
) -> float:
    """The spectral radius of the derivative of a map between symmetric matrices.

    By differences along b bᵀ, for b a direction or the sum of two: Q stays positive. They are
    of third order and to one side. Averages have no derivative of use at a singular Q, where
    they go through roots of it. ValueError for a Q that is no overlap, 0 ≤ Q ≤ I.
    """
    overlap_matrix(None, overlap=overlap)
    r = len(overlap)
    rows, columns = np.triu_indices(r)
    base = (1 - NEGLIGIBLE) * overlap
    step = DIFFERENCE * (1 - np.linalg.eigvalsh(base)[-1])
    at_base = function(base)

    def along(b):
        direction = step * np.outer(b, b)
        once, twice, thrice = (function(base + k * direction) for k in (1, 2, 3))
        return ((18 * once - 9 * twice + 2 * thrice - 11 * at_base) / (6 * step))[rows, columns]

    eye = np.eye(r)
    single = [along(b) for b in eye]
    images = [
        single[i] if i == j else along(eye[i] + eye[j]) - single[i] - single[j]
        for i, j in zip(rows, columns, strict=True)
    ]
    return float(np.abs(np.linalg.eigvals(np.stack(images))).max())


def threshold(channel: Channel) -> float:
    """alpha_c, where Q = 0 loses its stability: 0 where E[h|y] ≠ 0, inf where it never does.

    As accurate as the averages: a few per cent where they are over scattered points.
    """
    zero = np.zeros((channel.rank, channel.rank))
    if np.abs(_score_at(channel, zero)).max() > 1e-5:
        return 0.0
    growth = stability(channel, zero)
    return 1 / growth if growth > 1e-6 else math.inf
