"""Many features of decreasing strength: y = Σ_k a_k g_k(h_k)."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mirage.expressions import Expression
from mirage.targets.base import Target, restricted

MAX_FEATURES = 10**6


def listed(value: Any) -> Any:
    """A list as a tuple, so that the target has a hash; anything else as it is."""
    return tuple(value) if isinstance(value, list | tuple) else value


class Hierarchical(Target):
    """Σ_k a_k g(h_k) over k = 1, ..., `features`, with a_k = k^(−`gamma`) (Defilippis, Krzakala,
    Loureiro and Maillard, arXiv 2602.05846).

    `link` is g as an expression in h, or a list of one for each feature; `strengths` a list of a_k
    in place of the powers. The a_k are not normalised.
    """

    features: int = eqx.field(static=True, default=10)
    gamma: float = eqx.field(static=True, default=1.3)
    link: Any = eqx.field(static=True, converter=listed, default="He2(h)/2 + He4(h)/48")
    strengths: Any = eqx.field(static=True, converter=listed, default=None)

    def __check_init__(self):
        accepted = f"expected a whole number from 1 to {MAX_FEATURES}"
        self.check("features", 1 <= self.features <= MAX_FEATURES, accepted)
        if self.strengths is not None:
            numbers = isinstance(self.strengths, tuple) and len(self.strengths) == self.features
            numbers = numbers and all(
                isinstance(a, int | float) and 0 < abs(a) < math.inf for a in self.strengths
            )
            self.check("strengths", numbers, f"expected {self.features} numbers other than 0")
        one_each = isinstance(self.link, str) or (
            isinstance(self.link, tuple) and len(self.link) == self.features
        )
        words = f"expected an expression in h, or a list of {self.features}"
        self.check("link", one_each, words)
        self._links()

    @property
    def rank(self):
        return self.features

    def amplitudes(self) -> Float[np.ndarray, " features"]:
        """a_k, strongest first unless they are given otherwise."""
        if self.strengths is not None:
            return np.asarray(self.strengths, np.float64)
        return np.arange(1, self.features + 1) ** -float(self.gamma)

    def _links(self) -> list[Expression]:
        texts = [self.link] if isinstance(self.link, str) else self.link
        links = [Expression(text, names=("h",), key="target.link") for text in texts]
        return links * self.features if len(links) == 1 else links

    def parts(self):
        def part(a, link):
            return lambda h: float(a) * link(h=h[..., 0])

        pairs = zip(self.amplitudes(), self._links(), strict=True)
        return [(part(a, link), (k,)) for k, (a, link) in enumerate(pairs)]

    def __call__(self, h):
        if isinstance(self.link, str):  # one evaluation for all
            (link,) = self._links()[:1]
            return link(h=h) @ jnp.asarray(self.amplitudes(), h.dtype)
        return sum(part(restricted(h, active)) for part, active in self.parts())
