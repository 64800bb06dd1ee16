"""Σ_ℓ = E[ℓ'(0, y) (hhᵀ − I)]: what layer-wise GD's first stage sees of a target through a loss."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mirage.channels.preprocessing import Law
from mirage.gaussian import mean_and_error
from mirage.theory.directions import SIGMAS

# Of a matrix whose entries are of order one, what rounding and the cut into bins may leave.
FAINT = 1e-6


class LossMatrix(NamedTuple):
    """Σ_ℓ in the basis of h (r, r) with its standard error, and what follows from it.

    `eigenvalues` (largest |λ| first) are zero below five standard errors; `rank` counts the
    others, `condition_number` is max |λ| / min |λ| over them, inf where the rank is below r.
    """

    matrix: Float[np.ndarray, "r r"]
    error: float
    eigenvalues: Float[np.ndarray, " r"]
    directions: Float[np.ndarray, "r r"]
    rank: int
    condition_number: float


def loss_matrix(slopes: Law) -> LossMatrix:
    """Σ_ℓ from the law of T = −ℓ'(0, y) (arXiv 2511.15120, assumptions A4 and A5)."""
    replicas = -np.einsum("rb,rbij->rij", slopes.values, slopes.moments)
    value, error = mean_and_error(replicas)
    noise = float(np.linalg.norm(error))
    scale = math.sqrt(float((slopes.probability * slopes.values**2).sum(1).mean()))
    values, vectors = np.linalg.eigh(value)
    order = np.argsort(-np.abs(values), kind="stable")
    values, vectors = values[order], vectors[:, order].T
    values = np.where(np.abs(values) > SIGMAS * noise + FAINT * scale, values, 0.0)
    seen = np.abs(values[values != 0])
    full = len(seen) == len(values)
    condition = float(seen.max() / seen.min()) if full else math.inf
    return LossMatrix(value, noise, values, vectors, len(seen), condition)
