"""Sums of products of one-direction functions: Hermite series and general polynomials."""

import abc
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.hermite import normalised_hermite
from mirage.options import require
from mirage.targets.base import Target, restricted

Coefficients = tuple[tuple[float, tuple[int, ...]], ...]


def coefficients(terms: Any) -> Coefficients:
    """Read `[[c, [k1, ..., kr]], ...]`, one coefficient and one degree a direction, into tuples.

    Raises ValueError unless every term has that form and all have the same number of degrees.
    """
    accepted = "expected a list of [coefficient, [degree in h1, ..., degree in hr]]"

    def listed(value):
        return isinstance(value, Sequence) and not isinstance(value, str)

    require(listed(terms) and len(terms) > 0, "target.terms", terms, accepted)
    read = []
    for term in terms:
        require(
            listed(term) and len(term) == 2 and listed(term[1]), "target.terms", terms, accepted
        )
        c, degrees = term
        number = isinstance(c, int | float) and math.isfinite(c)
        require(number, "target.terms", terms, accepted)
        whole = all(isinstance(k, int) and 0 <= k <= 20 for k in degrees)
        require(whole, "target.terms", terms, "degrees are whole numbers from 0 to 20")
        read.append((float(c), tuple(degrees)))
    ranks = {len(degrees) for _, degrees in read}
    same = len(ranks) == 1 and 0 not in ranks
    require(same, "target.terms", terms, "every term needs one degree for each direction")
    return tuple(read)


class SumOfProducts(Target, abc.ABC):
    """Σ c Π_i p_{k_i}(h_i) for a family p_k of one-direction functions."""

    terms: eqx.AbstractVar[Coefficients]

    @property
    def rank(self):
        return len(self.terms[0][1])

    @staticmethod
    @abc.abstractmethod
    def factor(degree: int, h: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """p_degree(h), elementwise."""

    def _part(self, c, degrees):
        """One summand as a function of its active directions, and these directions."""
        active = tuple(i for i, k in enumerate(degrees) if k > 0)

        def part(h):
            value = jnp.full(h.shape[:-1], c, h.dtype)
            for j, i in enumerate(active):
                value = value * self.factor(degrees[i], h[..., j])
            return value

        return part, active

    def parts(self):
        return [self._part(c, degrees) for c, degrees in self.terms]

    def __call__(self, h):
        return sum(part(restricted(h, active)) for part, active in self.parts())


class Hermite(SumOfProducts):
    """Σ c Π_i h_{k_i}(h_i) with normalised Hermite polynomials h_k = He_k/√k!.

    `terms` lists [c, [k_1, ..., k_r]]; the variance is the sum of c² over the non-constant
    terms. The default is h_4(h1) + h_4(h2), the poster's Exp 2.
    """

    terms: Coefficients = eqx.field(
        static=True, converter=coefficients, default=((1.0, (4, 0)), (1.0, (0, 4)))
    )

    @staticmethod
    def factor(degree, h):
        return normalised_hermite(degree, h)


class Polynomial(SumOfProducts):
    """Σ c Π_i h_i^{k_i}; `terms` lists [c, [k_1, ..., k_r]].

    The default is √(5/2)(h1² + ½ h2²), the poster's Exp 1 (variance 6.25).
    """

    terms: Coefficients = eqx.field(
        static=True,
        converter=coefficients,
        default=((math.sqrt(2.5), (2, 0)), (math.sqrt(2.5) / 2, (0, 2))),
    )

    @staticmethod
    def factor(degree, h):
        return h**degree
