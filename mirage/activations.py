"""Activations σ(t), their derivatives, and their average over a Gaussian argument."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import erf
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from mirage.gaussian import line_rule
from mirage.hermite import normalised_hermite
from mirage.options import Option
from mirage.places import diagonal
from mirage.trigonometry import cos

# For smoothing: exact to 1e-9 for tanh with a variance up to 25.
SMOOTHING_NODES = 320
# For E[σ(z_j) σ(z_k)] by one integral over z_j of a smoothed σ: nodes, and where the rule ends.
PAIR_LINE = (480, 13.0)


class Activation(Option, abc.ABC):
    """σ: an elementwise function of the pre-activation."""

    group: ClassVar[str] = "activation"

    @abc.abstractmethod
    def __call__(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """σ(z), elementwise."""

    def derivative(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """σ'(z), elementwise, by automatic differentiation."""
        return jax.jvp(self, (z,), (jnp.ones_like(z),))[1]

    def smoothed(
        self, mean: Float[Array, "*shape"], variance: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """E[σ(mean + √variance ξ)], ξ ~ N(0, 1), elementwise.

        Closed forms where there is one; here a composite Gauss-Legendre rule.
        """
        points, weights = line_rule(SMOOTHING_NODES)
        scale = jnp.sqrt(variance)

        def add(total, node):
            point, weight = node
            return total + weight * self(mean + scale * point), None

        nodes = (jnp.asarray(points, mean.dtype), jnp.asarray(weights, mean.dtype))
        return jax.lax.scan(add, jnp.zeros_like(mean), nodes)[0]

    def products(
        self, mean: Float[Array, " m"], covariance: Float[Array, "m m"]
    ) -> Float[Array, "m m"]:
        """E[σ(z_j) σ(z_k)], z ~ N(mean, covariance).

        Closed forms where there is one; here an integral over z_j of σ(z_j) E[σ(z_k) | z_j].
        """
        points, weights = (jnp.asarray(v, mean.dtype) for v in line_rule(*PAIR_LINE))
        variance = diagonal(covariance)
        safe = jnp.where(variance > 0, variance, 1)

        def row(j):
            slope = covariance[j] / safe[j]
            z = jnp.sqrt(variance[j]) * points
            inner = slope[:, None] * z[None] + mean[:, None]
            rest = jnp.maximum(variance - slope * covariance[j], 0)
            conditional = self.smoothed(inner, jnp.broadcast_to(rest[:, None], inner.shape))
            return conditional @ (weights * self(z + mean[j]))

        return jax.lax.map(row, jnp.arange(mean.shape[0]))


class Cos(Activation):
    """cos(z); `mirage.trigonometry` knows its derivative."""

    def __call__(self, z):
        return cos(z)

    def smoothed(self, mean, variance):
        """e^{−variance/2} cos(mean)."""
        return jnp.exp(-variance / 2) * cos(mean)

    def products(self, mean, covariance):
        """½ (E cos(z_j − z_k) + E cos(z_j + z_k))."""
        variance = diagonal(covariance)
        total = variance[:, None] + variance[None]
        difference = self.smoothed(mean[:, None] - mean[None], total - 2 * covariance)
        return (difference + self.smoothed(mean[:, None] + mean[None], total + 2 * covariance)) / 2


class Quadratic(Activation):
    """z²."""

    def __call__(self, z):
        return z * z

    def smoothed(self, mean, variance):
        """mean² + variance."""
        return mean * mean + variance

    def products(self, mean, covariance):
        """E z_j² E z_k² + 2 c² + 4 mean_j mean_k c, c their covariance (Isserlis)."""
        square = self.smoothed(mean, diagonal(covariance))
        means = jnp.outer(mean, mean)
        return jnp.outer(square, square) + 2 * covariance**2 + 4 * means * covariance


class Tanh(Activation):
    """tanh(z)."""

    def __call__(self, z):
        return jnp.tanh(z)


class Erf(Activation):
    """erf(z)."""

    def __call__(self, z):
        return erf(z)

    def smoothed(self, mean, variance):
        """erf(mean / √(1 + 2 variance))."""
        return erf(mean / jnp.sqrt(1 + 2 * variance))


class Relu(Activation):
    """max(z, 0); its derivative at 0 is taken as 0."""

    def __call__(self, z):
        return jax.nn.relu(z)

    def smoothed(self, mean, variance):
        """mean Φ(mean/s) + s φ(mean/s), s² = variance."""
        scale = jnp.sqrt(jnp.maximum(variance, jnp.finfo(mean.dtype).tiny))
        ratio = mean / scale
        return mean * norm.cdf(ratio) + scale * norm.pdf(ratio)


class Gelu(Activation):
    """z Φ(z), with the exact Gaussian Φ."""

    def __call__(self, z):
        return z * norm.cdf(z)

    def smoothed(self, mean, variance):
        """mean Φ(mean/s) + (variance/s) φ(mean/s), s² = 1 + variance (Stein)."""
        scale = jnp.sqrt(1 + variance)
        ratio = mean / scale
        return mean * norm.cdf(ratio) + variance / scale * norm.pdf(ratio)


class Softplus(Activation):
    """log(1 + e^z)."""

    def __call__(self, z):
        return jax.nn.softplus(z)


class Exponential(Activation):
    """e^{z − 1/2}: all its normalised Hermite coefficients are there, 1/√k!."""

    def __call__(self, z):
        return jnp.exp(z - 0.5)

    def derivative(self, z):
        return self(z)

    def smoothed(self, mean, variance):
        """e^{mean + variance/2 − 1/2}."""
        return jnp.exp(mean + variance / 2 - 0.5)

    def products(self, mean, covariance):
        """e^{m_j + m_k − 1 + Var(z_j + z_k)/2}."""
        variance = diagonal(covariance)
        spread = variance[:, None] + variance[None] + 2 * covariance
        return jnp.exp(mean[:, None] + mean[None] + spread / 2 - 1)


class Hermite(Activation):
    """The normalised Hermite polynomial h_degree(z) = He_degree(z)/√degree!."""

    degree: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        self.check("degree", 0 <= self.degree <= 20, "expected a degree between 0 and 20")

    def __call__(self, z):
        return normalised_hermite(self.degree, z)

    def smoothed(self, mean, variance):
        """Σ_j k!/((k−2j)! j! 2^j) (variance − 1)^j mean^{k−2j} / √k!, k the degree."""
        k = self.degree
        total = jnp.zeros_like(mean)
        for j in range(k // 2 + 1):
            count = math.factorial(k) / (math.factorial(k - 2 * j) * math.factorial(j) * 2**j)
            total = total + count * (variance - 1) ** j * mean ** (k - 2 * j)
        return total / math.sqrt(math.factorial(k))
