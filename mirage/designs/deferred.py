"""Design `deferred`: X is never drawn; each product is sampled exactly in law when it is asked.

The principle of deferred decisions (Lu 2021, Householder Dice, arXiv 2101.07464): given the
products asked so far, X is still Gaussian in the directions nobody asked about. With
orthonormal right queries R, A = X R, and left queries L, B = Xᵀ L, a new right direction
Q ⟂ R has

    X Q = L (Bᵀ Q) + (I − L Lᵀ) G,      G ~ N(0, 1)^{n×k},

and a new left direction the mirror image. K query columns in all cost O((n + d) K) memory and
O((n + d) K²) time instead of O(n d).
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mirage import lapack
from mirage.designs.base import Design, Matrix
from mirage.designs.deferred_rows import deferred_rows
from mirage.designs.rows import Rows, block_count, grains
from mirage.options import require
from mirage.places import at, diagonal, piece, pieces, put, replace

BLOCK = 4096
# Numbers a row that blocks are made for where kernels are slow to start.
NUMBERS = 16
# A direction whose part outside the basis is below this share of its norm counts as inside.
NEW = 1e-5
# Shifted Cholesky QR (Fukaya et al. 2020), a round each. The shift keeps a nearly dependent block
# factorable, and each shifted round improves its condition by the square root of the shift: two
# reach down to `NEW`, and one round without it makes the vectors orthonormal to rounding. The
# first must exceed the rounding of 1 − ‖what lies inside the basis‖², 1e-5 or so.
SHIFTS = (1e-4, 1e-5, 0.0)


def slab() -> int:
    """Columns are visited so many at a time: those in use cost time, the capacity does not.

    Many where kernels are slow to start.
    """
    return 4 if jax.default_backend() == "cpu" else 64


class Side(eqx.Module):
    """The queries of one side and the matrix's answers to them: the first `used` columns.

    The queries in use are orthonormal; the other columns are zero.
    """

    queries: Float[Array, "blocks K size"]
    answers: Float[Array, "other_blocks K other_size"]
    used: Int[Array, ""]

    @classmethod
    def empty(cls, near: Rows, far: Rows, columns: int) -> "Side":
        """No queries yet, and room for some."""
        columns = slab() * -(-columns // slab())
        return cls(
            queries=jnp.zeros((near.blocks, columns, near.size), jnp.float32),
            answers=jnp.zeros((far.blocks, columns, far.size), jnp.float32),
            used=jnp.zeros((), jnp.int32),
        )


def read(
    columns: Float[Array, "blocks K size"], block: Int[Array, ""], first: Any, count: int
) -> Float[Array, "count size"]:
    """`count` columns of one block, from the `first` on."""
    place, shape = (block, first, 0), (1, count, columns.shape[2])
    return jax.lax.dynamic_slice(columns, place, shape, allow_negative_indices=False)[0]


def write(
    columns: Float[Array, "blocks K size"],
    block: Int[Array, ""],
    first: Any,
    values: Float[Array, "k size"],
) -> Float[Array, "blocks K size"]:
    """The columns with those of one block from the `first` on replaced."""
    place = (block, first, 0)
    return jax.lax.dynamic_update_slice(columns, values[None], place, allow_negative_indices=False)


def combine(
    coefficients: Float[Array, "k K"],
    columns: Float[Array, "blocks K size"],
    block: Int[Array, ""],
    used: Int[Array, ""],
) -> Float[Array, "k size"]:
    """coefficients · columns, of one block and the columns in use."""

    size = slab()

    def visit(s, total):
        first = s * size
        c = piece(coefficients, first, size, axis=1)
        return total + c @ read(columns, block, first, size)

    start = jnp.zeros((coefficients.shape[0], columns.shape[2]), columns.dtype)
    return jax.lax.fori_loop(0, pieces(used, size), visit, start)


def inner(
    v: Float[Array, "k size"],
    columns: Float[Array, "blocks K size"],
    block: Int[Array, ""],
    used: Int[Array, ""],
) -> Float[Array, "k K"]:
    """v · columnsᵀ, over the rows of one block and the columns in use."""

    size = slab()

    def visit(s, products):
        first = s * size
        product = v @ read(columns, block, first, size).T
        return replace(products, first, product, axis=1)

    start = jnp.zeros((v.shape[0], columns.shape[1]), v.dtype)
    return jax.lax.fori_loop(0, pieces(used, size), visit, start)


def extend(
    basis: Float[Array, "blocks K size"],
    used: Int[Array, ""],
    v: Float[Array, "blocks k size"],
    rows: Rows,
) -> tuple[Float[Array, "blocks K size"], Float[Array, "k K"], Int[Array, ""]]:
    """The basis with what is new in V appended, C with V = C basis, and how many were in use.

    A vector of V that lies in the span of the basis and of those before it, up to `NEW` of its
    norm, adds nothing: twin neurons ask the same thing twice.
    """
    k, end = v.shape[1], used + v.shape[1]
    eye = jnp.eye(k, dtype=v.dtype)
    nothing = jnp.zeros((k, basis.shape[1]), v.dtype)
    old = jnp.arange(basis.shape[1]) < used

    def place(square):
        return replace(nothing, used, square, axis=1)

    # Squares of small entries would be lost below 1e-38.
    size = jnp.abs(v).max(axis=(0, 2))
    v = v / jnp.where(size > 0, size, 1)[None, :, None]
    basis = replace(basis, used, v, axis=1)
    gram = rows.fold(lambda b, total: total + inner(read(v, b, 0, k), basis, b, end), nothing)
    norm = jnp.sqrt(diagonal(piece(gram, used, k, axis=1)))

    def improve(turn, carry):
        basis, gram, coefficients, triangle, new = carry
        last = turn == len(SHIFTS) - 1
        inside = jnp.where(old, gram, 0)
        square = piece(gram, used, k, axis=1)
        length = jnp.sqrt(diagonal(square))
        new = new & (diagonal(triangle) * length > NEW * norm)
        scale = jnp.where(new, length, 1)
        shift = at(jnp.asarray(SHIFTS, v.dtype), turn)
        # The Gram matrix of what lies outside the basis, its vectors scaled to unit norm.
        outside = (square - inside @ inside.T) / jnp.outer(scale, scale)
        outside = jnp.where(jnp.outer(new, new), outside, 0) + eye * jnp.where(new, shift, 1)[None]
        factor = scale[:, None] * lapack.cholesky(outside)
        undo = lapack.solve_lower(factor, eye)
        # Zeros for what is not new; they go behind the others in the end.
        order = jnp.where(last, jnp.argsort(~new), jnp.arange(k))
        undo = jnp.where(new[:, None], undo, 0)[order]
        coefficients = coefficients + triangle @ inside
        triangle = (triangle @ factor)[:, order]
        step = place(undo) - undo @ inside

        def visit(b, carry):
            basis, gram = carry
            v = combine(step, basis, b, end)
            basis = write(basis, b, used, v)
            return basis, gram + inner(v, basis, b, jnp.where(last, 0, end))

        basis, gram = rows.fold(visit, (basis, nothing))
        return basis, gram, coefficients, triangle, new

    start = (basis, gram, nothing, eye, norm > 0)
    basis, _, coefficients, triangle, new = jax.lax.fori_loop(0, len(SHIFTS), improve, start)
    coefficients = size[:, None] * (coefficients + place(triangle))
    return basis, coefficients, used + new.sum(dtype=used.dtype)


def normal_columns(
    key: Key[Array, ""],
    rows: Rows,
    block: Int[Array, ""],
    first: Any,
    new: Int[Array, ""],
    like: Float[Array, " k near_size"],
) -> Float[Array, "k size"]:
    """Standard normals of a block for `new` of k columns, zeros for the others.

    Those of column j by a key for `first` + j. All are drawn where kernels are slow to start.
    """

    def column(j):
        own = jax.random.fold_in(key, first + j)

        def draw(grain):
            return jax.random.normal(jax.random.fold_in(own, grain), (rows.grain,), like.dtype)

        return rows.drawn(draw, block)

    k = len(like)
    nothing = jnp.zeros((k, rows.size), like.dtype)
    if jax.default_backend() == "cpu":
        return jax.lax.fori_loop(0, new, lambda j, g: put(g, j, column(j)), nothing)
    some = jnp.arange(k) < new
    return jnp.where(some[:, None], jax.vmap(column)(jnp.arange(k)), nothing)


def ask(
    v: Float[Array, "blocks k size"],
    asked: Side,
    other: Side,
    *,
    near: Rows,
    far: Rows,
    key: Key[Array, ""],
) -> tuple[Float[Array, "other_blocks k other_size"], Side]:
    """The product of V (over the rows of the near side) with the matrix, and what is now asked.

    Right and left products are the same rule with the sides exchanged.
    """
    k, first = v.shape[1], asked.used
    queries, coefficients, used = extend(asked.queries, first, v, near)

    def overlap(b, total):
        return total + inner(read(queries, b, first, k), other.answers, b, other.used)

    nothing = jnp.zeros((k, other.queries.shape[1]), v.dtype)
    known = near.fold(overlap, nothing)  # Qᵀ B

    def draw(b, carry):
        answers, inside = carry

        g = far.keep(b, normal_columns(key, far, b, first, used - first, jnp.zeros_like(v[0])))
        answers = write(answers, b, first, g)
        return answers, inside + inner(g, other.queries, b, other.used)

    answers, inside = far.fold(draw, (asked.answers, nothing))
    correction = known - inside

    def answer(b, carry):
        answers, result = carry
        a = read(answers, b, first, k) + combine(correction, other.queries, b, other.used)
        answers = write(answers, b, first, a)
        return answers, write(result, b, 0, combine(coefficients, answers, b, used))

    result = jnp.zeros((far.blocks, k, far.size), v.dtype)
    answers, result = far.fold(answer, (answers, result))
    return result, Side(queries, answers, used)


class DeferredMatrix(Matrix):
    """X that exists only through the products asked of it."""

    rows: Rows
    key: Key[Array, ""]
    d: int = eqx.field(static=True)
    right: int = eqx.field(static=True)
    left: int = eqx.field(static=True)

    @property
    def columns(self) -> Rows:
        """The other side of X: its d columns, in blocks too, as sums over many would round."""
        count = jnp.asarray(self.d, jnp.int32)
        grain_count = -(-self.d // BLOCK)
        grain = -(-self.d // grain_count)
        some = min(grains(BLOCK, NUMBERS), grain_count)
        return Rows(count, count, blocks=-(-grain_count // some), size=some * grain, grain=grain)

    def memory(self):
        return (
            Side.empty(self.columns, self.rows, self.right),
            Side.empty(self.rows, self.columns, self.left),
        )

    def forward(self, v, memory):
        right, left = memory
        key = jax.random.fold_in(self.key, 0)
        columns = self.columns
        v = jnp.pad(v, ((0, 0), (0, columns.blocks * columns.size - self.d)))
        v = jnp.swapaxes(v.reshape(len(v), columns.blocks, columns.size), 0, 1)
        result, right = ask(v, right, left, near=columns, far=self.rows, key=key)
        return result, (right, left)

    def backward(self, g, memory):
        right, left = memory
        key = jax.random.fold_in(self.key, 1)
        result, left = ask(g, left, right, near=self.rows, far=self.columns, key=key)
        result = jnp.swapaxes(result, 0, 1).reshape(result.shape[1], -1)[:, : self.d]
        return result, (right, left)

    def covariance(self, weight, data, memory):
        """What nobody has asked for is drawn, block by block; only right queries may be before."""
        right, left = memory
        columns = right.queries.shape[1]
        basis = jnp.swapaxes(right.queries, 0, 1).reshape(columns, -1)[:, : self.d]
        key = jax.random.fold_in(self.key, 2)

        def draw(grain):
            own = jax.random.fold_in(key, grain)
            return jax.random.normal(own, (self.rows.grain, self.d), basis.dtype)

        def visit(b, total):
            # The barriers keep XLA from drawing it again for every use.
            g = jax.lax.optimization_barrier(self.rows.drawn(draw, b, axis=0))
            x = g + (at(right.answers, b).T - g @ basis.T) @ basis
            x = jax.lax.optimization_barrier(x)
            w = self.rows.keep(b, weight(*(at(array, b) for array in data)))
            return total + (w[:, None] * x).T @ x

        start = jnp.zeros((self.d, self.d), basis.dtype)
        start = eqx.error_if(start, left.used > 0, "covariance: X has been asked from the left")
        return self.rows.fold(visit, start)

    def window(self, window, v):
        return deferred_rows(self.key, window, v, size=self.rows.grain, moved=self.left)


class Deferred(Design):
    """X never drawn, its products exact in law. Needs fewer query columns than rows and columns."""

    memoryless: ClassVar[bool] = False
    block: int = eqx.field(static=True, default=BLOCK)

    def __check_init__(self):
        self.check("block", self.block >= 1, "expected a whole number ≥ 1")

    def draw(self, key, inputs, *, n_max, d):
        return key

    def matrix(self, drawn, seed, n, inputs, *, n_max, d, right, left, bound=None):
        some = grains(self.block, NUMBERS)
        rows = Rows.of(n, capacity=n_max, size=self.block, grains=some, bound=bound)
        return DeferredMatrix(rows=rows, key=drawn[seed], d=d, right=right, left=left)

    def check_size(self, inputs, *, n_min, d, right, left):
        require(
            inputs.standard_gaussian,
            "design",
            self.name(),
            f"inputs={inputs.name()} must be drawn: expected design=dense or design=streamed",
        )
        smaller = min(n_min, d)
        require(
            max(right, left) < smaller,
            "design",
            self.name(),
            f"this run asks for {max(right, left)} query columns, and they must stay below "
            f"min(n, d) = {smaller}; take design=dense, fewer steps or fewer neurons",
        )

    def bytes_drawn(self, *, n_max, d):
        return 16

    def bytes_working(self, *, n_max: int, d: int, right: int, left: int) -> int:
        size = self.block * grains(self.block, NUMBERS)
        padded = size * block_count(n_max, size)
        # Both sides, and a quarter for a question on its way and its answer.
        return 4 * (padded + d) * ((right + left) * 5 // 4 + 2 * slab())

    def seconds(self, *, n, d, right, left, steps):
        columns = right + left
        # Every question; labels; every step passes over the columns in use several times.
        return 1e-4 * columns + (n + d) * (3.7e-7 + 2.2e-9 * steps * columns)
