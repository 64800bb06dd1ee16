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
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from mirage.channels.channel import Channel
from mirage.theory.state_evolution import (
    Curve,
    cleaned,
    curve,
    growth,
    settled,
    start_of,
    threshold,
    update,
)

# Overlaps that differ by less are one.
SAME = 1e-4
# Starts of the search for stationary points, along each direction.
LEVELS = (1e-3, 0.2, 0.5, 0.8, 0.98)
MOST_STARTS = 64


def free_energy(
    channel: Channel, overlap: Float[Array, "r r"], alpha: Float[Array, ""] | float
) -> Float[Array, ""]:
    """f(Q), without the conditional entropy of y, which does not depend on Q."""
    eye = jnp.eye(len(overlap), dtype=overlap.dtype)
    _, log_det = jnp.linalg.slogdet(eye - overlap)
    evidence = channel.information(overlap).log_evidence
    return (jnp.trace(overlap) + log_det) / 2 + alpha * evidence


class StationaryPoint(NamedTuple):
    """A fixed point of state evolution; it is `stable` if small changes of Q die out."""

    overlap: Float[np.ndarray, "r r"]
    free_energy: float
    stable: bool


def stationary_points(channel: Channel, *, alpha: float) -> list[StationaryPoint]:
    """The stationary points of f, the highest first, up to what leaves the set of starts alone.

    Roots of the state-evolution map are sought from a grid of overlaps, those along (1, ..., ±1)
    included; points with overlaps that are negative or beyond 1 are left out. Where labels are
    continuous and noiseless f is +∞ at exact recovery of more directions than α allows to
    resist (`exact_recovery`), and that point is among them.
    """
    r = channel.rank
    with jax.enable_x64(True):
        roots, good = _roots(channel, jnp.asarray(alpha), jnp.asarray(_starts(r)))
        roots, good = np.asarray(roots), np.asarray(good)
        for kind in ("uninformed", "informed"):
            ends = curve(channel, np.array([alpha]), start=kind, jumps=False)
            roots = np.concatenate([roots, ends.overlap])
            good = np.concatenate([good, ends.converged])
        roots = np.concatenate([roots, np.zeros((1, r, r))])
        good = np.concatenate([good, [threshold(channel) > 0]])
        found: list[np.ndarray] = []
        for root in cleaned(roots[good]):
            values = np.linalg.eigvalsh(root)
            if values[0] < 0 or values[-1] > 1:
                continue
            if all(np.abs(root - other).max() > SAME for other in found):
                found.append(root)
        points = []
        for root in found:
            growth = _growth(channel, jnp.asarray(root), jnp.asarray(alpha))
            value = float(value_of(channel, root, alpha))
            points.append(StationaryPoint(root, value, bool(growth < 1)))
    return sorted(points, key=lambda point: -point.free_energy)


def exact_recovery(overlap: Float[np.ndarray, "r r"]) -> int:
    """How many directions are recovered exactly."""
    return int((np.linalg.eigvalsh(overlap) > 1 - SAME).sum())


def value_of(channel: Channel, overlap: Float[np.ndarray, "r r"], alpha: float) -> float:
    """f(Q), ±∞ where k directions are recovered exactly.

    There log det(I − Q) falls as k log V, V the posterior variance that is left, and Ψ grows as
    −½ log V for a label that is a number: f goes as ½ (k − α) log V.
    """
    exact = exact_recovery(overlap)
    if exact and alpha != exact:
        return math.inf if alpha > exact else -math.inf
    with jax.enable_x64(True):
        return float(_energy(channel, jnp.asarray(overlap), jnp.asarray(alpha)))


_energy = eqx.filter_jit(free_energy)


@eqx.filter_jit
def _growth(channel, overlap, alpha):
    """The largest factor by which a small symmetric change of Q grows in a step."""
    return growth(lambda q: update(channel, q, alpha), 0.999999 * overlap)


@eqx.filter_jit
def _roots(channel, alpha, starts):
    """Q = B Bᵀ with B lower triangular, so that it stays positive, by Levenberg and Marquardt."""
    r = starts.shape[-1]
    rows, columns = np.tril_indices(r)
    solver = optx.LevenbergMarquardt(rtol=1e-10, atol=1e-12)

    def overlap(b):
        root = jnp.zeros((r, r), b.dtype).at[rows, columns].set(b)
        return root @ root.T

    def residual(b, _):
        q = overlap(b)
        return (update(channel, q, alpha) - q)[rows, columns]

    def one(start):
        begin = jnp.linalg.cholesky(start)[rows, columns]
        found = optx.least_squares(residual, solver, begin, max_steps=100, throw=False).value
        return overlap(found), jnp.abs(residual(found, None)).max() < 1e-7

    return jax.lax.map(one, starts)


