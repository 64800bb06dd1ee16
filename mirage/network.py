"""The two-layer network f(x) = Σ_j a_j σ(w_j·x + b_j)."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage.activations import Activation
from mirage.options import Option


class Network(Option, abc.ABC):
    """Base of the networks a config can name."""

    group: ClassVar[str] = "network"


class TwoLayer(Network):
    """`width` neurons, started small and, if `symmetric`, in pairs that cancel: f ≡ 0.

    Start (Algorithm 1 of arXiv 2511.15120): a_j = ±1, w_j uniform on the sphere of radius
    `initial_norm` (ε0), b = 0. With `symmetric`, neuron j + width/2 has the same w and the
    opposite a. Between the stages the biases are drawn afresh, N(0, `bias_scale`²).
    """

    width: int = eqx.field(static=True, default=4)
    initial_norm: float = 1e-3
    symmetric: bool = eqx.field(static=True, default=True)
    bias_scale: float = 1.0

    def __check_init__(self):
        self.check("width", self.width >= 1, "expected a whole number ≥ 1")
        self.check(
            "width",
            not self.symmetric or self.width % 2 == 0,
            "the symmetric start pairs neurons, so it needs an even width "
            "(or network.symmetric=false)",
        )
        self.check("initial_norm", self.initial_norm > 0, "expected a norm > 0")
        self.check("bias_scale", self.bias_scale >= 0, "expected a scale ≥ 0")

    def init(self, key: Key[Array, ""], d: int) -> tuple[Float[Array, " m"], Float[Array, "m d"]]:
        """Output weights a and first-layer weights W at the start."""
        key_w, key_a = jax.random.split(key)
        m = self.width // 2 if self.symmetric else self.width
        w = jax.random.normal(key_w, (m, d), jnp.float32)
        unit = w / jnp.linalg.norm(w, axis=1, keepdims=True)
        # The barrier keeps its rounding whatever it is compiled with.
        w = self.initial_norm * jax.lax.optimization_barrier(unit)
        a = jax.random.rademacher(key_a, (m,), jnp.float32)
        if self.symmetric:
            return jnp.concatenate([a, -a]), jnp.concatenate([w, w])
        return a, w

    def draw_biases(self, key: Key[Array, ""]) -> Float[Array, " m"]:
        """The biases of the second stage."""
        return self.bias_scale * jax.random.normal(key, (self.width,), jnp.float32)


def output(
    activation: Activation, a: Float[Array, " m"], z: Float[Array, "m rows"]
) -> Float[Array, " rows"]:
    """f = Σ_j a_j σ(z_j) for pre-activations z_j = w_j·x + b_j."""
    return a @ activation(z)
