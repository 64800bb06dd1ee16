"""State evolution: the overlap of Bayes-AMP for d → ∞, step by step and where it comes to rest.

    Q̂ = α E[g_out g_outᵀ],    Q ← Q̂ (I + Q̂)⁻¹,

with ω ~ N(0, Q), h | ω ~ N(ω, I − Q), y ~ P(·|h): Q is the overlap Û Uᵀ = Û Ûᵀ (Aubin et al., arXiv
1806.05451; Troiani et al., arXiv 2405.15480). All in float64; call inside `jax.enable_x64(True)`,
or through `curve`, which sees to it.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float
from scipy.optimize import root

from mirage.channels.channel import Channel, Information
from mirage.small_matrices import cholesky

# What stands for no overlap and for all of it at the start.
UNINFORMED, INFORMED = 1e-3, 1 - 1e-3
# Below this the overlap counts as none, this close to 1 as all.
NEGLIGIBLE = 1e-6
# The iteration gives way to Powell's method where it moves by less than CLOSE, for a fixed point
# with a residual of no more than POLISHED; the line to it is looked at in so many places.
CLOSE, POLISHED, BETWEEN = 0.05, 1e-10, 5
# So much of a direction is put in, or left out, to see whether that grows.
LITTLE = 1e-5
# Closer to 1 than this recovery is exact: it attracts, or no iterate would come so close.
EXACT = 1e-9
# A direction with more is found.
FOUND = 1e-4
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
    """One step of the map, at α = n/d."""
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
    averages of a channel takes seconds, more than a curve does.
    """
    information = channel.information(overlap)
    return _answer(_score(channel, information), alpha), information


@eqx.filter_jit
def trajectory(
    channel: Channel, *, alpha: float | Array, start: Float[Array, "r r"], steps: int
) -> Float[Array, "steps r r"]:
    """The overlap after 0, 1, ..., `steps` steps from a given one."""

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
    """

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
    fixed point that is aimed at there may be another branch.
    """
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
    """The start `uninformed` or `informed`."""
    return {"uninformed": UNINFORMED, "informed": INFORMED}[kind] * np.eye(rank)


class Settled(NamedTuple):
    """A fixed point, whether it was reached, and E[E[y|ω]²] and E[log P(y|ω)] there."""

    overlap: Float[np.ndarray, "r r"]
    converged: bool
    square: float
    log_evidence: float


