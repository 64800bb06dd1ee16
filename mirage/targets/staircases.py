"""The two staircases of the lecture: one that SGD climbs, one that needs more than correlation."""

import jax.numpy as jnp

from mirage.hermite import probabilists_hermite
from mirage.targets.base import Target


def _sign_of_product(h):
    return jnp.sign(h).prod(axis=-1)


class Staircase(Target):
    """h1² + sign(h1 h2 h3): h1 is found first, then (h2, h3) through it.

    Weak recovery at n/d = 0.575 for h1, then π²/4 for h2 and h3 (Troiani et al. 2024).
    """

    @property
    def rank(self):
        return 3

    def parts(self):
        return [(lambda h: h[..., 0] ** 2, (0,)), (_sign_of_product, (0, 1, 2))]

    def __call__(self, h):
        return h[..., 0] ** 2 + _sign_of_product(h)


class GrandStaircase(Target):
    """He_4(h1) + sign(h1 h2 h3): a staircase only for algorithms that transform the label.

    He_4 is the probabilists' polynomial, not normalised.
    """

    @property
    def rank(self):
        return 3

    def parts(self):
        return [(lambda h: probabilists_hermite(4, h[..., 0]), (0,)), (_sign_of_product, (0, 1, 2))]

    def __call__(self, h):
        return probabilists_hermite(4, h[..., 0]) + _sign_of_product(h)
