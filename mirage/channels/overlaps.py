"""Overlap matrices Q as a user gives them."""

from typing import Any

import numpy as np
from jaxtyping import Float

from mirage.options import require


def overlap_matrix(value: Any, rank: int, *, key: str) -> Float[np.ndarray, "r r"]:
    """Q from one number, one a direction, or a matrix; ValueError unless 0 ⪯ Q ≺ I."""
    accepted = f"expected one number, {rank} numbers or a {rank} × {rank} matrix"
    try:
        q = np.asarray(value, np.float64)
    except (ValueError, TypeError):
        q = np.full((1, 1, 1), np.nan)
    shapes = {(): q * np.eye(rank) if q.ndim == 0 else q, (rank,): np.diag(q) if q.ndim == 1 else q}
    matrix = shapes.get(q.shape, q)
    require(matrix.shape == (rank, rank), key, value, accepted)
    require(bool(np.isfinite(matrix).all()), key, value, accepted)
    require(np.abs(matrix - matrix.T).max() < 1e-9, key, value, "expected a symmetric matrix")
    values = np.linalg.eigvalsh(matrix)
    inside = values[0] >= -1e-12 and values[-1] < 1
    words = f"its eigenvalues are {', '.join(f'{v:.3g}' for v in values)}"
    require(inside, key, value, f"expected a positive semi-definite overlap below 1; {words}")
    return matrix
