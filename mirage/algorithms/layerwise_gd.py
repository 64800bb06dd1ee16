"""Layer-wise gradient descent on a two-layer network: first the directions, then the readout."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mirage.algorithms.base import Algorithm, Cost, Trained
from mirage.algorithms.fresh import fresh_features
from mirage.algorithms.readout import readout_gd
from mirage.network import output

OPTIMIZERS = ("adam", "adamw", "amsgrad", "lion", "nadam", "radam", "rmsprop", "sgd", "yogi")


class State(eqx.Module):
    """W and a, the optimiser's state, the sample mean of ℓ'(0, y), the matrix's memory."""

    weights: Float[Array, "m d"]
    output_weights: Float[Array, " m"]
    centre: Float[Array, ""]
    optimizer: Any
    memory: Any


class LayerwiseGd(Algorithm):
    """Algorithm 1 of "Neural networks learn generic multi-index models near
    information-theoretic limit" (Zhang, Wang, Fu, Lee 2025, arXiv 2511.15120).

    Stage 1 on D1, `steps` (T1) times, with b = 0 and a fixed:

        W ← W − η1 [∇_W L̂(W) + β1 W],    L̂(W) = (1/n) Σ_i ℓ(f(x_i), y_i).

    Between the stages W is frozen, its rows brought to unit norm (`unit_rows`), and the biases
    are drawn afresh. Stage 2 on D2, of the same size and independent, `readout_steps` (T2) times:

        a ← a − η2 [∇_a L̂(a) + β2 a].

    `step_size` is η1, `weight_decay` β1, `readout_step_size` η2 (null: the largest that is sure
    to descend), `readout_weight_decay` β2. `centred` subtracts t · mean_i ℓ'(0, y_i) from the
    loss of stage 1. The optimisers are optax's, by name; plain gradient descent is `sgd`.
    """

    steps: int = eqx.field(static=True, default=20)
    step_size: float = 2.0
    weight_decay: float = 0.0
    optimizer: str = eqx.field(static=True, default="sgd")
    centred: bool = eqx.field(static=True, default=True)
    unit_rows: bool = eqx.field(static=True, default=True)
    readout_steps: int = eqx.field(static=True, default=100)
    readout_step_size: float | None = None
    readout_weight_decay: float = 1e-3
    readout_optimizer: str = eqx.field(static=True, default="sgd")

    def __check_init__(self):
        for key in ("steps", "readout_steps"):
            self.check(key, getattr(self, key) >= 0, "expected a whole number ≥ 0")
        for key in ("weight_decay", "readout_weight_decay"):
            self.check(key, getattr(self, key) >= 0, "expected a number ≥ 0")
        for key in ("optimizer", "readout_optimizer"):
            known = getattr(self, key) in OPTIMIZERS
            self.check(key, known, f"expected one of {', '.join(OPTIMIZERS)}")
        self.check("step_size", self.step_size > 0, "expected a positive number")
        rate = self.readout_step_size
        self.check(
            "readout_step_size", rate is None or rate > 0, "expected a positive number or null"
        )

    def queries(self, network, rank):
        return network.width * self.steps, network.width * self.steps

    def _descent(self) -> optax.GradientTransformation:
        return getattr(optax, self.optimizer)(self.step_size)

    def init(self, key, problem, memory):
        a, weights = problem.network.init(key, problem.directions)
        centre = problem.centre() if self.centred else jnp.zeros((), weights.dtype)
        return State(weights, a, centre, self._descent().init(weights), memory)

    def step(self, state, problem):
        a, weights = state.output_weights[:, None], state.weights
        n = problem.matrix.rows.count.astype(weights.dtype)

        def pull(z, y):  # ∂L̂/∂z_ij for a block of rows: z (m, rows), y (rows,)
            f = output(problem.activation, state.output_weights, z)
            slope = problem.loss.slope(f, y) - state.centre
            return slope[None] * a * problem.activation.derivative(z) / n, None

        gradient, _, memory = problem.matrix.pull_back(
            pull, weights, (problem.labels,), state.memory
        )
        updates, optimizer = self._descent().update(
            gradient + self.weight_decay * weights, state.optimizer, weights
        )
        weights = weights + updates
        return State(weights, state.output_weights, state.centre, optimizer, memory)

    def finish(self, key, state, problem):
        key_biases, key_samples = jax.random.split(key)
        weights = state.weights
        if self.unit_rows:
            weights = weights / jnp.linalg.norm(weights, axis=1, keepdims=True)
        biases = problem.network.draw_biases(key_biases)
        rows, features, labels = fresh_features(key_samples, problem, weights, biases)
        readout = readout_gd(
            problem,
            rows,
            features,
            labels,
            state.output_weights,
            steps=self.readout_steps,
            step_size=self.readout_step_size,
            weight_decay=self.readout_weight_decay,
            optimizer=self.readout_optimizer,
        )
        return Trained(weights, biases, readout, jnp.zeros((), weights.dtype))

    def cost(self, *, n, d, network, rank):
        stage_1 = super().cost(n=n, d=d, network=network, rank=rank)
        return Cost(
            gradient_evaluations=stage_1.gradient_evaluations + n * self.readout_steps,
            flops=stage_1.flops + 4 * n * network.width * self.readout_steps,
        )
