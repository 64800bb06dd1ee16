"""Giant steps: gradient steps of order d on the first layer, then a readout by ridge."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage import lapack
from mirage.algorithms.base import Algorithm, Cost, Problem, Trained
from mirage.algorithms.fresh import fresh_gram
from mirage.algorithms.readout import ridge_readout, ridge_rows
from mirage.network import output


class State(eqx.Module):
    """W and the a it is trained with, the readout b, a and c, the features' eigenvalues."""

    weights: Float[Array, "m d"]
    output_weights: Float[Array, " m"]
    biases: Float[Array, " m"]
    readout: Float[Array, " m"]
    intercept: Float[Array, ""]
    eigenvalues: Float[Array, " k"]
    centre: Float[Array, ""]
    key: Key[Array, ""]
    memory: Any


class GiantStep(Algorithm):
    """One gradient step on W of order d (`steps` of them on the same samples, if told), with the
    network f(x) = (1/m) Σ_j a_j σ(w_j·x) of the mean-field scaling and η = `step_size` · m:

        w_j ← w_j − step_size · a_j (1/n) Σ_i ℓ'(f(x_i), y_i) σ'(w_j·x_i) x_i,

    so that a w_j of unit norm moves by a vector of order one. Before and after, with biases
    b ~ N(0, `bias_scale`²), the readout is ridge regression on n fresh samples with the features
    σ(w_j·x + b_j), as in `random_features`, λ the `ridge`. `centred` subtracts
    t · mean_i ℓ'(0, y_i) from the loss of the step.

    Saved of both states: overlaps, the error of the readout and, with `spectrum`, the eigenvalues
    of the covariance of the features over the fresh samples: a bulk, and after the step one
    outlier for the direction learnt. Ba et al. (2022, arXiv 2205.01445); Dandi, Krzakala, Loureiro,
    Pesce and Stephan (2023, arXiv 2305.18270); Cui et al. (2024, arXiv 2402.04980); Dandi et al.
    (2024, arXiv 2410.18938).
    """

    steps: int = eqx.field(static=True, default=1)
    step_size: float = 4.0
    ridge: float = 1e-2
    centred: bool = eqx.field(static=True, default=True)
    spectrum: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        self.check("steps", self.steps >= 0, "expected a whole number ≥ 0")
        self.check("step_size", self.step_size > 0, "expected a positive number")
        self.check("ridge", self.ridge > 0, "expected a positive number")

    def queries(self, network, rank):
        return network.width * self.steps, network.width * self.steps

    def bytes_working(self, *, n, network):
        return 24 * (network.width + 2) ** 2

    def init(self, key, problem, memory):
        key_network, key_biases, key_fresh = jax.random.split(key, 3)
        a, weights = problem.network.init(key_network, problem.directions)
        biases = problem.network.draw_biases(key_biases)
        centre = problem.centre() if self.centred else jnp.zeros((), weights.dtype)
        readout = self._readout(key_fresh, problem, weights, biases)
        return State(weights, a, biases, *readout, centre, key_fresh, memory)

    def step(self, state, problem):
        weights, a, m = state.weights, state.output_weights, len(state.output_weights)
        n = problem.matrix.rows.count.astype(weights.dtype)

        def pull(z, y):  # η ∂L̂/∂z for a block of rows: z (m, rows), y (rows,)
            f = output(problem.activation, a, z) / m
            slope = problem.loss.slope(f, y) - state.centre
            by_z = slope[None] * a[:, None] * problem.activation.derivative(z)
            return self.step_size * by_z / n, None

        step, _, memory = problem.matrix.pull_back(pull, weights, (problem.labels,), state.memory)
        weights = weights - step
        readout = self._readout(state.key, problem, weights, state.biases)
        return State(weights, a, state.biases, *readout, state.centre, state.key, memory)

    def _readout(self, key, problem: Problem, weights, biases):
        """a and c by ridge regression on fresh samples, and the eigenvalues of their features."""
        gram = fresh_gram(key, problem, weights, ridge_rows(problem.activation, biases))
        found = ridge_readout(gram, self.ridge)
        nothing = jnp.zeros((0,), weights.dtype)
        values = lapack.eigvalsh(found.covariance) if self.spectrum else nothing
        return found.weights, found.intercept, values

    def observe(self, state):
        named = {"readout": state.readout, "biases": state.biases, "intercept": state.intercept}
        return {**named, "feature_eigenvalue": state.eigenvalues} if self.spectrum else named

    def outcome(self, state):
        return {"output_weights": state.output_weights}

    def finish(self, key, state, problem):
        return Trained(state.weights, state.biases, state.readout, state.intercept)

    def cost(self, *, n, d, network, rank):
        m, states = network.width, self.steps + 1
        ridge = states * (2 * n * m * (min(m, d) + m) + 2 * m**3 // 3)
        return Cost(n * self.steps, 4 * n * d * m * self.steps + ridge)
