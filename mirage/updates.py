"""What one batch does to the first layer: a gradient step, or several with the same samples.

A batch X (B × d) moves W by W ← W − C X. Everything that decides C (m × B) is seen in three small
arrays: the pre-activations z = W Xᵀ, the labels, and the Gram matrix K = X Xᵀ, through which one
step on the batch moves the pre-activations of the next: z ← z − C K. So an update is written
once, for weights that are stored and for order parameters that are all that is left of them.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.options import Number

# ∂L/∂z of the mean loss of a batch: (m, B) to (m, B).
Score = Callable[[Float[Array, "m B"]], Float[Array, "m B"]]


class Update(eqx.Module):
    """A rule for C, given the gradient of the batch's mean loss in its pre-activations."""

    @abc.abstractmethod
    def coefficients(
        self, score: Score, z: Float[Array, "m B"], gram: Float[Array, "B B"]
    ) -> Float[Array, "m B"]:
        """C of W ← W − C X."""


class Gradient(Update):
    """Plain descent: C = γ ∂L/∂z."""

    step_size: Number

    def coefficients(self, score, z, gram):
        return self.step_size * score(z)


class ExtraGradient(Update):
    """The gradient after a trial step on the same samples: W ← W − γ ∇L(W − γ̃ ∇L(W)).

    Arnaboldi, Dandi, Krzakala, Loureiro, Pesce, Stephan (2024, arXiv 2405.15459), algorithm 1.
    With γ̃ < 0 the trial step climbs: sharpness-aware minimisation.
    """

    step_size: Number
    inner_step_size: Number

    def coefficients(self, score, z, gram):
        tried = z - self.inner_step_size * score(z) @ gram
        return self.step_size * score(tried)


class Lookahead(Update):
    """`steps` plain steps γ̃ on the same samples, of which the share γ/γ̃ is kept.

    W_0 = W, W_{i+1} = W_i − γ̃ ∇L(W_i), W ← W + (γ/γ̃)(W_k − W_0): C = γ Σ_i ∂L/∂z(W_i) (Zhang,
    Lucas, Hinton, Ba 2019, arXiv 1907.08610). With γ = γ̃ all is kept: every sample is used k times.
    """

    step_size: Number
    inner_step_size: Number
    steps: int = eqx.field(static=True, default=2)

    def coefficients(self, score, z, gram):
        total = jnp.zeros_like(z)
        for _ in range(self.steps):
            slope = score(z)
            total, z = total + slope, z - self.inner_step_size * slope @ gram
        return self.step_size * total
