"""Fresh samples, independent of those a network was trained on: for its readout and its error."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage import lapack
from mirage.algorithms.base import Problem, Trained, draw_labels
from mirage.designs import Rows, grains
from mirage.designs.base import RowFunction
from mirage.network import output
from mirage.small_matrices import any_root

BLOCK = 2048
# Numbers a row that blocks are made for where kernels are slow to start.
NUMBERS = 256
# Rows for an error that is not integrated: its standard error is near one per cent.
TEST_ROWS = 2**14


def projections(
    key: Key[Array, ""], problem: Problem, weights: Float[Array, "m d"], rows: Rows, part: str
) -> Callable[[Any], Float[Array, "both size"]]:
    """A function of a block: U x and W x, one above the other, for the rows x of one part.

    For x ~ N(0, I_d) no x is drawn: (U x, W x) is Gaussian with covariance [U; W][U; W]ᵀ = RᵀR,
    R from the QR decomposition of [U; W]ᵀ, which also holds for neurons that coincide; with more
    neurons than dimensions x itself is no more numbers.
    """
    stacked = jnp.concatenate([problem.directions, weights])
    d = stacked.shape[1]
    if not problem.inputs.standard_gaussian:
        source = problem.inputs.source(problem.inputs_key, part)
        draw = lambda grain: problem.inputs.block(source, grain, size=rows.grain, d=d)  # noqa: E731
        return lambda block: stacked @ rows.drawn(draw, block, axis=0).T
    few = len(stacked) < d
    root: Array = lapack.triangular_factor(stacked.T).T if few else stacked  # (r + m, d at most)

    def draw(grain):
        own = jax.random.fold_in(key, grain)
        return jax.random.normal(own, (root.shape[1], rows.grain), root.dtype)

    return lambda block: root @ rows.drawn(draw, block)


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

    def draw(grain):
        own = jax.random.fold_in(key_x, grain)
        return jax.random.normal(own, (triangle.shape[0], rows.grain), weights.dtype)

    def visit(block, carry):
        inside, square, sums = carry
        p = rows.drawn(draw, block)
        both = triangle.T @ p
        y = draw_labels(key_y, problem.target, rows, block, both[:r])
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
    off = jax.random.normal(key_rest, (g.shape[0], d), weights.dtype)
    off = off - (off @ basis) @ basis.T
    return inside @ basis.T + any_root(square) @ off, sums


def fresh_features(
    key: Key[Array, ""],
    problem: Problem,
    weights: Float[Array, "m d"],
    biases: Float[Array, " m"],
) -> tuple[Rows, Float[Array, "blocks m size"], Float[Array, "blocks size"]]:
    """Features σ(w_j·x + b_j) and labels of as many fresh samples as there were before."""
    rows = _fresh_rows(problem)
    key_x, key_y = jax.random.split(key)
    both = rows.map(projections(key_x, problem, weights, rows, "readout"))
    r = len(problem.directions)

    def features(_, z_block):
        return problem.activation(z_block + biases[:, None])

    def label(block, h_block):
        return draw_labels(key_y, problem.target, rows, block, h_block)

    return rows, rows.map(features, both[:, r:]), rows.map(label, both[:, :r])


def fresh_gram(
    key: Key[Array, ""],
    problem: Problem,
    weights: Float[Array, "m d"],
    function: Callable[..., Float[Array, "k size"]],
    *,
    share: float = 1.0,
) -> Float[Array, "k k"]:
    """Σ_i φ_i φ_iᵀ over as many fresh samples as there were before, φ = function(W x, y).

    Or over a `share` of so many, at most all. Made block by block: it needs no array over all rows.
    """
    rows = _fresh_rows(problem, share)
    key_x, key_y = jax.random.split(key)
    project = projections(key_x, problem, weights, rows, "readout")
    r = len(problem.directions)

    def features(block):
        both = project(block)
        y = draw_labels(key_y, problem.target, rows, block, both[:r])
        return function(both[r:], y)

    return rows.gram_of(features)


def _fresh_rows(problem: Problem, share: float = 1.0) -> Rows:
    old = problem.matrix.rows
    count = old.count
    if share != 1:
        count = jnp.ceil(share * count.astype(jnp.float32)).astype(count.dtype)
    return _rows(count, capacity=old.blocks * old.size, bound=old.bound)


def _rows(count: Any, *, capacity: int, bound: Any = None) -> Rows:
    some = grains(BLOCK, NUMBERS)
    return Rows.of(count, capacity=capacity, size=BLOCK, grains=some, bound=bound)


def fresh_moments(
    key: Key[Array, ""],
    problem: Problem,
    weights: Float[Array, "m d"],
    function: Callable[..., Float[Array, "k size"]],
) -> Float[Array, "k k"]:
    """Σ_i φ_i φ_iᵀ over `TEST_ROWS` fresh rows, φ = function(W x, h), h = U x as (size, r)."""
    rows = _rows(TEST_ROWS, capacity=TEST_ROWS)
    project = projections(key, problem, weights, rows, "test")
    r = len(problem.directions)

    def features(block):
        both = project(block)
        return function(both[r:], both[:r].T)

    return rows.gram_of(features)


def sampled_error(key: Key[Array, ""], problem: Problem, trained: Trained) -> Float[Array, ""]:
    """E(f − g)² as a mean over `TEST_ROWS` fresh rows.

    For inputs with no integral over (M, Q), and networks too wide for it.
    """
    assert trained.weights is not None

    def predict(z):
        z = z + trained.biases[:, None]
        return output(problem.activation, trained.readout, z) + trained.intercept

    return mean_square_error(key, problem, trained.weights, predict)


def mean_square_error(
    key: Key[Array, ""],
    problem: Problem,
    weights: Float[Array, "m d"],
    predict: Callable[[Float[Array, "m size"]], Float[Array, " size"]],
) -> Float[Array, ""]:
    """E(f − g)² of f(x) = predict(W x) as a mean over `TEST_ROWS` fresh rows."""
    rows = _rows(TEST_ROWS, capacity=TEST_ROWS)
    project = projections(key, problem, weights, rows, "test")
    r = len(problem.directions)

    def visit(block, total):
        both = project(block)
        squares = (predict(both[r:]) - problem.target(both[:r].T)) ** 2
        return rows.add(block, total, squares)

    return rows.fold(visit, jnp.zeros((), weights.dtype)) / TEST_ROWS
