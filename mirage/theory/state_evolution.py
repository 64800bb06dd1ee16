"""State evolution: the overlap of Bayes-AMP for d → ∞, step by step and where it comes to rest.

    Q̂ = α E[g_out g_outᵀ],    Q ← Q̂ (I + Q̂)⁻¹,

with ω ~ N(0, Q), h | ω ~ N(ω, I − Q), y ~ P(·|h): Q is the overlap Û Uᵀ = Û Ûᵀ (Aubin et al., arXiv
1806.05451; Troiani et al., arXiv 2405.15480). All in float64; call inside `jax.enable_x64(True)`,
or through `curve`, which sees to it.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from mirage.channels.channel import Channel

# What stands for no overlap and for all of it at the start.
UNINFORMED, INFORMED = 1e-3, 1 - 1e-3
# Below this the overlap counts as none, this close to 1 as all.
NEGLIGIBLE = 1e-6
TOLERANCE, MAX_STEPS = 1e-9, 2000
# A step is carried on by at most so many times its length.
FARTHEST = 20.0


def update(
    channel: Channel, overlap: Float[Array, "r r"], alpha: Float[Array, ""] | float
) -> Float[Array, "r r"]:
    """One step of the map, at α = n/d."""
    conjugate = alpha * channel.information(overlap).score
    eye = jnp.eye(len(overlap), dtype=overlap.dtype)
    new = jnp.linalg.solve(eye + conjugate, conjugate)
    return (new + new.T) / 2


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

    The iteration runs in optimistix, on two steps of the map and their geometric continuation
    (Aitken's Δ², along the last step): the same fixed points, reached sooner. Derivatives are
    those of the implicit function.
    """

    def accelerated(overlap, arguments):
        channel, alpha = arguments
        _, (first, second) = jax.lax.scan(
            lambda q, _: (update(channel, q, alpha),) * 2, overlap, None, length=2
        )
        before, after = first - overlap, second - first
        size = jnp.maximum((before**2).sum(), 1e-300)
        ratio = (before * after).sum() / size
        factor = jnp.where(ratio < 1, ratio / jnp.maximum(1 - ratio, 1e-9), FARTHEST)
        factor = jnp.clip(factor, 0.0, FARTHEST)
        factor = jnp.where(ratio > 1, jnp.minimum(factor, 1.0), factor)
        ahead = second + jax.lax.stop_gradient(factor) * after
        values = jnp.linalg.eigvalsh(jax.lax.stop_gradient(ahead))
        inside = (values[0] > 0) & (values[-1] < 1)
        return jnp.where(inside, ahead, second)

    solver = optx.FixedPointIteration(rtol=tolerance, atol=tolerance)
    solution = optx.fixed_point(
        accelerated, solver, start, (channel, alpha), max_steps=max_steps, throw=False
    )
    return FixedPoint(solution.value, solution.result == optx.RESULTS.successful)


def start_of(kind: str, rank: int) -> Float[np.ndarray, "r r"]:
    """The start `uninformed` or `informed`."""
    return {"uninformed": UNINFORMED, "informed": INFORMED}[kind] * np.eye(rank)


@eqx.filter_jit
def settled(channel: Channel, alpha: Array, start: Array) -> FixedPoint:
    """`fixed_point`, compiled."""
    return fixed_point(channel, alpha=alpha, start=start)


