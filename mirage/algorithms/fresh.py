"""Fresh samples, independent of those a network was trained on: for its readout and its error."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage import lapack
from mirage.algorithms.base import Problem, Trained
from mirage.designs import Rows
from mirage.designs.base import RowFunction
from mirage.network import output

BLOCK = 2048
# Rows for an error that is not integrated: its standard error is near one per cent.
TEST_ROWS = 2**14


def fresh_projections(
    key: Key[Array, ""], problem: Problem, weights: Float[Array, "m d"], rows: Rows, part: str
) -> tuple[Float[Array, "blocks r size"], Float[Array, "blocks m size"]]:
    """U x and W x for the rows x of one part.

    For x ~ N(0, I_d) no x is drawn: (U x, W x) is Gaussian with covariance [U; W][U; W]ᵀ = RᵀR,
    R from the QR decomposition of [U; W]ᵀ, which also holds for neurons that coincide.
    """
    stacked = jnp.concatenate([problem.directions, weights])
    r, d = problem.directions.shape
    if problem.inputs.standard_gaussian:
        root: Array = lapack.triangular_factor(stacked.T).T  # (r + m, min(r + m, d))

        def project(block):
            key_block = jax.random.fold_in(key, block)
            return root @ jax.random.normal(key_block, (root.shape[1], rows.size), root.dtype)
    else:
        source = problem.inputs.source(problem.inputs_key, part)

        def project(block):
            return stacked @ problem.inputs.block(source, block, size=rows.size, d=d).T

    both = rows.map(project)
    return both[:, :r], both[:, r:]


def fresh_pull_back(
    key: Key[Array, ""], problem: Problem, function: RowFunction, weights: Float[Array, "m d"]
) -> tuple[Float[Array, "m d"], Any]:
    """G X and sums over rows as by `Matrix.pull_back`, for as many fresh rows x ~ N(0, I_d).

    (G, summed) = function(W x, y), row by row. No x is drawn: with an orthonormal basis P of the
    span of U and W, Σ_i g_i x_iᵀ is Σ_i g_i (P x_i)ᵀ P plus a Gaussian matrix off that span whose
    rows have the covariance Σ_i g_i g_iᵀ.
    """
    stacked = jnp.concatenate([problem.directions, weights])
    r, d = problem.directions.shape
    basis, triangle = lapack.qr(stacked.T)  # (d, k), (k, r + m)
    rows = problem.matrix.rows
    key_x, key_y, key_rest = jax.random.split(key, 3)

    def visit(block, carry):
        inside, square, sums = carry
        shape = (triangle.shape[0], rows.size)
        p = jax.random.normal(jax.random.fold_in(key_x, block), shape, weights.dtype)
        both = triangle.T @ p
        y = problem.target.draw(jax.random.fold_in(key_y, block), both[:r].T)
        g, summed = function(both[r:], y)
        g = rows.keep(block, g)
        return inside + g @ p.T, square + g @ g.T, rows.add(block, sums, summed)

    like_z = jax.ShapeDtypeStruct((len(weights), rows.size), weights.dtype)
    like_y = jax.ShapeDtypeStruct((rows.size,), weights.dtype)
    g, summed = jax.eval_shape(function, like_z, like_y)
    start = (
        jnp.zeros((g.shape[0], triangle.shape[0]), g.dtype),
        jnp.zeros((g.shape[0], g.shape[0]), g.dtype),
        rows.no_sums(summed),
    )
    inside, square, sums = rows.fold(visit, start)
    values, vectors = lapack.eigh(square)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))[None]
    off = jax.random.normal(key_rest, (g.shape[0], d), weights.dtype)
    off = off - (off @ basis) @ basis.T
    return inside @ basis.T + root @ off, sums


def fresh_features(
    key: Key[Array, ""],
    problem: Problem,
    weights: Float[Array, "m d"],
    biases: Float[Array, " m"],
) -> tuple[Rows, Float[Array, "blocks m size"], Float[Array, "blocks size"]]:
    """Features σ(w_j·x + b_j) and labels of as many fresh samples as there were before."""
    old = problem.matrix.rows
    capacity = old.blocks * old.size
    rows = Rows.of(old.count, capacity=capacity, size=BLOCK, bound=old.bound)
    key_x, key_y = jax.random.split(key)
    h, z = fresh_projections(key_x, problem, weights, rows, "readout")

    def features(_, z_block):
        return problem.activation(z_block + biases[:, None])

    def label(block, h_block):
        return problem.target.draw(jax.random.fold_in(key_y, block), h_block.T)

    return rows, rows.map(features, z), rows.map(label, h)


def sampled_error(key: Key[Array, ""], problem: Problem, trained: Trained) -> Float[Array, ""]:
    """E(f − g)² as a mean over `TEST_ROWS` fresh rows, for inputs with no integral over (M, Q)."""
    rows = Rows.of(TEST_ROWS, capacity=TEST_ROWS, size=BLOCK)
    assert trained.weights is not None
    h, z = fresh_projections(key, problem, trained.weights, rows, "test")

    def squares(h_block, z_block):
        z_block = z_block + trained.biases[:, None]
        f = output(problem.activation, trained.readout, z_block) + trained.intercept
        return (f - problem.target(h_block.T)) ** 2

    return rows.mean(squares, h, z)
