"""SGD that sees every sample once, one or a few at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.algorithms.one_pass import OnePass, cosines, one_step, score
from mirage.places import full_pieces, piece, replace


class State(eqx.Module):
    """W, the fixed a and b, and the best cosine with the target's subspace."""

    weights: Float[Array, "m d"]
    output_weights: Float[Array, " m"]
    biases: Float[Array, " m"]
    cosine: Float[Array, ""]


class OnlineSgd(OnePass):
    """One-pass SGD on the first layer of a two-layer network (Ben Arous, Gheissari, Jagannath
    2021, arXiv 2003.10409; Saad and Solla 1995), with the settings of `OnePass`.

    Rows are drawn and multiplied by a block. Within a block W is not touched: after the batches
    seen so far it is λ (W − C X), so that with the Gram matrix K = X Xᵀ of the block the
    pre-activations of the next batch are λ (W Xᵀ − C K), and a step costs as much at any d.
    """

    block = 32

    def init(self, key, problem, memory):
        a, weights = problem.network.init(key, problem.directions)
        if self.spherical:
            weights = weights / jnp.linalg.norm(weights, axis=1, keepdims=True)
        return State(weights, a, problem.network.init_biases(key), _cosine(weights, problem))

    def step(self, state, problem):
        (window, rows, z, y), size = problem.samples(state.weights), self.batch_size
        a, b = state.output_weights, state.biases
        rule = self.rule(state.weights.shape[1])

        def batch(index, carry):
            c, scale = carry
            first = index * size
            gram = piece(rows.gram, first, size, axis=1)
            now = piece(z, first, size, axis=1) - c @ gram
            own = piece(gram, first, size, axis=0)
            slope = score(problem, a, b, piece(y, first, size, axis=0))
            done = one_step(self, rule, slope, scale[:, None] * now, own)
            grown = scale * (1 + done.along)
            c = replace(c, first, done.coefficients / grown[:, None], axis=1)
            return c, grown / (1 + done.excess)

        start = jnp.zeros_like(z), jnp.ones_like(a)
        c, scale = jax.lax.fori_loop(
            full_pieces(window.first, size), full_pieces(window.last, size), batch, start
        )
        weights = scale[:, None] * (state.weights - rows.combine(c))
        if self.spherical:  # what rounding has added
            weights = weights / jnp.linalg.norm(weights, axis=1, keepdims=True)
        return State(weights, a, b, _cosine(weights, problem))

    def stopped(self, state):
        return self.passed(state.cosine)

    def finish(self, key, state, problem):
        return self.trained(state, state.weights)


def _cosine(weights, problem):
    return cosines(weights @ problem.directions.T, jnp.linalg.norm(weights, axis=1))
