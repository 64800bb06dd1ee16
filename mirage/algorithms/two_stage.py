"""The two-stage network: the subspace from the labels' spectrum, then ridge regression in it."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp

from mirage.algorithms.base import Cost, Trained
from mirage.algorithms.fresh import fresh_gram
from mirage.algorithms.readout import ridge_readout, ridge_rows
from mirage.algorithms.spectral import Spectral


class TwoStage(Spectral):
    """A two-layer network of which `Spectral` finds the first layer's subspace and ridge regression
    the second layer (Defilippis et al., arXiv 2602.05846, algorithm 1).

    Neurons are w_j = ρ V v_j, V the eigenvectors found, v_j uniform on their sphere, ρ the
    network's `initial_norm`, with biases N(0, `bias_scale`²); the readout is

        min_{a, c} Σ_i (a·σ(W x_i + b) + c − y_i)² + λ m ‖a‖²

    over as many fresh samples, λ the `ridge`. Where nothing is found it predicts the mean.
    """

    ridge: float = 1e-2
    components: int = eqx.field(static=True, default=10)
    end: str = eqx.field(static=True, default="upper")
    select: str = eqx.field(static=True, default="outliers")

    def __check_init__(self):
        self.check("ridge", self.ridge > 0, "expected a positive number")

    def bytes_working(self, *, n, network):
        # The first stage moves few columns; features of neurons are made block by block.
        few = dataclasses.replace(network, width=self.components)
        return super().bytes_working(n=n, network=few) + 16 * (network.width + 2) ** 2

    def finish(self, key, state, problem):
        key_neurons, key_biases, key_fresh = jax.random.split(key, 3)
        network, m = problem.network, problem.network.width
        kept = (state.weights != 0).any(axis=1)
        inside = jax.random.normal(key_neurons, (m, len(kept)), state.weights.dtype)
        inside = jnp.where(kept[None], inside, 0)
        length = jnp.linalg.norm(inside, axis=1, keepdims=True)
        inside = network.initial_norm * inside / jnp.where(length > 0, length, 1)
        weights, biases = inside @ state.weights, network.draw_biases(key_biases)
        gram = fresh_gram(key_fresh, problem, weights, ridge_rows(problem.activation, biases))
        found = ridge_readout(gram, self.ridge)
        return Trained(weights, biases, found.weights, found.intercept)

    def cost(self, *, n, d, network, rank):
        m, stage = network.width, super().cost(n=n, d=d, network=network, rank=rank)
        return Cost(stage.gradient_evaluations, stage.flops + 2 * n * m * m + 2 * m**3 // 3)
