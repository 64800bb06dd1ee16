"""Targets made of one link function: a single index, phase retrieval, a soft committee."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from mirage.activations import Activation
from mirage.options import require
from mirage.targets.base import Target


def link_function(name: str) -> Activation:
    """The activation of that name, as a link; ValueError lists the names there are."""
    links: dict[str, Any] = {n: c for n, c in Activation.options().items() if n != "hermite"}
    require(name in links, "target.link", name, f"expected one of {', '.join(links)}")
    return links[name]()


class SingleIndex(Target):
    """φ(gain · h) with a link φ among the activations; the default is tanh(h)."""

    link: str = eqx.field(static=True, default="tanh")
    gain: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        link_function(self.link)
        self.check("gain", self.gain != 0, "expected a number other than 0")

    @property
    def rank(self):
        return 1

    def __call__(self, h):
        return link_function(self.link)(self.gain * h[..., 0])


class PhaseRetrieval(Target):
    """|h|^power: h² (the default), |h| for power = 1. Weak recovery at n/d = 1/2."""

    power: float = eqx.field(static=True, default=2.0)

    def __check_init__(self):
        self.check("power", self.power > 0, "expected a positive number")

    @property
    def rank(self):
        return 1

    def __call__(self, h):
        return jnp.abs(h[..., 0]) ** self.power


class Committee(Target):
    """A soft committee (1/r) Σ_i φ(h_i), with a link φ among the activations."""

    rank: int = eqx.field(static=True, default=2)
    link: str = eqx.field(static=True, default="tanh")

    def __check_init__(self):
        self.check("rank", self.rank >= 1, "expected a whole number ≥ 1")
        link_function(self.link)

    def parts(self):
        phi = link_function(self.link)
        return [(lambda h: phi(h[..., 0]) / self.rank, (i,)) for i in range(self.rank)]

    def __call__(self, h):
        return link_function(self.link)(h).mean(axis=-1)
