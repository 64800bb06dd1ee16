"""The Bayes-optimal limit: the replica free energy over Q, and what is hard below it.

    f(Q) = ½ Tr Q + ½ log det(I − Q) + α Ψ(Q),    Ψ(Q) = E log P(y|ω),

is sup_Q inf_Q̂ {−½ Tr Q Q̂ − ½ log det(I + Q̂) + ½ Tr Q̂ + α Ψ(Q)} with Q̂ = Q (I − Q)⁻¹ put in
(Aubin et al., arXiv 1806.05451; Barbier et al., arXiv 1708.03395). As ∂Ψ/∂Q = ½ E[g gᵀ], it is
stationary at the fixed points of state evolution; the one where it is largest is the overlap of
the posterior mean. Where that is not the one that AMP comes to from no knowledge, the target can
be learnt better than any known efficient algorithm does: the hard phase.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.optimize import root, root_scalar
from scipy.special import expit

from mirage.arguments import overlap_matrix, positive, positive_vector, whole
from mirage.channels.averages import SMALLEST
from mirage.channels.channel import Channel
from mirage.precision import double_precision
from mirage.theory.overlap_curves import Curve, continued, curve
from mirage.theory.settling import Settled, cleaned, settled
from mirage.theory.state_evolution import NEGLIGIBLE, averages, growth, mapped, start_of, threshold

# Overlaps that differ by less are one; branches are apart where they differ by APART.
SAME, APART = 1e-4, 1e-3
# Posterior variances between which the growth of Ψ at exact recovery is measured, and to what.
NARROW, RATE_ERROR = (1e-7, 1e-9), 2e-4
# A ray is scanned at so many q, even in log q/(1 − q), up to this far from 0.
SCANNED, REACH = 64, 12.0
# A ray is invariant if the map leaves it by less, at these q.
OFF_RAY, TRIED = 1e-7, (0.15, 0.7)
# Starts off the rays: overlaps of so much along a ray and so much across.
MIXED, MOST_STARTS = ((0.7, 0.2), (0.9, 0.5), (0.4, 0.05)), 12

# The state-evolution map at one α.
Map = Callable[[Float[np.ndarray, "r r"]], Float[np.ndarray, "r r"]]


def free_energy(
    channel: Channel, overlap: Float[Array, "r r"], alpha: Float[Array, ""] | float
) -> Float[Array, ""]:
    """f(Q), without the conditional entropy of y, which does not depend on Q.

    ValueError for an α ≤ 0, and a Q that is no overlap, 0 ≤ Q ≤ I.
    """
    positive(alpha=alpha)
    overlap_matrix(channel.rank, overlap=overlap)
    eye = jnp.eye(len(overlap), dtype=overlap.dtype)
    _, log_det = jnp.linalg.slogdet(eye - overlap)
    evidence = channel.information(overlap).log_evidence
    return (jnp.trace(overlap) + log_det) / 2 + alpha * evidence


def exact_recovery(overlap: Float[np.ndarray, "r r"]) -> int:
    """How many directions are recovered exactly: eigenvalues of 1, as `cleaned` leaves them.

    ValueError for a Q that is no overlap, 0 ≤ Q ≤ I.
    """
    overlap_matrix(None, overlap=overlap)
    return int((np.linalg.eigvalsh(overlap) > 1 - NEGLIGIBLE).sum())


def value_of(channel: Channel, overlap: Float[np.ndarray, "r r"], alpha: float) -> float:
    """f(Q), with its limit ±∞ where directions are recovered exactly.

    With k of them, and a posterior variance V → 0 left in each, f goes as (k/2 + α ρ) log V for
    Ψ that goes as ρ log V. ρ is measured (`_narrowed`): −½ for a continuous label without noise,
    0 for one that is discrete, −½ P(continuous) where a label is both. Where the two balance, as
    for h² at α = 1, f has a finite limit, which is returned. ValueError as `free_energy`.
    """
    positive(alpha=alpha)
    overlap_matrix(channel.rank, overlap=overlap)
    if exact_recovery(overlap):
        return _limit(channel, overlap, alpha)
    _, evidence = averages(channel, overlap[None])
    return _value(overlap, evidence[0], alpha)


def _value(overlap: np.ndarray, log_evidence: float, alpha: float) -> float:
    """f(Q) given Ψ(Q)."""
    _, log_det = np.linalg.slogdet(np.eye(len(overlap)) - overlap)
    return float((np.trace(overlap) + log_det) / 2 + alpha * log_evidence)


def _limit(channel: Channel, overlap: np.ndarray, alpha: float) -> float:
    """The limit of f where directions are recovered exactly."""
    wide, narrow = (_narrowed(overlap, variance) for variance in NARROW)
    _, evidence = averages(channel, np.stack([wide, narrow]))
    first, second = (math.log(variance + SMALLEST) for variance in NARROW)
    rate = (evidence[0] - evidence[1]) / (first - second)
    power = exact_recovery(overlap) / 2 + alpha * rate
    if abs(power) < RATE_ERROR * alpha:
        return _value(wide, evidence[0], alpha)
    return -math.copysign(math.inf, power)


def _narrowed(overlap: np.ndarray, variance: float) -> np.ndarray:
    """Q with 1 − `variance` for its eigenvalues of 1."""
    values, vectors = np.linalg.eigh(overlap)
    return (vectors * np.where(values > 1 - NEGLIGIBLE, 1 - variance, values)) @ vectors.T


class StationaryPoint(NamedTuple):
    """A fixed point of state evolution; it is `stable` if small changes of Q die out."""

    overlap: Float[np.ndarray, "r r"]
    free_energy: float
    stable: bool


def stationary_points(channel: Channel, *, alpha: float) -> list[StationaryPoint]:
    """The stationary points of f, the highest first.

    Sought in three ways: on rays Q = q P that the map keeps (`rays`), by every change of sign of
    F(q P) − q P over a grid of q, so that at rank 1 none is missed but pairs closer than the
    grid; where state evolution ends, from no knowledge and from all; and by Levenberg and
    Marquardt from a few Q off the rays, which may miss some. Exact recovery is no stationary
    point unless it attracts, that is where f is +∞. Averages of a `diagonal_only` channel are
    for a diagonal Q: points and instabilities that are not diagonal are seen through
    `channel.for_any_overlap()` alone, where averages are over scattered points and rays are
    kept roughly at best. ValueError for an α ≤ 0.
    """
    positive(alpha=alpha)

    def function(overlap):
        with double_precision():
            at = jnp.asarray(overlap, np.float64), jnp.asarray(alpha, np.float64)
            return np.asarray(mapped(channel, *at)[0])

    found: list[StationaryPoint] = []
    for overlap in _candidates(channel, function, alpha):
        if any(np.abs(overlap - other.overlap).max() < SAME for other in found):
            continue
        value = value_of(channel, overlap, alpha)
        exact = exact_recovery(overlap) > 0
        if value == math.inf if exact else _at_rest(function, overlap, alpha):
            found.append(StationaryPoint(overlap, value, growth(function, overlap) < 1))
    return sorted(found, key=lambda point: -point.free_energy)


def _candidates(channel: Channel, function: Map, alpha: float) -> Iterator[np.ndarray]:
    """Overlaps that may be stationary, the most accurate first."""
    r = channel.rank
    yield np.zeros((r, r))
    kept = [ray for ray in rays(r) if _is_kept(function, ray)]
    for ray in kept:
        yield from _along(function, ray)
    for branch in ("uninformed", "informed"):
        yield settled(channel, alpha, start_of(branch, r)).overlap
    for start in _mixed(kept[1:] or rays(r)[1:]):
        yield _nearest(function, start)


def rays(rank: int) -> list[Float[np.ndarray, "r r"]]:
    """Projectors that symmetries of targets tend to keep.

    I, those on some of the directions, and those on (1, ±1) of two and (1, ±1, ...) of all.
    ValueError for a rank below 1.
    """
    whole(1, rank=rank)
    eye = np.eye(rank)
    some = [
        np.diag(eye[list(chosen)].sum(axis=0))
        for size in range(1, rank)
        for chosen in itertools.combinations(range(rank), size)
    ]
    sizes = sorted({2, rank}) if rank > 1 else []
    lines = [
        np.array([1.0, *signs]) @ eye[list(chosen)]
        for size in sizes
        for chosen in itertools.combinations(range(rank), size)
        for signs in itertools.product((1.0, -1.0), repeat=size - 1)
    ]
    return [eye, *some, *(np.outer(u, u) / (u @ u) for u in lines)]


def _share(image: np.ndarray, ray: np.ndarray) -> float:
    """The q for which q P is nearest to a matrix."""
    return float((image * ray).sum() / np.trace(ray))


def _is_kept(function: Map, ray: np.ndarray) -> bool:
    images = [function(q * ray) for q in TRIED]
    return all(np.abs(image - _share(image, ray) * ray).max() < OFF_RAY for image in images)


def _along(function: Map, ray: np.ndarray) -> Iterator[np.ndarray]:
    """The fixed points on a ray, and its end, exact recovery, where that attracts."""

    def excess(q: float) -> float:
        return _share(function(q * ray), ray) - q

    grid = expit(np.linspace(-REACH, REACH, SCANNED))
    values = [excess(q) for q in grid]
    for (low, below), (high, above) in itertools.pairwise(zip(grid, values, strict=True)):
        if below * above < 0:
            found = root_scalar(excess, bracket=(low, high), xtol=1e-12, rtol=1e-10)
            yield found.root * ray
    if values[-1] > 0:
        yield ray


def _mixed(chosen: list[np.ndarray]) -> list[np.ndarray]:
    """Starts between the rays: a P + b (I − P)."""
    starts = [a * ray + b * (np.eye(len(ray)) - ray) for a, b in MIXED for ray in chosen]
    return starts[:MOST_STARTS]


def _nearest(function: Map, start: np.ndarray) -> np.ndarray:
    """The Q = B Bᵀ, B lower triangular, that Levenberg and Marquardt come to.

    In scipy, by differences: a compiled Jacobian of the map takes longer than all the rest.
    """
    r = len(start)
    rows, columns = np.tril_indices(r)

    def overlap(b):
        matrix = np.zeros((r, r))
        matrix[rows, columns] = b
        q = matrix @ matrix.T
        # A step may leave what is possible: it is cut off there, and the residual is not.
        return q / max(1.0, np.linalg.eigvalsh(q)[-1] / (1 - NEGLIGIBLE)), q

    def residual(b):
        inside, q = overlap(b)
        return (function(inside) - q)[rows, columns]

    begin = np.linalg.cholesky(start)[rows, columns]
    found = root(residual, begin, method="lm", options={"xtol": 1e-11, "maxiter": 400})
    return cleaned(overlap(found.x)[0])


def _at_rest(function: Map, overlap: np.ndarray, alpha: float) -> bool:
    """Whether Q is a fixed point, to a share of the posterior variance that is left."""
    change = np.linalg.solve(np.eye(len(overlap)) - overlap, function(overlap) - overlap)
    return bool(np.abs(change).max() < 1e-5 * max(1.0, alpha))


@dataclasses.dataclass(frozen=True, eq=False)
class Optimal:
    """The curves of AMP and of the posterior mean over α, and the thresholds.

    `uninformed` is where AMP ends without knowledge, `informed` the highest branch;
    `energies` (alphas, 2) are their free energies. An α is `hard` where the two differ and the
    informed one has the larger; `overlap` (alphas, r, r) and `square` E[E[y|ω]²] are of the
    informed one there, and of the other elsewhere.

    The hard phase reaches from `alpha_it`, where the informed branch becomes the better (for a
    target that is hard again further up, the first such α), to `alpha_alg`, from where on AMP
    reaches it (the last). Both are NaN where none of the α is hard: a phase that lies between
    two neighbours is not seen. `alpha_it` is 0 where the smallest α is hard already, `alpha_alg`
    inf where the largest is hard still.
    """

    uninformed: Curve
    informed: Curve
    energies: Float[np.ndarray, "alphas 2"]
    overlap: Float[np.ndarray, "alphas r r"]
    square: Float[np.ndarray, " alphas"]
    hard: Bool[np.ndarray, " alphas"]
    alpha_c: float
    alpha_it: float
    alpha_alg: float


def optimal(
    channel: Channel, alphas: Float[np.ndarray, " alphas"], *, tolerance: float = 1e-3
) -> Optimal:
    """Both branches at every α, the better one, and the thresholds to `tolerance` in α.

    ValueError for no α, an α ≤ 0 or a tolerance ≤ 0.
    """
    alphas = positive_vector("alphas", alphas)
    positive(tolerance=tolerance)
    low = curve(channel, alphas, start="uninformed", tolerance=tolerance)
    high = curve(channel, alphas, start="informed", tolerance=tolerance)
    energies = np.stack([_energies(channel, one) for one in (low, high)], axis=1)
    hard = _apart(low.overlap, high.overlap) & (energies[:, 1] > energies[:, 0])
    alpha_it, alpha_alg = _hard_phase(channel, low, high, hard, tolerance)
    return Optimal(
        uninformed=low,
        informed=high,
        energies=energies,
        overlap=np.where(hard[:, None, None], high.overlap, low.overlap),
        square=np.where(hard, high.square, low.square),
        hard=hard,
        alpha_c=threshold(channel),
        alpha_it=alpha_it,
        alpha_alg=alpha_alg,
    )


def _apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs(first - second).max(axis=(-2, -1)) > APART


def _energy(channel: Channel, overlap: np.ndarray, log_evidence: float, alpha: float) -> float:
    """f at a fixed point whose Ψ is known; exact recovery apart."""
    if exact_recovery(overlap):
        return _limit(channel, overlap, alpha)
    return _value(overlap, log_evidence, alpha)


def _energies(channel: Channel, found: Curve) -> np.ndarray:
    points = zip(found.overlap, found.log_evidence, found.alpha, strict=True)
    return np.array([_energy(channel, *point) for point in points])


def _hard_phase(channel, low, high, hard, tolerance) -> tuple[float, float]:
    """`alpha_it` and `alpha_alg`, each halved between an α that is hard and one that is not."""
    rising = np.argsort(low.alpha)
    places = np.flatnonzero(hard[rising])
    if len(places) == 0:
        return math.nan, math.nan

    def between(place: int, *, begins: bool) -> float:
        below, above = rising[place], rising[place + 1]
        ends = (low.alpha[below], low.overlap[below]), (high.alpha[above], high.overlap[above])
        return _edge(channel, *ends, begins=begins, tolerance=tolerance)

    first, last = places[0], places[-1]
    alpha_it = between(first - 1, begins=True) if first > 0 else 0.0
    alpha_alg = between(last, begins=False) if last + 1 < len(rising) else math.inf
    return alpha_it, alpha_alg


def _edge(channel, below, above, *, begins, tolerance) -> float:
    """Where the hard phase begins, or ends, between two (α, Q).

    Q is on the uninformed branch below and on the informed one above, so that each branch can be
    followed from its own side.
    """
    while above[0] - below[0] > tolerance:
        alpha = (below[0] + above[0]) / 2
        low = continued(channel, alpha, below[1], branch="uninformed")
        high = continued(channel, alpha, above[1], branch="informed")
        if _is_hard(channel, low, high, alpha) == begins:
            above = alpha, high.overlap
        else:
            below = alpha, low.overlap
    return float(below[0] + above[0]) / 2


def _is_hard(channel: Channel, low: Settled, high: Settled, alpha: float) -> bool:
    if not _apart(low.overlap, high.overlap):
        return False
    energies = [_energy(channel, one.overlap, one.log_evidence, alpha) for one in (low, high)]
    return energies[1] > energies[0]
