"""Symmetries: which changes of the directions leave a target's labels alone, found from the target.

Directions are learnt up to these only: an overlap matrix is read after the best of them.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from mirage.precision import double_precision
from mirage.targets import Target, evaluation

# Signed permutations are all tried up to this rank (2^r r! of them).
MAX_RANK = 4
# Labels that agree to this, relative, at all of so many seeded points agree everywhere.
TOLERANCE, POINTS = 1e-9, 512
# Labels at which a likelihood is compared, for each point.
LABELS = 4


class Symmetries(NamedTuple):
    """Orthogonal P with P(y | P h) = P(y | h).

    `moves`: the signed permutations among them, identity first. `blocks`: sets of directions
    within which every rotation is one. `cosets`: of the moves, one for each class that rotations
    within blocks do not join; up to `MAX_RANK` every symmetry found is a rotation within blocks
    after one of these.
    """

    moves: Float[np.ndarray, "k r r"]
    blocks: tuple[tuple[int, ...], ...]
    cosets: Float[np.ndarray, "c r r"]


def symmetries(target: Target) -> Symmetries:
    """The symmetries of a target, remembered for the last ones.

    Candidates are tried at seeded points: g(P h) = g(h), and where the target has a method
    `log_likelihood(y, h)`, log P(y | P h) = log P(y | h) at a few labels y as well. Without one,
    y is taken to depend on h through g = E[y | h], as it does for every target whose label is
    g plus noise, or one of two values. Above rank `MAX_RANK` only those signed permutations are
    tried that change at most two directions.
    """
    try:
        return _remembered(target)
    except TypeError:  # a target with arrays among its settings has no hash
        return _remembered.__wrapped__(target)


@functools.lru_cache(maxsize=32)
def _remembered(target: Target) -> Symmetries:
    moves = invariant_moves(target)
    blocks = rotation_blocks(target)
    return Symmetries(moves, blocks, _cosets(moves, blocks))


def invariant_moves(target: Target) -> Float[np.ndarray, "k r r"]:
    """The signed permutations P with P(y | P h) = P(y | h), identity first."""
    h = _points(target.rank)
    kept = [move for move in _candidates(target.rank) if _unchanged(target, h, h @ move.T)]
    return np.stack(kept)


def rotation_blocks(target: Target) -> tuple[tuple[int, ...], ...]:
    """Sets of two or more directions within which any rotation of h leaves the label alone.

    A pair (i, j) is tried by turning it at every point by another angle. This does without
    gradients, which say nothing of a label that is a sign. The commutator of the rotations of
    (i, j) and (j, k) is that of (i, k), so that pairs join into blocks and nothing else is needed.
    """
    r = target.rank
    h = _points(r)
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, len(h))
    cos, sin = np.cos(angles), np.sin(angles)
    block_of = list(range(r))
    for i, j in itertools.combinations(range(r), 2):
        turned = h.copy()
        turned[:, i] = cos * h[:, i] - sin * h[:, j]
        turned[:, j] = sin * h[:, i] + cos * h[:, j]
        if block_of[i] != block_of[j] and _unchanged(target, h, turned):
            old, new = block_of[j], block_of[i]
            block_of = [new if b == old else b for b in block_of]
    members = (tuple(i for i in range(r) if block_of[i] == b) for b in dict.fromkeys(block_of))
    return tuple(block for block in members if len(block) > 1)


def aligned(
    overlap: Float[np.ndarray, "*batch m r"], target: Target
) -> Float[np.ndarray, "*batch m r"]:
    """P M for the symmetry P of the target that makes its trace largest; M = Û Uᵀ, m = r.

    Each coset P of signed permutations is followed, in every block, by the best rotation (the
    orthogonal Procrustes problem): max over R in SO(b) of Tr[R B] with B that block of P M.
    Above rank `MAX_RANK` single moves follow one another for as long as the trace grows, which
    finds a local maximum. A matrix with an entry that is not finite becomes NaN. Raises
    ValueError unless the last two dimensions are (r, r).
    """
    r = target.rank
    if overlap.shape[-2:] != (r, r):
        raise ValueError(
            f"overlap of shape {overlap.shape}: expected (..., {r}, {r}), one estimate for each "
            "direction of the target"
        )
    known = symmetries(target)
    finite = np.asarray(np.isfinite(overlap).all(axis=(-2, -1)))[..., None, None]
    best = np.where(finite, overlap, 0.0).astype(np.float64)
    for _ in range(1 if r <= MAX_RANK else r * r):
        before = np.trace(best, axis1=-2, axis2=-1)
        best = _one_move(best, known)
        if not (np.trace(best, axis1=-2, axis2=-1) > before + TOLERANCE).any():
            break
    return np.where(finite, best, np.nan)


def found_rank(
    overlap: Float[np.ndarray, "*batch m r"], *, threshold: float = 0.3
) -> Int[np.ndarray, "*batch"]:
    """How many singular values of M exceed `threshold`: the directions found.

    No symmetry changes it. 0 where M is not finite.
    """
    finite = np.asarray(np.isfinite(overlap).all(axis=(-2, -1)))
    matrix = np.where(finite[..., None, None], overlap, 0.0).astype(np.float64)
    above = np.linalg.svd(matrix, compute_uv=False) > threshold
    return np.asarray(above.sum(axis=-1) * finite)


def _points(rank: int) -> Float[np.ndarray, "n r"]:
    """Seeded points, some of them far out: a symmetry holds there too."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((POINTS, rank)) * rng.choice([1.0, 2.0, 3.0], (POINTS, 1))


