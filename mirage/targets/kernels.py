"""Targets whose label is random given h in a way of its own: P(y|h) is the target."""

import abc
import math
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from mirage.targets.base import Target

# Counts are listed up to those of an h this far out, unless they are more than can be summed.
FARTHEST = 5.0
MOST_VALUES = 2048


@runtime_checkable
class Likelihood(Protocol):
    """What knows P(y|h), as a smooth function of h."""

    def log_likelihood(
        self, y: Float[Array, "*#batch"], h: Float[Array, "*#batch r"]
    ) -> Float[Array, "*batch"]:
        """log P(y|h); the batches of y and h are broadcast."""
        ...


class Kernel(Target, abc.ABC):
    """A target that says how labels are drawn given h; `noise` on top is not available."""

    def __check_init__(self):
        self.check(
            "noise",
            self.noise == 0,
            f"expected 0: the label of target={self.name()} is random given h without it",
        )

    def label_values(self) -> Float[np.ndarray, " values"] | None:
        """All values of the label, where they can be listed."""
        return None


class Logistic(Kernel):
    """y = ±1 with P(y = 1 | h) = 1/(1 + exp(−gain h)); g(h) = E[y | h] = tanh(gain h/2)."""

    gain: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        self.check("gain", self.gain != 0, "expected a number other than 0")

    @property
    def rank(self):
        return 1

    def __call__(self, h):
        return jnp.tanh(self.gain / 2 * h[..., 0])

    def draw(self, key, h):
        u = jax.random.uniform(key, h.shape[:-1], h.dtype)
        return jnp.where(u < jax.nn.sigmoid(self.gain * h[..., 0]), 1, -1).astype(h.dtype)

    def log_likelihood(
        self, y: Float[Array, "*#batch"], h: Float[Array, "*#batch 1"]
    ) -> Float[Array, "*batch"]:
        """log P(y|h) = −log(1 + exp(−gain y h))."""
        return jax.nn.log_sigmoid(self.gain * y * h[..., 0])

    def label_values(self):
        return np.array([-1.0, 1.0])


class Poisson(Kernel):
    """y ~ Poisson(rate · exp(gain h)), a count; g(h) = E[y | h] = rate · exp(gain h)."""

    rate: float = eqx.field(static=True, default=1.0)
    gain: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        self.check("rate", self.rate > 0, "expected a positive number")
        self.check("gain", self.gain != 0, "expected a number other than 0")

    @property
    def rank(self):
        return 1

    def __call__(self, h):
        return self.rate * jnp.exp(self.gain * h[..., 0])

    def draw(self, key, h):
        return jax.random.poisson(key, self(h)).astype(h.dtype)

    def log_likelihood(
        self, y: Float[Array, "*#batch"], h: Float[Array, "*#batch 1"]
    ) -> Float[Array, "*batch"]:
        """log P(y|h) = y log g(h) − g(h) − log y!."""
        log_mean = math.log(self.rate) + self.gain * h[..., 0]
        return y * log_mean - jnp.exp(log_mean) - gammaln(y + 1)

    def label_values(self):
        """0, 1, ... up to what |h| ≤ 5 can give; None where these are too many to sum over."""
        largest = self.rate * math.exp(FARTHEST * abs(self.gain))
        count = math.ceil(largest + 6 * math.sqrt(largest) + 10)
        return np.arange(count, dtype=float) if count <= MOST_VALUES else None


class FlippedParity(Kernel):
    """sign(h1 h2 ... hk), flipped with probability `flip`; g(h) = (1 − 2 flip) sign(h1 ... hk)."""

    k: int = eqx.field(static=True, default=2)
    flip: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        self.check("k", 1 <= self.k <= 20, "expected a whole number from 1 to 20")
        self.check("flip", 0 <= self.flip < 0.5, "expected a probability in [0, 1/2)")

    @property
    def rank(self):
        return self.k

    def __call__(self, h):
        return (1 - 2 * self.flip) * jnp.sign(h).prod(axis=-1)

    def draw(self, key, h):
        sign = jnp.sign(h).prod(axis=-1)
        u = jax.random.uniform(key, sign.shape, sign.dtype)
        return jnp.where(u < self.flip, -sign, sign)

    def label_values(self):
        return np.array([-1.0, 1.0])
