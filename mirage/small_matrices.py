"""Decompositions of r × r matrices for r of a few, written out: no LAPACK, any batch behind.

They compile to a handful of multiplications, take derivatives of any order, and run the same
under `vmap` (see `mirage.lapack` for what LAPACK does there on a CPU).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage import lapack

WRITTEN_OUT = 8


def cholesky(matrix: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """L, lower triangular, with L Lᵀ = matrix, for a positive definite matrix."""
    r = len(matrix)
    rows: list[list[Array]] = []
    for i in range(r):
        row: list[Array] = []
        for j in range(i + 1):
            rest = matrix[i, j] - sum(
                (row[k] * (row[k] if i == j else rows[j][k]) for k in range(j)),
                start=jnp.zeros((), matrix.dtype),
            )
            row.append(jnp.sqrt(rest) if i == j else rest / rows[j][j])
        rows.append(row)
    zero = jnp.zeros((), matrix.dtype)
    return jnp.stack([jnp.stack(row + [zero] * (r - len(row))) for row in rows])


def semidefinite_root(matrix: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """L, lower triangular, with L Lᵀ = matrix, for one that may be singular up to rounding.

    Where a pivot is rounding of its diagonal the column is zero.
    """
    r = len(matrix)
    smallest = 4 * r * jnp.finfo(matrix.dtype).eps
    zero = jnp.zeros((), matrix.dtype)
    rows: list[list[Array]] = []
    for i in range(r):
        row: list[Array] = []
        for j in range(i):
            rest = matrix[i, j] - sum((row[k] * rows[j][k] for k in range(j)), start=zero)
            pivot = rows[j][j]
            row.append(jnp.where(pivot > 0, rest / jnp.where(pivot > 0, pivot, 1), 0))
        rest = matrix[i, i] - sum((value**2 for value in row), start=zero)
        row.append(jnp.where(rest > smallest * matrix[i, i], jnp.sqrt(jnp.maximum(rest, 0)), 0))
        rows.append(row)
    return jnp.stack([jnp.stack(row + [zero] * (r - len(row))) for row in rows])


def any_root(matrix: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """L with L Lᵀ = matrix, for a matrix of any size that may be singular up to rounding.

    Above `WRITTEN_OUT` rows by LAPACK, which compiles sooner.
    """
    m = len(matrix)
    if m <= WRITTEN_OUT:
        return semidefinite_root(matrix)
    values, vectors = lapack.eigh(matrix)
    smallest = 4 * m * jnp.finfo(matrix.dtype).eps * values[-1]
    return vectors * jnp.sqrt(jnp.where(values > smallest, values, 0))[None]


def inverse_lower(lower: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """The inverse of a lower triangular matrix."""
    r = len(lower)
    zero = jnp.zeros((), lower.dtype)
    inverse = [[zero] * r for _ in range(r)]
    for j in range(r):
        inverse[j][j] = 1 / lower[j, j]
        for i in range(j + 1, r):
            total = sum((lower[i, k] * inverse[k][j] for k in range(j, i)), start=zero)
            inverse[i][j] = -total / lower[i, i]
    return jnp.stack([jnp.stack(row) for row in inverse])


def inverse(matrix: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """The inverse of a positive definite matrix."""
    root = inverse_lower(cholesky(matrix))
    return root.T @ root
