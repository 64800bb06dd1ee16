"""Hermite polynomials: He_k (probabilists') and h_k = He_k / √k! (normalised)."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def probabilists_hermite(degree: int, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """He_k(x), by the recurrence He_{k+1} = x He_k − k He_{k−1}; same shape and dtype as x."""
    if degree == 0:
        return jnp.ones_like(x)
    previous, current = jnp.ones_like(x), x
    for k in range(1, degree):
        previous, current = current, x * current - k * previous
    return current


def normalised_hermite(degree: int, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """h_k(x) = He_k(x) / √k!, so that E[h_j(z) h_k(z)] = δ_jk for z ~ N(0, 1)."""
    return probabilists_hermite(degree, x) / math.sqrt(math.factorial(degree))
