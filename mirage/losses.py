"""Losses ℓ(t, y), convex in the prediction t, and what a network at t = 0 sees of y through them.

At small norm a network only sees the labels through ℓ'(0, y) (MATH of the layer-wise GD paper,
arXiv 2511.15120): the loss is a preprocessing of the labels. MSE passes −y, Huber −clip(y, −δ, δ).
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mirage.expressions import Expression
from mirage.options import Option


class Loss(Option, abc.ABC):
    """ℓ(t, y): prediction first, label second, elementwise."""

    group: ClassVar[str] = "loss"

    @abc.abstractmethod
    def value(self, t: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """ℓ(t, y), elementwise, for arrays of one shape."""

    def __call__(
        self, t: Float[Array, "*shape"], y: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """ℓ(t, y), elementwise. Raises ValueError unless both have the same shape."""
        if t.shape != y.shape:
            raise ValueError(
                f"{self.name()}: predictions {t.shape} and labels {y.shape} differ in shape"
            )
        return self.value(t, y)

    def slope(self, t: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """ℓ'(t, y), the derivative in t, elementwise; ℓ'(0, y) is what stage 1 sees of y."""
        return jax.jvp(lambda prediction: self(prediction, y), (t,), (jnp.ones_like(t),))[1]


class Mse(Loss):
    """½(t − y)², so that ℓ'(0, y) = −y."""

    def value(self, t, y):
        return optax.losses.l2_loss(t, y)


class Huber(Loss):
    """½(t − y)² within `delta` of y, linear beyond: ℓ'(0, y) = −clip(y, −δ, δ)."""

    delta: float = 1.0

    def __check_init__(self):
        self.check("delta", self.delta > 0, "expected a positive number")

    def value(self, t, y):
        return optax.losses.huber_loss(t, y, delta=self.delta)


class PseudoHuber(Loss):
    """δ²(√(1 + ((t − y)/δ)²) − 1), the smooth Huber: ℓ'(0, y) = −y/√(1 + (y/δ)²)."""

    delta: float = 1.0

    def __check_init__(self):
        self.check("delta", self.delta > 0, "expected a positive number")

    def value(self, t, y):
        return self.delta**2 * (jnp.sqrt(1 + jnp.square((t - y) / self.delta)) - 1)


class LogCosh(Loss):
    """log cosh(t − y): ℓ'(0, y) = −tanh(y)."""

    def value(self, t, y):
        return optax.losses.log_cosh(t, y)


class Absolute(Loss):
    """|t − y|: ℓ'(0, y) = −sign(y)."""

    def value(self, t, y):
        return jnp.abs(t - y)


class Preprocessed(Loss):
    """½(t − T(y))² for a preprocessing T of the label, so that ℓ'(0, y) = −T(y).

    `transform` is T as an expression in y, for instance `y/(1+abs(y))`, the one of the
    hierarchical-targets paper (arXiv 2602.05846); see `mirage.expressions` for the grammar.
    """

    transform: str = eqx.field(static=True, default="y/(1+abs(y))")

    def __check_init__(self):
        self._parsed()

    def _parsed(self) -> Expression:
        return Expression(self.transform, names=("y",), key="loss.transform")

    def value(self, t, y):
        return optax.losses.l2_loss(t, self._parsed()(y=y))


class OneOf(Loss, abc.ABC):
    """The `index`-th of several losses, the index known at run time.

    It lets one compiled function serve several losses, and `vmap` over the index lets them
    share each product with the data. Abstract for the option list only: no config names it.
    """

    index: Int[Array | np.ndarray, ""]
    losses: tuple[Loss, ...]

    def value(self, t, y):
        branches = [lambda t, y, loss=loss: loss.value(t, y) for loss in self.losses]
        return jax.lax.switch(self.index, branches, t, y)