def settled(
    channel: Channel,
    alpha: float,
    start: Float[np.ndarray, "r r"],
    *,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> Settled:
    """`fixed_point` through `mapped`: nothing new to compile, and nothing to differentiate.

    The last digits come from `scipy.optimize.root` (`_polished`): the iteration slows down about
    thresholds, Newton's steps do not. A Q that is negligible and shrinks has settled, however
    slowly it goes to 0. Eigenvalues that
    are negligible, or all but 1, are made 0 or 1 (`cleaned`). Where the averages are not finite
    Q stays at the last that was, and has not converged.
    """
    with jax.enable_x64(True):
        at = jnp.asarray(alpha, np.float64)

        def image(overlap):
            new, information = mapped(channel, jnp.asarray(overlap), at)
            return np.asarray(new), information

        overlap, converged, last = np.asarray(start, np.float64), False, math.inf
        polish_at = 2
        for count in range(max_steps):
            new, information = image(overlap)
            first = bounded((overlap + new) / 2)
            if np.abs(first).max() < NEGLIGIBLE and np.trace(first) < np.trace(overlap):
                overlap, converged = first, True
                break
            second = bounded((first + image(first)[0]) / 2)
            new = np.asarray(carried_on(*map(jnp.asarray, (overlap, first, second))))
            if not np.isfinite(new).all():
                break
            new = bounded(new)
            change, overlap = np.abs(new - overlap).max(), new
            if change < tolerance:
                converged = True
                break
            slower, last = change < last, change
            if slower and change < CLOSE and count >= polish_at:
                polish_at = 1.5 * count + 1  # not again at once
                found = _polished(channel, image, overlap)
                if found is None:
                    continue
                leaving = _leaving(image, found)
                if not leaving.any():
                    overlap, information, converged = found, image(found)[1], True
                    break
                overlap = found + np.diag(leaving)
        square, evidence = float(information.square), float(information.log_evidence)
    return Settled(cleaned(overlap), converged, square, evidence)


def bounded(overlap: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"]:
    """With eigenvalues from 0 to 1, and those at 1 that are so up to `EXACT`. NaN stays NaN."""
    if not np.isfinite(overlap).all():
        return overlap
    values, vectors = np.linalg.eigh((overlap + overlap.T) / 2)
    values = np.where(values > 1 - EXACT, 1.0, np.maximum(values, 0.0))
    return (vectors * values) @ vectors.T


def _polished(channel, image, overlap) -> np.ndarray | None:
    """The fixed point next to Q by Powell's hybrid method, if that is where the iteration goes.

    So it is where the iteration moves towards it all along the straight line from Q.
    """
    rows, columns = np.triu_indices(len(overlap))
    free = (rows == columns) & (overlap[rows, columns] < 1) if channel.diagonal_only else rows >= 0
    rows, columns = rows[free], columns[free]
    if len(rows) == 0:
        return None

    def residual(x):
        q = overlap.copy()
        q[rows, columns] = q[columns, rows] = x
        return (image(bounded(q))[0] - q)[rows, columns]

    begin = overlap[rows, columns]
    options = {"xtol": 1e-13, "maxfev": 8 * (len(rows) + 1)}
    solution = root(residual, begin, method="hybr", options=options)
    move = solution.x - begin
    found = overlap.copy()
    found[rows, columns] = found[columns, rows] = solution.x
    values = np.linalg.eigvalsh(found)
    if np.abs(solution.fun).max() > POLISHED or values[0] < -LITTLE or values[-1] > 1 + LITTLE:
        return None
    moves = np.abs(move) > LITTLE
    for share in np.linspace(0, 1, BETWEEN + 2)[:-1]:
        if (residual(begin + share * move)[moves] * move[moves] < 0).any():
            return None
    return bounded(found)


def _leaving(image, overlap) -> np.ndarray:
    """What the iteration leaves an overlap by: directions at 0 that grow, those at 1 that shrink.

    The change (r,) of the diagonal that it would go on from, 0 where it stays.
    """
    size = np.diag(overlap)
    away = np.where(size < NEGLIGIBLE, 1.0, np.where(size > 1 - NEGLIGIBLE, -1.0, 0.0))
    if not away.any():
        return away
    # Of what is recovered exactly less is left out: its basin may be narrow.
    probe = overlap + np.diag(np.where(away > 0, LITTLE, -NEGLIGIBLE) * np.abs(away))
    further = np.diag(image(probe)[0] - probe) * away > 0
    return UNINFORMED * np.where(further, away, 0.0)


def _next_to(
    overlap: Float[np.ndarray, "r r"], floor: Float[np.ndarray, "r r"]
) -> Float[np.ndarray, "r r"]:
    """A start at a neighbour's fixed point, moved a little towards where its branch starts.

    A direction that was not found starts with the little that it had in the beginning.
    """
    return 0.999 * overlap + 0.001 * floor


def continued(
    channel: Channel, alpha: float, overlap: Float[np.ndarray, "r r"], *, branch: str
) -> Settled:
    """The fixed point at α on a branch, from that at a neighbouring α.

    The neighbour lies below α on the branch `uninformed`, above it on `informed`.
    """
    return settled(channel, alpha, _next_to(overlap, start_of(branch, channel.rank)))


class Jump(NamedTuple):
    """A jump of the curve: between these α, from one overlap to another."""

    low: float
    high: float
    before: Float[np.ndarray, "r r"]
    after: Float[np.ndarray, "r r"]


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Fixed points over α.

    `overlap` (alphas, r, r) and whether each `converged`; `square` E[E[y|ω]²], `log_evidence`
    E[log P(y|ω)] at each; `jumps` the discontinuities, each within `tolerance` in α.
    """

    alpha: Float[np.ndarray, " alphas"]
    overlap: Float[np.ndarray, "alphas r r"]
    converged: Bool[np.ndarray, " alphas"]
    square: Float[np.ndarray, " alphas"]
    log_evidence: Float[np.ndarray, " alphas"]
    jumps: list[Jump]
    tolerance: float


def curve(
    channel: Channel,
    alphas: Float[np.ndarray, " alphas"],
    *,
    start: str | Float[np.ndarray, "r r"] = "uninformed",
    tolerance: float = 1e-3,
    jumps: bool = True,
) -> Curve:
    """Fixed points at every α, from `uninformed` (α rising), `informed` (falling) or a given Q.

    From the first two every point starts at its neighbour, which keeps it on its branch: the
    map preserves order. A given start is used at every α, and its curve has no `jumps`. A jump
    is a step of the curve that does not close up when α is halved down to `tolerance`; it is
    looked for where neighbours differ, and between two neighbours the largest one is found.
    """
    alphas = np.asarray(alphas, np.float64)
    points: list[Settled] = []
    branch = start if isinstance(start, str) else None
    order = np.argsort(alphas)
    if branch is None:
        points = [settled(channel, alpha, np.asarray(start)) for alpha in alphas[order]]
    else:
        order = order[::-1] if branch == "informed" else order
        overlap = start_of(branch, channel.rank)
        for alpha in alphas[order]:
            points.append(continued(channel, alpha, overlap, branch=branch))
            overlap = points[-1].overlap
    points = [points[i] for i in np.argsort(order)]
    found = []
    if jumps and branch is not None:
        rising = np.argsort(alphas)
        ends = [(float(alphas[i]), points[i].overlap) for i in rising]
        for low, high in itertools.pairwise(ends):
            found.append(_locate(channel, low, high, branch, tolerance))
    return Curve(
        alphas,
        np.stack([point.overlap for point in points]),
        np.array([point.converged for point in points]),
        np.array([point.square for point in points]),
        np.array([point.log_evidence for point in points]),
        [jump for jump in found if jump is not None],
        tolerance,
    )


def found_from(channel: Channel, found: Curve) -> Float[np.ndarray, " r"]:
    """The α from which each direction has an overlap on the curve `uninformed`, to `tolerance`.

    Where directions before it are found only in part this is later than with them known. 0 where
    the smallest α has it already, inf where the largest has it not.
    """
    rising = np.argsort(found.alpha)
    alphas, overlaps = found.alpha[rising], found.overlap[rising]
    known: dict[tuple[int, bytes], float] = {}
    result = np.full(channel.rank, np.inf)
    for k in range(channel.rank):
        size = overlaps[:, k, k]
        places = np.flatnonzero(size > FOUND)
        if len(places):
            first = int(places[0])
            key = (
                first,
                np.round(size, 6).tobytes(),
            )  # directions that are alike are looked for once
            if key not in known:
                known[key] = _emergence(channel, found.tolerance, alphas, overlaps, k, first)
            result[k] = known[key]
    return result


def _emergence(channel, tolerance, alphas, overlaps, k, first) -> float:
    """Halve between the last α without direction k and the first with it."""
    if first == 0:
        return 0.0
    low, high, overlap = alphas[first - 1], alphas[first], overlaps[first - 1]
    while high - low > tolerance:
        middle = (low + high) / 2
        point = continued(channel, middle, overlap, branch="uninformed").overlap
        if point[k, k] > FOUND:
            high = middle
        else:
            low, overlap = middle, point
    return float(low + high) / 2


def cleaned(overlap: Float[np.ndarray, "*batch r r"]) -> Float[np.ndarray, "*batch r r"]:
    """Overlaps with what is negligible set to 0, and what is all but 1 set to 1."""
    values, vectors = np.linalg.eigh((overlap + np.swapaxes(overlap, -1, -2)) / 2)
    values = np.where(values < NEGLIGIBLE, 0.0, np.where(values > 1 - NEGLIGIBLE, 1.0, values))
    result = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return np.where(np.abs(result) < NEGLIGIBLE, 0.0, result)


def averages(
    channel: Channel, overlaps: Float[np.ndarray, "count r r"]
) -> tuple[Float[np.ndarray, " count"], Float[np.ndarray, " count"]]:
    """E[E[y|ω]²] and E[log P(y|ω)] at every overlap."""
    with jax.enable_x64(True):
        found = [mapped(channel, jnp.asarray(q, np.float64), jnp.zeros(()))[1] for q in overlaps]
        pairs = [(float(one.square), float(one.log_evidence)) for one in found]
    square, evidence = np.array(pairs).T
    return square, evidence


# A step of the curve smaller than this is no jump.
SMALLEST_JUMP = 0.02


def _apart(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.abs(first - second).max() > SMALLEST_JUMP)


def _locate(channel, low, high, branch, tolerance) -> Jump | None:
    """Halve the interval between two points, from the side that the branch is followed from."""
    while _apart(low[1], high[1]):
        if high[0] - low[0] <= tolerance:
            return Jump(low[0], high[0], low[1], high[1])
        middle = (low[0] + high[0]) / 2
        side = high if branch == "informed" else low
        point = continued(channel, middle, side[1], branch=branch).overlap
        to_low, to_high = (np.abs(point - end[1]).max() for end in (low, high))
        if to_low < to_high:
            low = (middle, point)
        else:
            high = (middle, point)
    return None


def stability(channel: Channel, overlap: Float[np.ndarray, "r r"]) -> float:
    """The largest factor by which small symmetric changes of Q grow in a step, over α.

    At Q = 0 it is 1/alpha_c, with E[h|y] = 0: weak recovery needs an α above its inverse.
    """
    return growth(lambda q: _score_at(channel, q), overlap)


def _score_at(channel, overlap) -> np.ndarray:
    with jax.enable_x64(True):
        _, information = mapped(channel, jnp.asarray(overlap, np.float64), jnp.ones(()))
        return np.asarray(_score(channel, information))


def growth(
    function: Callable[[Float[np.ndarray, "r r"]], Float[np.ndarray, "r r"]],
    overlap: Float[np.ndarray, "r r"],
) -> float:
    """The spectral radius of the derivative of a map between symmetric matrices.

    By differences along b bᵀ, for b a direction or the sum of two: Q stays positive. They are
    of third order and to one side. Averages have no derivative of use at a singular Q, where
    they go through roots of it.
    """
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