def _starts(r: int) -> np.ndarray:
    """Diagonal overlaps, and overlaps along (1, ±1, ...) for every pair of directions or all."""
    levels = LEVELS if r < 3 else LEVELS[::2]
    diagonal = [np.diag(values) for values in itertools.product(levels, repeat=r)]
    along = []
    if r > 1:
        for signs in itertools.product((1.0, -1.0), repeat=r - 1):
            u = np.array([1.0, *signs]) / math.sqrt(r)
            along += [level * np.outer(u, u) + 1e-3 * np.eye(r) for level in levels[1:-1]]
    return np.stack([*along, *diagonal][:MOST_STARTS])


@dataclasses.dataclass(frozen=True, eq=False)
class Optimal:
    """The curves of AMP and of the posterior mean over α, and the thresholds.

    `uninformed` is where AMP ends without knowledge, `informed` the highest branch;
    `overlap` (alphas, r, r) is the one with the largest free energy, `square` and `energies`
    (alphas, 2) E[E[y|ω]²] and the free energies that go with them. `alpha_it` is where the two
    curves part in that the informed one becomes the better, `alpha_alg` from where on AMP
    reaches it: NaN if there is no such hard phase among the α, None if it has no end there.
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
    """Both branches at every α, the better one, and the thresholds to `tolerance` in α."""
    alphas = np.asarray(alphas, np.float64)
    low = curve(channel, alphas, start="uninformed", tolerance=tolerance)
    high = curve(channel, alphas, start="informed", tolerance=tolerance)
    pairs = list(zip(low.overlap, high.overlap, alphas, strict=True))
    energies = np.array([[value_of(channel, q, a) for q in (u, i)] for u, i, a in pairs])
    apart = np.array([np.abs(u - i).max() > 10 * SAME for u, i, _ in pairs])
    hard = apart & (energies[:, 1] > energies[:, 0])
    overlap = np.where(hard[:, None, None], high.overlap, low.overlap)
    square = np.where(hard, high.square, low.square)
    alpha_it, alpha_alg = math.nan, math.nan
    order = np.argsort(alphas)
    if hard[order].any():
        places = order[hard[order]]
        alpha_it = _informed_wins(channel, alphas, order, places[0], low, high, tolerance)
        last = order.tolist().index(places[-1])
        if last + 1 < len(order):
            alpha_alg = _reached(
                channel, alphas, order[last], order[last + 1], low, high, tolerance
            )
        else:
            alpha_alg = math.inf
    return Optimal(
        low, high, energies, overlap, square, hard, threshold(channel), alpha_it, alpha_alg
    )


def _informed_wins(channel, alphas, order, first, low, high, tolerance) -> float:
    """The α below the first hard one at which the informed branch becomes the better."""
    place = order.tolist().index(first)
    if place == 0:
        return float(alphas[first])
    below, above = float(alphas[order[place - 1]]), float(alphas[first])
    start, top = low.overlap[order[place - 1]], high.overlap[first]
    while above - below > tolerance:
        middle = (above + below) / 2
        u = _from(channel, start, middle, "uninformed")
        i = _from(channel, top, middle, "informed")
        better = value_of(channel, i, middle) > value_of(channel, u, middle)
        if np.abs(u - i).max() > 10 * SAME and better:
            above = middle
        else:
            below = middle
    return (above + below) / 2


def _reached(channel, alphas, last, following, low, high, tolerance) -> float:
    """The α above the last hard one from which the uninformed branch is the informed one."""
    below, above = float(alphas[last]), float(alphas[following])
    start, top = low.overlap[last], high.overlap[following]
    while above - below > tolerance:
        middle = (above + below) / 2
        u = _from(channel, start, middle, "uninformed")
        i = _from(channel, top, middle, "informed")
        if np.abs(u - i).max() > 10 * SAME:
            below, start = middle, u
        else:
            above = middle
    return (above + below) / 2


def _from(channel: Channel, overlap: np.ndarray, alpha: float, kind: str) -> np.ndarray:
    with jax.enable_x64(True):
        start = 0.999 * overlap + 0.001 * start_of(kind, channel.rank)
        return cleaned(np.asarray(settled(channel, jnp.asarray(alpha), jnp.asarray(start)).overlap))
