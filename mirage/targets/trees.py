"""Trees: functions of functions, which see many directions at first and few in the end."""

import dataclasses
import functools
import logging
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mirage.expressions import Expression as Formula
from mirage.gaussian import line_rule
from mirage.options import require
from mirage.precision import double_precision
from mirage.targets.base import Target

log = logging.getLogger(__name__)
# Points at which a label is looked at, and the spread under which it is a constant.
POINTS, SPREAD = 256, 1e-6


class Tree(Target):
    """y = Σ_{i ≤ branches} g(a_i · P(W_i x)) + √Δ ξ, the hierarchical targets of "The computational
    advantage of depth" (Dandi, Pesce, Zdeborová and Krzakala 2025, arXiv 2502.13961).

    Each W_i is `width` × d, with d^`width_exponent` rows unless `width` says how many (the nearest
    whole number; √d by default). The rows of all W_i are the directions U, so the rank is
    branches × width. P is `polynomial`, elementwise, a formula in `z`; g is `link`, one in `h`.
    z_i = W_i x are the linear features of the tree, h_i = a_i · P(z_i) the non-linear ones.

    a_i = s_i / √(width Var P(ξ)), ξ ~ N(0, 1), so that h_i has variance one, with signs s_i drawn
    for each seed; until they are, they alternate. With entries of one size E[y (xxᵀ − I)] has
    eigenvalues of one size: no direction is found long before the others. (The code of the paper
    has the same signs, He_k/k! for He_k, and divides y by √branches.)
    """

    draws: ClassVar[bool] = True
    polynomial: str = eqx.field(static=True, default="He2(z) + He3(z)")
    link: str = eqx.field(static=True, default="tanh(h)")
    branches: int = eqx.field(static=True, default=1)
    width_exponent: float = eqx.field(static=True, default=0.5)
    width: int | None = eqx.field(static=True, default=None)
    signs: Float[Array, "branches width"] | None = None

    def __check_init__(self):
        self.check("branches", self.branches >= 1, "expected a whole number ≥ 1")
        inside = 0 < self.width_exponent <= 1
        self.check("width_exponent", inside, "expected an exponent in (0, 1], of d^width_exponent")
        self.check("width", self.width is None or self.width >= 1, "expected null or at least 1")
        variance = _moments(self.polynomial)[1]
        accepted = "expected a formula in z of finite variance over N(0, 1), and not a constant"
        self.check("polynomial", SPREAD**2 < variance < math.inf, accepted)
        spread = _label_spread(self.polynomial, self.link, min(self.width or 2, 2))
        words = f"with polynomial={self.polynomial!r} the label is a constant, or not finite"
        self.check("link", SPREAD < spread < math.inf, f"{words}; expected one that depends on h")

    @classmethod
    def settings(cls):
        """Those of a config; the signs are drawn."""
        return {name: kind for name, kind in super().settings().items() if name != "signs"}

    @property
    def rank(self):
        return self.branches * self._known_width()

    def _known_width(self) -> int:
        accepted = "known once d is; here it must be given, a whole number ≥ 1"
        require(self.width is not None, "target.width", self.width, accepted)
        return self.width or 0

    def at(self, d):
        """With the width at d; ValueError unless all directions fit into d dimensions."""
        width = self.width or _power(d, self.width_exponent, log.isEnabledFor(logging.INFO))
        key = "width_exponent" if self.width is None else "width"
        words = (
            f"{self.branches} branch{'es' * (self.branches > 1)} of {width} directions are "
            f"{self.branches * width} directions, which do not fit into d={d}; expected at most "
            f"{d // self.branches} a branch"
        )
        self.check(key, self.branches * width <= d, words)
        return self if width == self.width else dataclasses.replace(self, width=width)

    def drawn(self, key):
        """With the signs s_i drawn."""
        signs = jax.random.rademacher(key, (self.branches, self._known_width()), jnp.float32)
        return dataclasses.replace(self, signs=signs)

    def features(self, h):
        """h_i = a_i · P(z_i), (..., branches)."""
        width = self._known_width()
        z = h.reshape(*h.shape[:-1], self.branches, width)
        p, signs = _polynomial(self.polynomial)(z=z), self._signs().astype(h.dtype)
        scale = math.sqrt(width * _moments(self.polynomial)[1])
        return jnp.einsum("...iw,iw->...i", p, signs) / scale

    def _signs(self) -> Array:
        if self.signs is not None:
            return self.signs
        alternating = (-1.0) ** np.arange(self.rank).reshape(self.branches, -1)
        return jnp.asarray(alternating, jnp.float32)

    def parts(self):
        width = self._known_width()

        def part(i):
            branch = dataclasses.replace(self, branches=1, signs=self._signs()[i : i + 1])
            return branch, tuple(range(i * width, (i + 1) * width))

        return [part(i) for i in range(self.branches)]

    def __call__(self, h):
        return _link(self.link)(h=self.features(h)).sum(axis=-1)


def _polynomial(text: str) -> Formula:
    return Formula(text, names=("z",), key="target.polynomial")


def _link(text: str) -> Formula:
    return Formula(text, names=("h",), key="target.link")


@functools.lru_cache(maxsize=32)
def _moments(polynomial: str) -> tuple[float, float]:
    """Mean and variance of P(ξ), ξ ~ N(0, 1)."""
    points, weights = line_rule(320, 13.0)
    with jax.ensure_compile_time_eval(), double_precision():
        values = np.asarray(_polynomial(polynomial)(z=jnp.asarray(points)))
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused
        mean = float(weights @ values)
        return mean, float(weights @ (values - mean) ** 2)


@functools.lru_cache(maxsize=32)
def _label_spread(polynomial: str, link: str, width: int) -> float:
    """Largest less smallest of g(a · P(z)) at some points z, for one branch."""
    z = np.random.default_rng(0).standard_normal((POINTS, width))
    a = (-1.0) ** np.arange(width) / math.sqrt(width * _moments(polynomial)[1])
    with jax.ensure_compile_time_eval(), double_precision():
        values = np.asarray(_polynomial(polynomial)(z=jnp.asarray(z)))
        return float(np.ptp(np.asarray(_link(link)(h=jnp.asarray(values @ a)))))


@functools.lru_cache(maxsize=64)
def _power(d: int, exponent: float, heard: bool) -> int:
    """The whole number ≥ 1 nearest to d^exponent; a word in the log, once, where it is another.

    Once it is `heard`: configs are checked before there is a log.
    """
    power = d**exponent
    width = max(1, round(power))
    if abs(power - width) > 1e-9:
        log.info(
            "d=%d: %d directions a branch, the nearest to d^%g = %.4g", d, width, exponent, power
        )
    return width
