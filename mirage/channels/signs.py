"""Channels whose label is a sign of a product of directions: probit, parity, flips, noise."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import erf
from jaxtyping import Array, Float

from mirage.channels.averages import (
    SMALLEST,
    graded,
    remaining,
    scattered_averages,
    symmetric_root,
)
from mirage.channels.channel import Channel, Information, Output, mixture
from mirage.channels.sign_pairs import pair_output
from mirage.channels.sign_triples import both_sides, given_first
from mirage.tails import inverse_mills_ratio, log_tails

NOISE_NODES = 24
# Nodes a direction of ω, by rank.
NODES = {1: 96, 2: 40, 3: 32}


def sign_output(
    sign: Float[Array, "*batch"], omega: Float[Array, " k *batch"], covariance: Float[Array, "k k"]
) -> Output:
    """The channel of s = sign(h1 ... hk), k ≤ 3: closed forms, and one integral at k = 3."""
    k = len(omega)
    if k == 1:
        scale = jnp.sqrt(covariance[0, 0])
        z = sign * omega[0] / scale
        log_p, _ = log_tails(z)
        slope = inverse_mills_ratio(z)
        curvature = -slope * (z + slope) / scale**2
        return Output(log_p, (sign * slope / scale)[None], curvature[None, None])
    if k == 2:
        return Output(*pair_output(sign, omega, covariance))
    h1, widths, sides = both_sides(omega[0], covariance[0, 0])
    return given_first(h1, widths, sign[None] * sides, omega, covariance)


def both_outputs(omega: Float[Array, " k *batch"], covariance: Float[Array, "k k"]) -> Output:
    """`sign_output` for s = 1 and −1, an axis before the batch.

    One after the other: as one batch it compiles sooner, and AMP's blocks of rows take longer.
    """
    sides = [sign_output(jnp.full_like(omega[0], s), omega, covariance) for s in (1.0, -1.0)]
    return Output(
        *(jnp.stack(both, axis=axis) for axis, both in enumerate(zip(*sides, strict=True)))
    )


class SignLaw(NamedTuple):
    """log P(s|ω) for s = 1 and −1, (2, *batch), and its slopes in ω, (k, 2, *batch)."""

    log_probability: Float[Array, " two *batch"]
    slopes: Float[Array, " k two *batch"]


def independent_signs(omega: Sequence[Float[Array, "..."]], scale: Float[Array, " k"]) -> SignLaw:
    """The law of s = sign(h1 ... hk) for independent h_i ~ N(ω_i, scale_i²).

    The ω_i may be lines of a grid, shapes that broadcast: what depends on one is computed on its
    line. Terms of P(s|ω) are positive and added in logs, as 1 ± Π erf would cancel where one sign
    is certain, and both the density and P are far below what a number can hold in

        ∂ log P(s|ω)/∂ω_i = s φ(z_i)/scale_i Π_{j≠i} erf(z_j/√2) / P(s|ω),    z_i = ω_i/scale_i.
    """
    z = [o[None] / width for o, width in zip(omega, scale, strict=True)]
    places = range(len(z))
    sides = [log_tails(one) for one in z]

    def log_of(parity):
        chosen = [p for p in itertools.product((0, 1), repeat=len(z)) if sum(p) % 2 == parity]
        terms = [sum(sides[i][side] for i, side in enumerate(pattern)) for pattern in chosen]
        return jax.nn.logsumexp(jnp.stack(terms), axis=0)

    log_p = jnp.concatenate([log_of(0), log_of(1)])
    s = jnp.asarray([1.0, -1.0], log_p.dtype).reshape(2, *(1,) * (log_p.ndim - 1))
    erfs = [erf(one / math.sqrt(2)) for one in z]

    def slope(i):
        log_density = -(z[i] ** 2) / 2 - math.log(2 * math.pi) / 2
        others = math.prod(erfs[j] for j in places if j != i)
        return s * jnp.exp(log_density - log_p) * others / scale[i]

    return SignLaw(log_p, jnp.stack([slope(i) for i in places]))


class SignProduct(Channel):
    """y made of s = sign(h1 ... hk): `scale` · s, flipped with probability `flip`, or plus √Δ ξ.

    With `inner_noise` the sign is that of h + √inner_noise ξ (k = 1). P(y|ω) is a mixture over
    s = ±1 of P(y|s) P(s|ω). `noisy` says whether Δ = `noise` > 0; then labels are numbers. With
    `full`, averages at k = 3 are right for any Q.
    """

    k: int = eqx.field(static=True)
    noisy: bool = eqx.field(static=True, default=False)
    full: bool = eqx.field(static=True, default=False)
    scale: float = eqx.field(static=True, default=1.0)
    noise: Float[Array, ""] | float = 0.0
    flip: Float[Array, ""] | float = 0.0
    inner_noise: Float[Array, ""] | float = 0.0

    @property
    def rank(self):
        return self.k

    @property
    def _certain(self) -> bool:
        """Whether y says what s is."""
        return not self.noisy and isinstance(self.flip, float) and self.flip == 0

    def prepare(self, y):
        """s where y says it, else log P(y|s) for s = 1 and s = −1."""
        return jnp.sign(self.scale * y)[None] if self._certain else self._log_kernel(y)

    def _log_kernel(self, y):
        s = jnp.asarray([1.0, -1.0], y.dtype).reshape(2, *(1,) * y.ndim)
        if self.noisy:
            noise = jnp.asarray(self.noise, y.dtype)
            return -((y[None] - self.scale * s) ** 2) / (2 * noise) - 0.5 * jnp.log(
                2 * math.pi * noise
            )
        flip = jnp.asarray(self.flip, y.dtype)
        return jnp.log(jnp.where(y[None] * s * self.scale > 0, 1 - flip, flip))

    def output(self, prepared, omega, covariance):
        covariance = self._wide(covariance)
        if self._certain:
            return sign_output(prepared[0], omega, covariance)
        both = both_outputs(omega, covariance)
        return mixture(prepared + both.log_evidence, both.score, both.curvature)

    def _wide(self, covariance):
        eye = jnp.eye(self.k, dtype=covariance.dtype)
        return covariance + jnp.asarray(self.inner_noise, covariance.dtype) * eye

    def predict(self, omega, covariance):
        plus = sign_output(jnp.ones_like(omega[0]), omega, self._wide(covariance)).log_evidence
        share = self.scale * (1 - 2 * jnp.asarray(self.flip, omega.dtype))
        return share * (2 * jnp.exp(plus) - 1)

    def information(self, overlap):
        """By tensor rules; at k = 3 over a diagonal Q, or with `full` over scattered points."""
        if self.k < 3:
            return self._tensor(overlap)
        return self._scattered(overlap) if self.full else self._separable(overlap)

    @property
    def diagonal_only(self):
        return self.k == 3 and not self.full

    def for_any_overlap(self):
        return dataclasses.replace(self, full=True)

    def _outcomes(self, log_s):
        """Labels y_j and their probabilities given those of s = ±1: (j, *batch)."""
        dtype, column = log_s.dtype, (-1, *(1,) * (log_s.ndim - 1))
        s = jnp.asarray([1.0, -1.0], dtype)
        if self.noisy:
            u = jnp.linspace(-6.0, 6.0, NOISE_NODES, dtype=dtype)
            w = jnp.exp(-(u**2) / 2)
            y = self.scale * s[:, None] + jnp.sqrt(jnp.asarray(self.noise, dtype)) * u[None]
            log_w = jnp.log(w / w.sum()).reshape(column)
            return y.ravel(), jnp.concatenate([log_w + log_s[:1], log_w + log_s[1:]])
        log_kernel = self._log_kernel(s)  # (s, y)
        log_y = jax.nn.logsumexp(
            log_kernel.reshape(2, 2, *(1,) * (log_s.ndim - 1)) + log_s[:, None], axis=0
        )
        return s, log_y

    def _average(self, weights, log_s, scores):
        """Averages over ω with these weights, from log P(s|ω) and ∂ log P(s|ω), s = 1 and −1."""
        y, log_y = self._outcomes(log_s)
        log_kernel = self._log_kernel(y)  # (s, y)
        log_kernel = log_kernel.reshape(*log_kernel.shape, *(1,) * (log_s.ndim - 1))
        joint = log_kernel + log_s[:, None]
        evidence = jax.nn.logsumexp(joint, axis=0)
        share = jnp.exp(joint - evidence[None])  # (s, y, *batch)
        score = (share[None] * scores[:, :, None]).sum(axis=1)  # (k, y, *batch)
        mass = weights[None] * jnp.exp(log_y)
        mean = (
            self.scale
            * (1 - 2 * jnp.asarray(self.flip, weights.dtype))
            * -jnp.expm1(log_s[1] + math.log(2))
        )
        return Information(
            jnp.einsum("y...,iy...,jy...->ij", mass, score, score),
            (mass * evidence).sum(),
            (weights * mean**2).sum(),
        )

    def _tensor(self, overlap):
        """Over a grid of ω, half of its first line: ω and −ω are alike."""
        lines, w = self._grid(overlap, halves=1)
        x = jnp.stack(jnp.meshgrid(*lines, indexing="ij"))
        omega = jnp.tensordot(symmetric_root(overlap), x, axes=1)
        both = both_outputs(omega, self._wide(remaining(overlap)))
        return self._average(w, both.log_evidence, both.score)

    def _separable(self, overlap):
        """Over the diagonal of Q: every sign of every direction can be moved into the label's."""
        lines, w = self._grid(overlap, halves=self.k)
        widths = jnp.sqrt(jnp.diag(overlap) + SMALLEST)
        omega = [
            (width * line).reshape(*(1,) * i, -1, *(1,) * (self.k - 1 - i))
            for i, (width, line) in enumerate(zip(widths, lines, strict=True))
        ]
        v = self._wide(remaining(overlap))
        law = independent_signs(omega, jnp.sqrt(jnp.diag(v)))
        return self._average(w, law.log_probability, law.slopes)

    def _grid(self, overlap, *, halves):
        """Lines of the grid of ω, of which `halves` are half ones, and the weights on it."""
        v, nodes = remaining(overlap), NODES[self.k]
        rules = [graded(nodes, jnp.sqrt(v[i, i])) for i in range(self.k)]
        for i in range(halves):
            points, weights = rules[i]
            rules[i] = points[nodes // 2 :], 2 * weights[nodes // 2 :]
        w = jnp.ones((), overlap.dtype)
        for _, weights in rules:
            w = w[..., None] * weights.reshape(*(1,) * w.ndim, -1)
        return [points for points, _ in rules], w

    def _scattered(self, overlap):
        def draw(h, u):
            sign = jnp.sign(h).prod(axis=0)
            if self.noisy:
                return self.scale * sign + jnp.sqrt(jnp.asarray(self.noise, h.dtype)) * u[0]
            flipped = u[0] < jax.scipy.special.ndtri(jnp.asarray(self.flip, h.dtype))
            return jnp.where(flipped, -sign, sign)

        return scattered_averages(self, overlap, draw, extra=1, count=2**12)
