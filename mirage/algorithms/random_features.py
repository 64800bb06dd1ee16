"""The lazy network: random features, of which the readout alone is trained."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.algorithms.base import Algorithm, Cost, Trained
from mirage.algorithms.readout import ridge_readout, ridge_rows


class State(eqx.Module):
    """W and b as they were drawn, the readout a and c, and what the matrix remembers."""

    weights: Float[Array, "m d"]
    biases: Float[Array, " m"]
    output_weights: Float[Array, " m"]
    intercept: Float[Array, ""]
    memory: Any


class RandomFeatures(Algorithm):
    """Ridge regression on the features σ(w_j·x + b_j) of a first layer that stays as it is drawn:

        min_{a, c} Σ_i (a·σ(W x_i + b) + c − y_i)² + λ m ‖a‖²,

    λ the `ridge`, that of the kernel σ·σ'/m; its normal equations are solved directly. W is the
    network's start and b ~ N(0, `bias_scale`²), and the loss is of no use. With n = d^κ samples
    and m neurons it learns the part of the target of degree below min(κ, log m/log d)
    (Mei, Misiakiewicz and Montanari 2022, arXiv 2101.10588).
    """

    ridge: float = 1e-2

    def __check_init__(self):
        self.check("ridge", self.ridge > 0, "expected a positive number")

    @property
    def steps(self):
        """One: the solution."""
        return 1

    def queries(self, network, rank):
        return network.width, 0

    def bytes_working(self, *, n, network):
        return 16 * (network.width + 2) ** 2

    def init(self, key, problem, memory):
        key_network, key_biases = jax.random.split(key)
        _, weights = problem.network.init(key_network, problem.directions)
        zeros = jnp.zeros(len(weights), weights.dtype)
        biases = problem.network.draw_biases(key_biases)
        return State(weights, biases, zeros, jnp.zeros((), weights.dtype), memory)

    def step(self, state, problem):
        rows = ridge_rows(problem.activation, state.biases)
        gram, memory = problem.matrix.gram(rows, state.weights, (problem.labels,), state.memory)
        readout = ridge_readout(gram, self.ridge)
        return State(state.weights, state.biases, readout.weights, readout.intercept, memory)

    def finish(self, key, state, problem):
        return Trained(state.weights, state.biases, state.output_weights, state.intercept)

    def cost(self, *, n, d, network, rank):
        m = network.width
        return Cost(0, 2 * n * m * (d + m) + 2 * m**3 // 3)
