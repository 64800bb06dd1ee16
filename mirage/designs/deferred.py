"""Design `deferred`: X is never drawn; each product is sampled exactly in law when it is asked.

The principle of deferred decisions (Lu 2021, Householder Dice, arXiv 2101.07464): given the
products asked so far, X is still Gaussian in the directions nobody asked about. With
orthonormal right queries R, A = X R, and left queries L, B = Xᵀ L, a new right direction
Q ⟂ R has

    X Q = L (Bᵀ Q) + (I − L Lᵀ) G,      G ~ N(0, 1)^{n×k},

and a new left direction the mirror image. K query columns in all cost O((n + d) K) memory and
O((n + d) K²) time instead of O(n d).
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mirage.designs.base import Design, Matrix
from mirage.designs.rows import Rows, block_count
from mirage.options import require

BLOCK = 2048
# A direction whose part outside the basis is below this share of its norm counts as inside.
NEW = 1e-5
# Shifted Cholesky QR (Fukaya et al. 2020), a round each: (shift, whether to project on the basis).
# The shift keeps a nearly dependent block factorable, and each shifted round improves its
# condition by the square root of the shift: two reach down to `NEW`, and one round without it
# makes the vectors orthonormal to rounding. They have their full length before the second
# projection, so that twice is enough.
ROUNDS = ((1e-5, True), (1e-5, False), (0.0, True))


class Side(eqx.Module):
    """The queries of one side, orthonormal or zero, and the matrix's answers to them."""

    queries: Float[Array, "blocks K size"]
    answers: Float[Array, "other_blocks K other_size"]
    used: Int[Array, ""]

    @classmethod
    def empty(cls, near: Rows, far: Rows, columns: int) -> "Side":
        """No queries yet, and room for some."""
        return cls(
            queries=jnp.zeros((near.blocks, columns, near.size), jnp.float32),
            answers=jnp.zeros((far.blocks, columns, far.size), jnp.float32),
            used=jnp.zeros((), jnp.int32),
        )


def orthonormalise(
    basis: Float[Array, "blocks K size"], v: Float[Array, "blocks k size"], rows: Rows
) -> tuple[
    Float[Array, "blocks k size"], Float[Array, "k K"], Float[Array, "k k"], Bool[Array, " k"]
]:
    """Q, C, S, new with V = C basis + S Q and the vectors of [basis; Q] orthonormal or zero.

    A vector of V that lies in the span of the basis and of those before it, up to `NEW` of its
    norm, gives a zero in Q and `new` is False there: twin neurons ask the same thing twice.
    """
    k = v.shape[1]
    coefficients = jnp.zeros((k, basis.shape[1]), v.dtype)
    triangle = jnp.eye(k, dtype=v.dtype)
    gram = rows.gram(v, v)
    norm = jnp.sqrt(jnp.diag(gram))
    new = norm > 0
    for shift, project in ROUNDS:
        length = jnp.sqrt(jnp.diag(gram))
        new = new & (jnp.diag(triangle) * length > NEW * norm)
        scale = jnp.where(new, length, 1)
        inside = rows.gram(v, basis) if project else jnp.zeros_like(coefficients)
        # The Gram matrix of what lies outside the basis, its vectors scaled to unit norm.
        outside = (gram - inside @ inside.T) / jnp.outer(scale, scale)
        outside = jnp.where(jnp.outer(new, new), outside, 0) + jnp.diag(jnp.where(new, shift, 1))
        factor = scale[:, None] * jnp.linalg.cholesky(outside)
        undo = jax.scipy.linalg.solve_triangular(factor, jnp.eye(k, dtype=v.dtype), lower=True)
        undo = jnp.where(new[:, None], undo, 0)
        coefficients = coefficients + triangle @ inside
        triangle = triangle @ factor

        def improve(b, carry, inside=inside, undo=undo, project=project):
            v, gram = carry
            v_block = undo @ ((v[b] - inside @ basis[b]) if project else v[b])
            return v.at[b].set(v_block), gram + v_block @ v_block.T

        v, gram = rows.fold(improve, (v, jnp.zeros_like(gram)))
    return v, coefficients, triangle, new


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
    k = v.shape[1]
    q, coefficients, triangle, new = orthonormalise(asked.queries, v, near)
    known = near.gram(q, other.answers)  # Qᵀ B
    key = jax.random.fold_in(key, asked.used)

    def draw(b, carry):
        fresh, inside = carry
        g = jax.random.normal(jax.random.fold_in(key, b), (k, far.size), v.dtype)
        g = far.keep(b, jnp.where(new[:, None], g, 0))
        return fresh.at[b].set(g), inside + g @ other.queries[b].T

    start = (jnp.zeros((far.blocks, k, far.size), v.dtype), jnp.zeros_like(known))
    fresh, inside = far.fold(draw, start)
    correction = known - inside

    def answer(b, carry):
        fresh, result = carry
        a = fresh[b] + correction @ other.queries[b]
        product = coefficients @ asked.answers[b] + triangle @ a
        return fresh.at[b].set(a), result.at[b].set(product)

    answers, result = far.fold(answer, (fresh, jnp.zeros_like(fresh)))
    place = (0, asked.used, 0)
    return result, Side(
        queries=jax.lax.dynamic_update_slice(asked.queries, q, place),
        answers=jax.lax.dynamic_update_slice(asked.answers, answers, place),
        used=asked.used + k,
    )


class DeferredMatrix(Matrix):
    """X that exists only through the products asked of it."""

    rows: Rows
    key: Key[Array, ""]
    d: int = eqx.field(static=True)
    right: int = eqx.field(static=True)
    left: int = eqx.field(static=True)

    @property
    def columns(self) -> Rows:
        """The other side of X: its d columns, as one block."""
        return Rows(jnp.asarray(self.d, jnp.int32), blocks=1, size=self.d)

    def memory(self):
        return (
            Side.empty(self.columns, self.rows, self.right),
            Side.empty(self.rows, self.columns, self.left),
        )

    def forward(self, v, memory):
        right, left = memory
        key = jax.random.fold_in(self.key, 0)
        result, right = ask(v[None], right, left, near=self.columns, far=self.rows, key=key)
        return result, (right, left)

    def backward(self, g, memory):
        right, left = memory
        key = jax.random.fold_in(self.key, 1)
        result, left = ask(g, left, right, near=self.rows, far=self.columns, key=key)
        return result[0], (right, left)


class Deferred(Design):
    """X never drawn, its products exact in law. Needs fewer query columns than rows and columns."""

    memoryless: ClassVar[bool] = False

    def draw(self, key, inputs, *, n_max, d):
        return key

    def matrix(self, drawn, seed, n, inputs, *, n_max, d, right, left):
        rows = Rows.of(n, capacity=n_max, size=BLOCK)
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

    def seconds(self, *, n, d, right, left):
        return (n + d) * (right + left) * (2e-8 + 3e-10 * (right + left))

    def bytes_drawn(self, *, n_max, d):
        return 16

    def bytes_working(self, *, n_max: int, d: int, right: int, left: int) -> int:
        padded = BLOCK * block_count(n_max, BLOCK)
        return 4 * (padded + d) * (right + left + 4 * max(1, right // 4))
