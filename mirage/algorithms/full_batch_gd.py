"""Gradient descent on all samples at once, any layers of a two-layer network trained."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from mirage.algorithms.base import Algorithm, Cost, Trained
from mirage.algorithms.fresh import fresh_pull_back
from mirage.network import output


class State(eqx.Module):
    """W, a, b and c of f(x) = Σ_j a_j σ(w_j·x + b_j) + c, and what the matrix remembers."""

    weights: Float[Array, "m d"]
    output_weights: Float[Array, " m"]
    biases: Float[Array, " m"]
    intercept: Float[Array, ""]
    key: Key[Array, ""]
    memory: Any


class FullBatchGd(Algorithm):
    """f(x) = Σ_j a_j σ(w_j·x + b_j) + c, trained by T steps on one sample of n, used again and
    again:

        W ← W − η [∇_W L̂ + β W],    θ ← θ − η_θ ∇_θ L̂   for θ = a, b, c,

    L̂ the mean loss, or with `per_dimension` (1/d) Σ_i ℓ_i. `step_size` is η, `weight_decay` β;
    a, b and c stay as they are where their step size is 0, as by default. An intercept that is
    trained starts at −η_c mean_i ℓ'(0, y_i): the best constant for a network at zero, for MSE and
    η_c = 1. Exp 1 of the poster of arXiv 2511.15120 trains W and c (`intercept_step_size=1`);
    Dandi et al. (2024, arXiv 2402.03220) train W.

    With `fresh` every step sees n samples of its own: one pass over n · `steps`. For Gaussian
    inputs no X is drawn for it. `save_errors` also saves the population error after every step.
    """

    steps: int = eqx.field(static=True, default=200)
    step_size: float = 0.05
    weight_decay: float = 0.0
    readout_step_size: float = 0.0
    bias_step_size: float = 0.0
    intercept_step_size: float = 0.0
    per_dimension: bool = eqx.field(static=True, default=False)
    fresh: bool = eqx.field(static=True, default=False)
    save_errors: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        self.check("steps", self.steps >= 0, "expected a whole number ≥ 0")
        self.check("step_size", self.step_size > 0, "expected a positive number")
        for key in ("weight_decay", "readout_step_size", "bias_step_size", "intercept_step_size"):
            self.check(key, getattr(self, key) >= 0, "expected a number ≥ 0")

    @property
    def needs_gaussian(self):
        return self.fresh

    def queries(self, network, rank):
        columns = 0 if self.fresh else network.width * self.steps
        return columns, columns

    def init(self, key, problem, memory):
        key, key_steps = jax.random.split(key)
        a, weights = problem.network.init(key, problem.directions)
        intercept = -self.intercept_step_size * problem.centre()
        return State(weights, a, problem.network.init_biases(key), intercept, key_steps, memory)

    def step(self, state, problem):
        a, weights = state.output_weights[:, None], state.weights
        n = problem.matrix.rows.count.astype(weights.dtype)
        total = weights.shape[1] if self.per_dimension else n

        def pull(z, y):  # ∂L̂/∂z for a block of rows, and the sums of ∂L̂/∂a, ∂L̂/∂b, ∂L̂/∂c
            z = z + state.biases[:, None]
            f = output(problem.activation, state.output_weights, z) + state.intercept
            slope = problem.loss.slope(f, y) / total
            by_z = slope[None] * a * problem.activation.derivative(z)
            return by_z, (slope[None] * problem.activation(z), by_z, slope)

        key, memory = state.key, state.memory
        if self.fresh:
            key, key_step = jax.random.split(key)
            gradient, sums = fresh_pull_back(key_step, problem, pull, weights)
        else:
            gradient, sums, memory = problem.matrix.pull_back(
                pull, weights, (problem.labels,), memory
            )
        by_a, by_b, by_c = sums
        return State(
            weights - self.step_size * (gradient + self.weight_decay * weights),
            state.output_weights - self.readout_step_size * by_a,
            state.biases - self.bias_step_size * by_b,
            state.intercept - self.intercept_step_size * by_c,
            key,
            memory,
        )

    def observe(self, state):
        if not self.save_errors:
            return {}
        named = {"readout": state.output_weights, "biases": state.biases}
        return {**named, "intercept": state.intercept}

    def finish(self, key, state, problem):
        return Trained(state.weights, state.biases, state.output_weights, state.intercept)

    def cost(self, *, n, d, network, rank):
        return Cost(n * self.steps, 4 * n * d * network.width * self.steps)
