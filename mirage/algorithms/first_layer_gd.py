"""Gradient descent on the first layer and an intercept, the output weights fixed."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.algorithms.base import Algorithm, Trained
from mirage.network import output


class State(eqx.Module):
    """W, the fixed a, the intercept c, and what the matrix remembers."""

    weights: Float[Array, "m d"]
    output_weights: Float[Array, " m"]
    intercept: Float[Array, ""]
    memory: Any


class FirstLayerGd(Algorithm):
    """f(x) = Σ_j a_j σ(w_j·x) + c with a_j = ±1 fixed, W and c trained on one sample:

        W ← W − η [∇_W L̂ + β W],    c ← c − η_c ∂_c L̂.

    Exp 1 of the poster of arXiv 2511.15120: four quadratic neurons fit a quadratic target once
    W is trained until the error settles, and there is no second stage. `step_size` is η,
    `weight_decay` β, `intercept_step_size` η_c: at 1 and for the square loss c follows W exactly.
    """

    steps: int = eqx.field(static=True, default=200)
    step_size: float = 0.05
    weight_decay: float = 0.0
    intercept_step_size: float = 1.0

    def __check_init__(self):
        self.check("steps", self.steps >= 0, "expected a whole number ≥ 0")
        self.check("step_size", self.step_size > 0, "expected a positive number")
        for key in ("weight_decay", "intercept_step_size"):
            self.check(key, getattr(self, key) >= 0, "expected a number ≥ 0")

    def queries(self, network, rank):
        return network.width * self.steps, network.width * self.steps

    def init(self, key, problem, memory):
        a, weights = problem.network.init(key, problem.directions.shape[1])
        # The best constant for a network at zero: one step of size η_c from c = 0.
        intercept = -self.intercept_step_size * problem.centre()
        return State(weights, a, intercept, memory)

    def step(self, state, problem):
        a, weights = state.output_weights[:, None], state.weights
        n = problem.matrix.rows.count.astype(weights.dtype)

        def pull(z, y):  # ∂L̂/∂z_ij and ∂L̂/∂c for a block of rows
            f = output(problem.activation, state.output_weights, z) + state.intercept
            slope = problem.loss.slope(f, y) / n
            return slope[None] * a * problem.activation.derivative(z), slope

        gradient, slope, memory = problem.matrix.pull_back(
            pull, weights, (problem.labels,), state.memory
        )
        weights = weights - self.step_size * (gradient + self.weight_decay * weights)
        intercept = state.intercept - self.intercept_step_size * slope
        return State(weights, state.output_weights, intercept, memory)

    def finish(self, key, state, problem):
        biases = jnp.zeros_like(state.output_weights)
        return Trained(state.weights, biases, state.output_weights, state.intercept)
