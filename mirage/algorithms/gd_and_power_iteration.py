"""Layer-wise gradient descent and power iteration side by side, on the same samples."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp

from mirage.algorithms.base import Algorithm
from mirage.algorithms.layerwise_gd import LayerwiseGd
from mirage.algorithms.layerwise_gd import State as Descent
from mirage.algorithms.power_iteration import PowerIteration
from mirage.algorithms.power_iteration import State as Power


class State(eqx.Module):
    """Both states; the network's weights are those of gradient descent."""

    descent: Descent
    power: Power

    @property
    def weights(self):
        """W (m, d) of gradient descent."""
        return self.descent.weights

    @property
    def memory(self):
        """The matrix's memory of the products that both have asked."""
        return self.power.memory


class GdAndPowerIteration(Algorithm):
    """W by stage 1 of layer-wise GD and P by power iteration, from W_0 = P_0:

        W ← W − η1 [∇_W L̂(W) + β1 W],    p_j ← (1 − η1 β1) p_j − η1 a_j σ''(0) Σ̂_ℓ p_j.

    Observes their `distance` ‖W − P‖_F / ‖P‖_F. Near W = 0 they are the same map up to terms of
    third order in W (arXiv 2511.15120, proof sketch of Theorem 1): it says until when GD is a
    power iteration. `step_size` is η1, `weight_decay` β1, `centred` as in `LayerwiseGd`. There
    is no second stage.
    """

    steps: int = eqx.field(static=True, default=20)
    step_size: float = 2.0
    weight_decay: float = 0.0
    centred: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        rate, decay = self.step_size, self.weight_decay
        LayerwiseGd(steps=self.steps, step_size=rate, weight_decay=decay)

    @property
    def descent(self) -> LayerwiseGd:
        """Gradient descent with these settings."""
        return self._set(LayerwiseGd(steps=self.steps, centred=self.centred))

    @property
    def power(self) -> PowerIteration:
        """Power iteration with these settings."""
        return self._set(PowerIteration(steps=self.steps, centred=self.centred, weight_decay=0.0))

    def _set(self, algorithm):
        # Not by the constructor: in a compiled step these are no numbers that it could check.
        rates = (self.step_size, self.weight_decay)
        return eqx.tree_at(lambda a: (a.step_size, a.weight_decay), algorithm, rates)

    def queries(self, network, rank):
        both = (self.descent.queries(network, rank), self.power.queries(network, rank))
        right, left = zip(*both, strict=True)
        return sum(right), sum(left)

    def init(self, key, problem, memory):
        descent = self.descent.init(key, problem, memory)
        return State(descent, self.power.init(key, problem, descent.memory))

    def step(self, state, problem):
        before = dataclasses.replace(state.descent, memory=state.memory)
        descent = self.descent.step(before, problem)
        before = dataclasses.replace(state.power, memory=descent.memory)
        return State(descent, self.power.step(before, problem))

    def observe(self, state):
        p = state.power.weights
        return {"distance": jnp.linalg.norm(state.weights - p) / jnp.linalg.norm(p)}
