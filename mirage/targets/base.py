"""What every target is: g(h), its rank, and how a label is drawn given h."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mirage.options import Option

# g = Σ of functions of few directions each: (function of h restricted to them, the directions).
Part = tuple[Callable[[Array], Array], tuple[int, ...]]


def restricted(h: Float[Array, "*batch r"], axes: tuple[int, ...]) -> Float[Array, "*batch k"]:
    """h restricted to some directions: slices, which compile sooner than `h[..., axes]`."""
    return jnp.concatenate([h[..., i : i + 1] for i in axes] or [h[..., :0]], axis=-1)


class Target(Option, abc.ABC):
    """A multi-index target: y = g(h) + √Δ ξ with h = U x ~ N(0, I_rank), ξ ~ N(0, 1).

    `noise` is Δ ≥ 0. A subclass gives `rank` and `__call__`; one whose label is random
    given h in another way also gives `draw`, and then `__call__` is E[y | h].
    """

    group: ClassVar[str] = "target"
    # Whether it has numbers of its own, drawn for each seed.
    draws: ClassVar[bool] = False
    noise: float = eqx.field(static=True, default=0.0, kw_only=True)

    def __check_init__(self):
        self.check("noise", self.noise >= 0, "expected a variance Δ ≥ 0")

    @property
    @abc.abstractmethod
    def rank(self) -> int:
        """r, the number of directions that the target sees."""

    @abc.abstractmethod
    def __call__(self, h: Float[Array, "*batch r"]) -> Float[Array, "*batch"]:
        """g(h) = E[y | h]."""

    def at(self, d: int) -> "Target":
        """The target in d dimensions, on which its rank may depend; ValueError where none fits."""
        return self

    def drawn(self, key: Key[Array, ""]) -> "Target":
        """The target with the numbers that it draws for each seed; none by default."""
        return self

    def features(self, h: Float[Array, "*batch r"]) -> Float[Array, "*batch q"]:
        """The non-linear features of h through which alone g sees it; h itself by default."""
        return h

    def draw(self, key: Key[Array, ""], h: Float[Array, "*batch r"]) -> Float[Array, "*batch"]:
        """A label for each h: g(h) + √Δ ξ."""
        y = self(h)
        if self.noise == 0:
            return y
        return y + self.noise**0.5 * jax.random.normal(key, y.shape, y.dtype)

    def amplitudes(self) -> Float[np.ndarray, " r"] | None:
        """a_k where the target is Σ_k a_k g_k(h_k) with features of given strengths; else None."""
        return None

    def parts(self) -> list[Part]:
        """g as a sum of functions of few directions each, for low-dimensional integrals."""
        return [(self, tuple(range(self.rank)))]
