"""Fixed points of state evolution along α: branches, their jumps, and where directions appear."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mirage.channels.channel import Channel
from mirage.theory.settling import Settled, settled
from mirage.theory.state_evolution import start_of

# A direction with more is found.
FOUND = 1e-4
# A step of the curve smaller than this is no jump.
SMALLEST_JUMP = 0.02


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
            # Directions that are alike are looked for once.
            key = (first, np.round(size, 6).tobytes())
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
