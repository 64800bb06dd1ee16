"""Directions in the space of h: which a target depends on, and a basis one can read."""

import numpy as np
from jaxtyping import Float

from mirage.targets import Target, evaluation

# A moment is zero when it is less than this many standard errors.
SIGMAS = 5.0
# Eigenvalues of a direction matrix below this share of the largest are zero.
RANGE = 0.02
# A gradient closer to a direction than this lies along it, unless others say otherwise.
NEAR = 0.05
# Labels that change for fewer of the points than this do not depend on what was changed.
RARE = 1e-3


def tidy(directions: Float[np.ndarray, "k r"]) -> Float[np.ndarray, "k r"]:
    """Another orthonormal basis of the same space, along axes as far as it holds them (to 3 %)."""
    projection = directions.T @ directions
    axes = np.flatnonzero(np.diag(projection) > 1 - 1e-3)
    if len(axes) == len(directions):
        return np.eye(len(projection))[axes]
    rest, rows = projection.copy(), []
    for _ in directions:  # Gram-Schmidt, the axis with most of itself left in the space next
        lengths = np.linalg.norm(rest, axis=1)
        row = rest[int((lengths > lengths.max() - 1e-6).argmax())]
        rows.append(row / np.linalg.norm(row))
        rest = rest - np.outer(rest @ rows[-1], rows[-1])
    return np.stack(rows)


def aligned(target: Target, directions: Float[np.ndarray, "k r"]) -> Float[np.ndarray, "k r"]:
    """The directions moved onto the span of the gradients of g that nearly lie in them.

    A label without noise given h along a direction that is off by ε still tells, through ε, of
    all other directions. Gradients are exact to rounding: where those that lie within a few per
    cent of the directions span a space of the same dimension, it is the one that is meant.
    """
    h = np.random.default_rng(1).standard_normal((1024, target.rank))
    gradients = evaluation.gradients(target, h)
    gradients = gradients[np.isfinite(gradients).all(axis=1)]
    lengths = np.linalg.norm(gradients, axis=1)
    gradients = gradients[lengths > 0] / lengths[lengths > 0, None]
    off = np.linalg.norm(gradients - gradients @ directions.T @ directions, axis=1)
    near = gradients[off < NEAR]
    k = len(directions)
    if len(near) < 64 or k == target.rank:
        return directions
    _, values, vectors = np.linalg.svd(near, full_matrices=False)
    if values[k] < 1e-9 * values[0] and values[k - 1] > 1e-2 * values[0]:
        return vectors[:k]
    return directions


def depends(
    target: Target, known: Float[np.ndarray, "s r"], rest: Float[np.ndarray, "q r"]
) -> bool:
    """Whether the label changes with h along `rest` at given h along `known` and given noise."""
    rng = np.random.default_rng(0)
    count = 2**15
    a = rng.standard_normal((count, len(known))) @ known
    first, second = (
        evaluation.labels(target, a + rng.standard_normal((count, len(rest))) @ rest, seed=0)
        for _ in range(2)
    )
    with np.errstate(invalid="ignore"):
        scale = np.maximum(np.abs(first), np.abs(second))
        same = (np.abs(first - second) <= 1e-9 * scale) | (first == second)
    return bool((~same).mean() > RARE)