def _candidates(rank: int) -> Iterator[Float[np.ndarray, "r r"]]:
    """Signed permutations, identity first: all, or above `MAX_RANK` those of two directions."""
    identity = np.eye(rank)
    if rank <= MAX_RANK:
        for order in itertools.permutations(range(rank)):
            for signs in itertools.product((1.0, -1.0), repeat=rank):
                yield np.asarray(signs)[:, None] * identity[list(order)]
        return
    yield identity
    for i in range(rank):
        yield np.diag(1 - 2 * identity[i])
    for pair in map(list, itertools.combinations(range(rank), 2)):
        for order, signs in itertools.product(
            (pair, pair[::-1]), itertools.product((1, -1), repeat=2)
        ):
            if order != pair or signs == (-1, -1):
                move = identity.copy()
                move[pair] = np.asarray(signs)[:, None] * identity[order]
                yield move


def _unchanged(target, h, moved) -> bool:
    """Whether P(y | moved) = P(y | h) at every point."""
    if not _same(evaluation.values(target, h), evaluation.values(target, moved)).all():
        return False
    if not hasattr(target, "log_likelihood"):
        return True
    y = evaluation.labels(target, h, seed=0)
    # A label of the point's own, then those of other points.
    return all(
        _same(*(_log_likelihood(target, np.roll(y, shift), z) for z in (h, moved))).all()
        for shift in range(LABELS)
    )


def _log_likelihood(target, y, h) -> np.ndarray:
    with double_precision():
        return np.asarray(target.log_likelihood(jnp.asarray(y), jnp.asarray(h)))


def _same(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Where two values agree, up to rounding of terms of the usual size; NaN is equal to NaN."""
    size = np.abs(first[np.isfinite(first)])
    scale = np.maximum(np.abs(first), np.median(size) if size.size else 0.0)
    with np.errstate(invalid="ignore"):
        close = (np.abs(first - second) <= TOLERANCE * scale) & np.isfinite(first)
    return close | (first == second) | (np.isnan(first) & np.isnan(second))


def _cosets(moves, blocks) -> np.ndarray:
    """One move of each class that differs by rotations within blocks."""
    if not blocks:
        return moves
    kept = []
    for move in moves:
        if not any(_turns_blocks(move @ other.T, blocks) for other in kept):
            kept.append(move)
    return np.stack(kept)


def _turns_blocks(matrix, blocks) -> bool:
    """Whether an orthogonal matrix is a rotation within each block and leaves all else."""
    rest = matrix.copy()
    for block in map(list, blocks):
        inside = np.ix_(block, block)
        if np.linalg.det(matrix[inside]) < 0.5:  # a reflection, or 0: directions that leave
            return False
        rest[inside] = np.eye(len(block))
    return bool(np.array_equal(rest, np.eye(len(matrix))))


def _one_move(matrix, known: Symmetries) -> np.ndarray:
    """R P M for the coset P and the rotation R within blocks that make the trace largest."""
    scores = np.full(matrix.shape[:-2], -np.inf)
    choice = np.zeros(matrix.shape[:-2], np.int64)
    for k, move in enumerate(known.cosets):
        score = np.einsum("ij,...ji->...", move, matrix)
        for block in map(list, known.blocks):
            inside = move[block] @ matrix[..., block]
            turned = _best_rotation(inside) @ inside
            score = score + np.trace(turned - inside, axis1=-2, axis2=-1)
        better = score > scores
        scores, choice = np.where(better, score, scores), np.where(better, k, choice)
    result = known.cosets[choice] @ matrix
    for block in map(list, known.blocks):
        rows = result[..., block, :]
        result[..., block, :] = _best_rotation(rows[..., block]) @ rows
    return result


def _best_rotation(matrix: Float[np.ndarray, "*batch b b"]) -> Float[np.ndarray, "*batch b b"]:
    """argmax over R in SO(b) of Tr[R B]: V D Uᵀ for B = U S Vᵀ, D = diag(1, ..., 1, det V Uᵀ).

    (Kabsch 1976.)
    """
    left, _, right = np.linalg.svd(matrix)
    last = np.sign(np.linalg.det(left) * np.linalg.det(right))
    left = left.copy()
    left[..., -1] *= last[..., None]
    return np.swapaxes(left @ right, -1, -2)
