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

from mirage.arguments import as_array, shaped
from mirage.expressions import Expression
from mirage.options import Option
from mirage.precision import double_precision


class Loss(Option, abc.ABC):
    """ℓ(t, y): prediction first, label second, elementwise."""

    group: ClassVar[str] = "loss"

    def centring(self) -> Float[Array, ""]:
        """1 where algorithms may take the mean off ℓ'(0, y), 0 where it belongs to the loss."""
        return jnp.ones(())

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


# What `slopes` fills arrays up to.
SIZES = [2**10, *(2**k for k in range(16, 64, 3))]


def slopes(
    loss: Loss, t: Float[np.ndarray, "*shape"], y: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """ℓ'(t, y) in float64 outside any compiled function, compiled once a loss.

    Settings are traced and arrays filled up to one of few sizes, so that a scan of settings
    does not compile anew. ValueError for arrays of different shapes, or `Optimal`, which is made
    for a target first.
    """
    t, y = as_array("t", t), as_array("y", y)
    shaped(t.shape, y=y)
    size = next(size for size in SIZES if size >= t.size)
    flat = [np.resize(v.ravel(), size) for v in (t, y)]
    with double_precision():
        traced = jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, float) else v, loss)
        found = np.asarray(_slopes(traced, *map(jax.device_put, flat)))
    return found[: t.size].reshape(t.shape)


@eqx.filter_jit
def _slopes(loss, t, y):
    return loss.slope(t, y)


class Mse(Loss):
    """½(t − y)², so that ℓ'(0, y) = −y."""

    def value(self, t, y):
        return optax.losses.l2_loss(t, y)


class Correlation(Loss):
    """−y t: SGD on it sees a label through y alone, whatever the network says."""

    def value(self, t, y):
        return -y * t


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


class Optimal(Loss):
    """½(t − T(y))² with the best T for the target, T = 1 − 1/E[(u·h)² | y].

    Of all scalar preprocessings its spectral estimator finds the direction u with the fewest
    samples (Mondelli and Montanari 2018; Luo, Alghamdi and Lu 2019), its mean left on. It depends
    on the target, from which `mirage.channels.optimal` makes it.
    """

    def value(self, t, y):
        raise ValueError("loss=optimal: made for a target by mirage.channels.optimal")


class Tabulated(Loss, abc.ABC):
    """½(t − T(y))² with T interpolated between ascending `labels`, constant beyond; not centred.

    Abstract for the option list only: no config names it.
    """

    labels: Float[Array | np.ndarray, " k"]
    values: Float[Array | np.ndarray, " k"]

    def centring(self):
        return jnp.zeros(())

    def value(self, t, y):
        labels, values = (jnp.asarray(v, y.dtype) for v in (self.labels, self.values))
        return optax.losses.l2_loss(t, jnp.interp(y, labels, values))


class OneOf(Loss, abc.ABC):
    """The `index`-th of several losses, the index known at run time.

    It lets one compiled function serve several losses, and `vmap` over the index lets them
    share each product with the data. Abstract for the option list only: no config names it.
    """

    index: Int[Array | np.ndarray, ""]
    losses: tuple[Loss, ...]

    def centring(self):
        return jnp.stack([loss.centring() for loss in self.losses])[self.index]

    def value(self, t, y):
        branches = [lambda t, y, loss=loss: loss.value(t, y) for loss in self.losses]
        return jax.lax.switch(self.index, branches, t, y)
