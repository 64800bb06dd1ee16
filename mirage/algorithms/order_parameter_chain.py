"""One-pass SGD as a Markov chain of its order parameters: no X, no W, any d."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.algorithms.one_pass import OnePass, cosines, one_step, score
from mirage.options import require
from mirage.places import at, diagonal, full_pieces
from mirage.small_matrices import any_root
from mirage.wishart import wishart_root


class Compensated(eqx.Module):
    """A float32 sum of many small steps, with what rounding has left out so far (Kahan 1965)."""

    value: Float[Array, "*shape"]
    missing: Float[Array, "*shape"]

    @classmethod
    def of(cls, value: Float[Array, "*shape"]) -> "Compensated":
        return cls(value, jnp.zeros_like(value))

    def plus(self, change: Float[Array, "*shape"]) -> "Compensated":
        change = change + self.missing
        total = self.value + change
        return Compensated(total, change - (total - self.value))


class State(eqx.Module):
    """M and Q, the fixed a and b, and the best cosine with the target's subspace."""

    overlap: Compensated
    gram: Compensated
    output_weights: Float[Array, " m"]
    biases: Float[Array, " m"]
    cosine: Float[Array, ""]


class OrderParameterChain(OnePass):
    """`OnlineSgd` in law, seen through M = W Uᵀ and Q = W Wᵀ alone.

    Fresh Gaussian samples X enter through z = W Xᵀ, h = U Xᵀ and K = X Xᵀ. With (h, z) = R G,
    R Rᵀ the covariance [[I, Mᵀ], [M, Q]] and G made of N(0, 1), K is GᵀG plus the Gram matrix of
    what is left of the rows, a Wishart matrix with d − m − r degrees of freedom. After the step
    W ← W − C X,

        M ← M − C hᵀ,    Q ← Q − C zᵀ − z Cᵀ + C K Cᵀ,

    so (M, Q) is a Markov chain whose step costs the same at any d.
    """

    block = 256
    needs_law_alone = True
    seeds_at_once = 20

    def check_cell(self, *, n, d, network, rank):
        super().check_cell(n=n, d=d, network=network, rank=rank)
        accepted = f"expected at least {rank + network.width}, directions and neurons"
        require(d >= rank + network.width, "d", d, accepted)

    def init(self, key, problem, memory):
        rank, d = problem.directions.shape
        a, overlap, gram = problem.network.init_order_parameters(key, rank=rank, d=d)
        if self.spherical:
            norm = jnp.sqrt(diagonal(gram))
            overlap, gram = overlap / norm[:, None], gram / (norm[:, None] * norm[None])
        m, q = Compensated.of(overlap), Compensated.of(gram)
        return State(m, q, a, problem.network.init_biases(key), _cosine(m, q))

    def step(self, state, problem):
        window, size = problem.current_window(), self.batch_size
        (rank, d), m = problem.directions.shape, len(state.output_weights)
        count = self.block // size
        key = jax.random.fold_in(problem.inputs_key, window.block)
        key_g, key_rest = jax.random.split(key)
        g = jax.random.normal(key_g, (count, rank + m, size), jnp.float32)
        rest = wishart_root(key_rest, size=size, freedom=d - rank - m, count=count)
        gram = jnp.swapaxes(g, 1, 2) @ g + rest @ jnp.swapaxes(rest, 1, 2)
        labels = problem.draw_labels(
            window.block, jnp.swapaxes(g[:, :rank], 1, 2).reshape(self.block, rank)
        ).reshape(count, size)
        rule = self.rule(d)

        def batch(index, carry):
            m_now, q_now = carry
            overlap, square = m_now.value, q_now.value
            own = at(g, index)
            h = own[:rank]
            z = overlap @ h + any_root(square - overlap @ overlap.T) @ own[rank:]
            slope = score(problem, state.output_weights, state.biases, at(labels, index))
            done = one_step(self, rule, slope, z, at(gram, index))
            c, along, excess = done
            norm = 1 + excess
            shrink = along - excess
            change = (shrink[:, None] * overlap - c @ h.T) / norm[:, None]
            # (1 + along_j)(1 + along_k) − norm_j norm_k, and what C X adds.
            shrinks = shrink[:, None] + shrink[None] + jnp.outer(along, along)
            shrinks = shrinks - jnp.outer(excess, excess)
            cross = (c @ z.T) * (1 + along)[None]
            moved = shrinks * square - cross - cross.T + c @ at(gram, index) @ c.T
            return m_now.plus(change), q_now.plus(moved / jnp.outer(norm, norm))

        first, last = full_pieces(window.first, size), full_pieces(window.last, size)
        m, q = jax.lax.fori_loop(first, last, batch, (state.overlap, state.gram))
        q = jax.tree.map(lambda x: (x + x.T) / 2, q)
        if self.spherical:
            m, q = _on_the_sphere(m, q)
        return State(m, q, state.output_weights, state.biases, _cosine(m, q))

    def order_parameters(self, state, problem):
        return {"overlap": state.overlap.value, "gram": state.gram.value}

    def stopped(self, state):
        return self.passed(state.cosine)

    def finish(self, key, state, problem):
        return self.trained(state, None)


def _on_the_sphere(overlap: Compensated, gram: Compensated) -> tuple[Compensated, Compensated]:
    """Rows of norm 1 again: where E[C z] > 0, what rounding has added to a norm would grow."""
    excess = diagonal(gram.value) - 1 + diagonal(gram.missing)
    root = jnp.sqrt(1 + excess)
    shrink = -excess / (root * (1 + root))  # 1/√(1 + excess) − 1
    both = shrink[:, None] + shrink[None] + jnp.outer(shrink, shrink)
    return overlap.plus(shrink[:, None] * overlap.value), gram.plus(both * gram.value)


def _cosine(overlap: Compensated, gram: Compensated) -> Float[Array, ""]:
    return cosines(overlap.value, jnp.sqrt(diagonal(gram.value)))
