"""Explicit power iteration with the label-weighted covariance."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.algorithms.base import Algorithm


class State(eqx.Module):
    """The iterates, one a neuron, their fixed factors, and what the matrix remembers."""

    weights: Float[Array, "m d"]
    factor: Float[Array, " m"]
    centre: Float[Array, ""]
    memory: Any


class PowerIteration(Algorithm):
    """w_j ← (1 − η1 β1) w_j − η1 a_j σ''(0) Σ̂_ℓ w_j with Σ̂_ℓ = (1/n) Σ ℓ'(0, y_i) x_i x_iᵀ.

    What layer-wise GD does as long as the network stays near zero (arXiv 2511.15120, proof
    sketch of Theorem 1). `step_size` is η1, `weight_decay` β1; null is 1/η1, at which the
    identity cancels and the iteration is a power of Σ̂_ℓ alone.
    """

    steps: int = eqx.field(static=True, default=20)
    step_size: float = 2.0
    weight_decay: float | None = None
    centred: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        self.check("steps", self.steps >= 0, "expected a whole number ≥ 0")
        self.check("step_size", self.step_size > 0, "expected a positive number")
        decay = self.weight_decay
        self.check("weight_decay", decay is None or decay >= 0, "expected a number ≥ 0 or null")

    def queries(self, network, rank):
        return network.width * self.steps, network.width * self.steps

    def init(self, key, problem, memory):
        a, weights = problem.network.init(key, problem.directions)
        zero = jnp.zeros((1,), weights.dtype)
        curvature = _second_derivative(problem.activation, zero)[0]
        centre = problem.centre() if self.centred else jnp.zeros((), weights.dtype)
        return State(weights, -self.step_size * a * curvature, centre, memory)

    def step(self, state, problem):
        count = problem.matrix.rows.count.astype(state.weights.dtype)

        def weighted(z, y):  # ℓ_i (x_i·w_j) / n, a block of rows
            weight = problem.loss.slope(jnp.zeros_like(y), y) - state.centre
            return weight[None] * z / count, None

        image, _, memory = problem.matrix.pull_back(
            weighted, state.weights, (problem.labels,), state.memory
        )
        weights = state.factor[:, None] * image
        if self.weight_decay is not None:
            weights = weights + (1 - self.step_size * self.weight_decay) * state.weights
        return State(weights, state.factor, state.centre, memory)


def _second_derivative(activation, z):
    return jax.jvp(activation.derivative, (z,), (jnp.ones_like(z),))[1]
