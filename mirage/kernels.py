"""The kernel that the random features of a network have in the limit of many of them."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.activations import Activation
from mirage.gaussian import line_rule
from mirage.options import Number

# Nodes over a Gaussian pre-activation.
NODES = 320


class Points(NamedTuple):
    """What a kernel needs of inputs: (s x/√d, β) at unit length, c_k(√v), and k(x, x)."""

    unit: Float[Array, "d+1 rows"]
    coefficients: Float[Array, "degrees rows"]
    square: Float[Array, " rows"]


class FeatureKernel(eqx.Module):
    """k(x, x') = E σ(w·x + b) σ(w·x' + b) with w ~ N(0, s² I_d/d) and b ~ N(0, β²).

    `norm` is s, `bias_scale` β. The two pre-activations are Gaussian of variances v and v',
    v = s²‖x‖²/d + β², and correlation ρ, so that (Mehler's formula)

        k(x, x') = Σ_k c_k(√v) c_k(√v') ρ^k,    c_k(√v) = E σ(√v z) h_k(z),    z ~ N(0, 1),

    h_k the normalised Hermite polynomials: for inputs of norm √d without biases Σ_k c_k² t^k, t
    the cosine of the inputs (Rahimi and Recht 2007; Daniely, Frostig and Singer 2016). The sum
    ends at `degree`; k(x, x) is exact.
    """

    activation: Activation
    norm: Number
    bias_scale: Number
    degree: int = eqx.field(static=True)

    def points(self, x: Float[Array, "d rows"]) -> Points:
        """What the kernel needs of inputs, one a column."""
        bias = jnp.full((1, x.shape[1]), self.bias_scale, x.dtype)
        both = jnp.concatenate([self.norm / math.sqrt(len(x)) * x, bias])
        length = jnp.linalg.norm(both, axis=0)
        nodes, weights = (jnp.asarray(v, x.dtype) for v in line_rule(NODES))
        values = self.activation(length[None] * nodes[:, None])  # (nodes, rows)
        coefficients = weights[None] * hermite_table(nodes, self.degree) @ values
        unit = both / jnp.where(length > 0, length, 1)[None]
        return Points(unit, coefficients, weights @ values**2)

    def matrix(self, first: Points, second: Points) -> Float[Array, "rows others"]:
        """k for every pair of two sets of inputs, by the sum."""
        return self.sum(first, second, first.unit.T @ second.unit)

    def sum(
        self, first: Points, second: Points, correlation: Float[Array, "rows others"]
    ) -> Float[Array, "rows others"]:
        """Σ_k c_k(√v) c_k(√v') ρ^k, by Horner's rule."""
        value = jnp.zeros_like(correlation)
        for a, b in zip(first.coefficients[::-1], second.coefficients[::-1], strict=True):
            value = value * correlation + a[:, None] * b[None]
        return value


def hermite_table(x: Float[Array, " nodes"], degree: int) -> Float[Array, "degrees nodes"]:
    """h_0(x) to h_degree(x)."""
    table = [jnp.ones_like(x), x]
    for k in range(1, degree):
        table.append((x * table[k] - math.sqrt(k) * table[k - 1]) / math.sqrt(k + 1))
    return jnp.stack(table[: degree + 1])
