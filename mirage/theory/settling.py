"""Where state evolution comes to rest, to the last digits: an iteration, then a solver."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import root

from mirage.channels.channel import Channel
from mirage.precision import double_precision
from mirage.theory.state_evolution import (
    MAX_STEPS,
    NEGLIGIBLE,
    TOLERANCE,
    UNINFORMED,
    carried_on,
    mapped,
)

# The iteration gives way to Powell's method where it moves by less than CLOSE, for a fixed point
# with a residual of no more than POLISHED; the line to it is looked at in so many places.
CLOSE, POLISHED, BETWEEN = 0.05, 1e-10, 5
# Numbers of Q this small are 0 by symmetry, and those that agree to so many decimals are equal.
AT_REST, EQUAL = 1e-12, 12
# So much of a direction is put in, or left out, to see whether that grows.
LITTLE = 1e-5
# Closer to 1 than this recovery is exact: it attracts, or no iterate would come so close.
EXACT = 1e-9


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
    with double_precision():
        at = jnp.asarray(alpha, np.float64)
        known = {}

        def image(overlap):
            if (place := overlap.tobytes()) not in known:  # the solver and its checks come back
                new, information = mapped(channel, jnp.asarray(overlap), at)
                known[place] = np.asarray(new), information
            return known[place]

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

    So it is where the iteration moves towards it all along the straight line from Q. Directions
    that are negligible are left out (`_leaving` looks after them), and so is what symmetry keeps
    at 0; numbers that the iteration kept equal are one unknown. All of them are checked.
    """
    size = np.diag(overlap)
    there = (size > NEGLIGIBLE)[:, None] & (size > NEGLIGIBLE)[None]
    begin = np.where(there & (np.abs(overlap) > AT_REST), overlap, 0.0)
    rows, columns = np.triu_indices(len(overlap))
    checked = (rows == columns) & (size[rows] < 1) if channel.diagonal_only else rows >= 0
    rows, columns = rows[checked], columns[checked]
    values, signs = np.abs(begin[rows, columns]), np.sign(begin[rows, columns])
    free = signs != 0
    sizes, unknown = np.unique(values[free].round(EQUAL), return_inverse=True)

    def put(x):
        q = begin.copy()
        q[rows[free], columns[free]] = q[columns[free], rows[free]] = signs[free] * x[unknown]
        return q

    def residuals(x):
        q = put(x)
        return (image(bounded(q))[0] - q)[rows, columns]

    def residual(x):
        of_each = (signs * residuals(x))[free]
        return np.bincount(unknown, of_each) / np.bincount(unknown)

    x = start = sizes
    if len(sizes):
        options = {"xtol": 1e-13, "maxfev": 8 * (len(sizes) + 1)}
        x = root(residual, start, method="hybr", options=options).x
    found = put(x)
    eigenvalues = np.linalg.eigvalsh(found)
    if eigenvalues[0] < -LITTLE or eigenvalues[-1] > 1 + LITTLE:
        return None
    if np.abs(residuals(x)).max(initial=0.0) > POLISHED:
        return None
    move = x - start
    moves = np.abs(move) > LITTLE
    for share in np.linspace(0, 1, BETWEEN + 2)[:-1]:
        if moves.any() and (residual(start + share * move)[moves] * move[moves] < 0).any():
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


def cleaned(overlap: Float[np.ndarray, "*batch r r"]) -> Float[np.ndarray, "*batch r r"]:
    """Overlaps with what is negligible set to 0, and what is all but 1 set to 1."""
    values, vectors = np.linalg.eigh((overlap + np.swapaxes(overlap, -1, -2)) / 2)
    values = np.where(values < NEGLIGIBLE, 0.0, np.where(values > 1 - NEGLIGIBLE, 1.0, values))
    result = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return np.where(np.abs(result) < NEGLIGIBLE, 0.0, result)