@eqx.filter_jit
def _warm(channel: Channel, alphas: Array, first: Array, floor: Array) -> FixedPoint:
    """Fixed points at one α after the other, each started at the last, moved towards `floor`."""

    def one(overlap, alpha):
        # A direction that was not found starts with the little that it had in the beginning.
        found = fixed_point(channel, alpha=alpha, start=0.999 * overlap + 0.001 * floor)
        return found.overlap, found

    return jax.lax.scan(one, first, alphas)[1]


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
    map preserves order. A given start is used at every α. A jump is a step of the curve that
    does not close up when α is halved down to `tolerance`, and is looked for where neighbours
    differ.
    """
    alphas = np.asarray(alphas, np.float64)
    order = np.argsort(alphas)
    with jax.enable_x64(True):
        if isinstance(start, str):
            order = order[::-1] if start == "informed" else order
            floor = jnp.asarray(start_of(start, channel.rank))
            found = _warm(channel, jnp.asarray(alphas[order]), floor, floor)
            overlap = np.empty(found.overlap.shape)
            converged = np.empty(len(alphas), bool)
            overlap[order], converged[order] = np.asarray(found.overlap), found.converged
        else:
            given = jnp.asarray(start, np.float64)
            points = [settled(channel, jnp.asarray(alpha), given) for alpha in alphas]
            overlap = np.stack([np.asarray(point.overlap) for point in points])
            converged = np.array([bool(point.converged) for point in points])
        overlap = cleaned(overlap)
        square, evidence = averages(channel, overlap)
        steps = []
        if jumps and isinstance(start, str):
            ascending = np.argsort(alphas)
            pairs = zip(ascending[:-1], ascending[1:], strict=True)
            steps = [
                _locate(channel, (alphas[i], overlap[i]), (alphas[j], overlap[j]), start, tolerance)
                for i, j in pairs
                if _apart(overlap[i], overlap[j])
            ]
    return Curve(alphas, overlap, converged, square, evidence, [s for s in steps if s], tolerance)


def cleaned(overlap: Float[np.ndarray, "*batch r r"]) -> Float[np.ndarray, "*batch r r"]:
    """Overlaps with what is negligible set to 0, and what is all but 1 set to 1."""
    values, vectors = np.linalg.eigh((overlap + np.swapaxes(overlap, -1, -2)) / 2)
    values = np.where(values < NEGLIGIBLE, 0.0, np.where(values > 1 - NEGLIGIBLE, 1.0, values))
    result = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return np.where(np.abs(result) < NEGLIGIBLE, 0.0, result)


@eqx.filter_jit
def _averages(channel, overlaps):
    def one(overlap):
        information = channel.information(overlap)
        return information.square, information.log_evidence

    return jax.lax.map(one, overlaps)


def averages(
    channel: Channel, overlaps: Float[np.ndarray, "count r r"]
) -> tuple[Float[np.ndarray, " count"], Float[np.ndarray, " count"]]:
    """E[E[y|ω]²] and E[log P(y|ω)] at every overlap."""
    with jax.enable_x64(True):
        square, evidence = _averages(channel, jnp.asarray(overlaps, np.float64))
    return np.asarray(square), np.asarray(evidence)


# A step of the curve smaller than this is no jump.
SMALLEST_JUMP = 0.02


def _apart(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.abs(first - second).max() > SMALLEST_JUMP)


def _locate(channel, low, high, start, tolerance) -> Jump | None:
    """Halve the interval between two points, from the side that the curve is followed from."""
    informed = start == "informed"
    floor = jnp.asarray(start_of(start, channel.rank))
    while high[0] - low[0] > tolerance:
        middle = (low[0] + high[0]) / 2
        side = high if informed else low
        begin = 0.999 * jnp.asarray(side[1]) + 0.001 * floor
        point = cleaned(np.asarray(settled(channel, jnp.asarray(middle), begin).overlap))
        to_low, to_high = (np.abs(point - end[1]).max() for end in (low, high))
        if to_low < to_high:
            low = (middle, point)
        else:
            high = (middle, point)
        if not _apart(low[1], high[1]):
            return None
    return Jump(float(low[0]), float(high[0]), low[1], high[1])


def stability(channel: Channel, overlap: Float[np.ndarray, "r r"]) -> Float[np.ndarray, ""]:
    """The largest factor by which small symmetric changes of Q grow in a step, over α.

    At Q = 0 it is 1/alpha_c, with E[h|y] = 0: weak recovery needs an α above its inverse.
    """
    with jax.enable_x64(True):
        return np.asarray(_stability(channel, jnp.asarray(overlap, np.float64)))


@eqx.filter_jit
def _stability(channel, overlap):
    return growth(lambda q: channel.information(q).score, overlap)


def growth(
    function: Callable[[Float[Array, "r r"]], Float[Array, "r r"]], overlap: Float[Array, "r r"]
) -> Float[Array, ""]:
    """The spectral radius of the derivative of a map between symmetric matrices."""
    rows, columns = np.triu_indices(len(overlap))

    def image(pair):
        i, j = pair
        change = jnp.zeros_like(overlap).at[i, j].set(1.0).at[j, i].set(1.0)
        _, moved = jax.jvp(function, (overlap,), (change,))
        return moved[rows, columns]

    images = jax.lax.map(image, (jnp.asarray(rows), jnp.asarray(columns)))
    return jnp.abs(jnp.linalg.eigvals(images.T)).max()


def threshold(channel: Channel) -> float:
    """alpha_c, where Q = 0 loses its stability: 0 where E[h|y] ≠ 0, inf where it never does."""
    r = channel.rank
    with jax.enable_x64(True):
        at_zero = np.asarray(eqx.filter_jit(channel.information)(jnp.zeros((r, r))).score)
    if np.abs(at_zero).max() > 1e-5:
        return 0.0
    growth = float(stability(channel, np.zeros((r, r))))
    return 1 / growth if growth > 1e-6 else np.inf
