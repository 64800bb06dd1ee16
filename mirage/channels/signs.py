"""Channels whose label is a sign of a product of directions: probit, parity, flips, noise."""

import dataclasses
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from mirage.channels.averages import graded, remaining, scattered_averages, symmetric_root
from mirage.channels.channel import Channel, Information, Output, mixture
from mirage.channels.sign_pairs import pair_output
from mirage.channels.sign_triples import both_sides, given_first

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
        log_p = log_ndtr(z)
        slope = jnp.exp(-(z**2) / 2 - log_p) / math.sqrt(2 * math.pi)
        curvature = -slope * (z + slope) / scale**2
        return Output(log_p, (sign * slope / scale)[None], curvature[None, None])
    if k == 2:
        return Output(*pair_output(sign, omega, covariance))
    h1, widths, sides = both_sides(omega[0], covariance[0, 0])
    return given_first(h1, widths, sign[None] * sides, omega, covariance)


def log_probability(
    sign: Float[Array, "*batch"], omega: Float[Array, " k *batch"], scale: Float[Array, " k"]
) -> Float[Array, "*batch"]:
    """log P(sign(h1 ... hk) = sign) for independent h_i ~ N(ω_i, scale_i²).

    All terms are positive and added in logs: 1 ± Π erf would cancel where one sign is certain.
    """
    z = omega / scale.reshape(-1, *(1,) * (omega.ndim - 1))
    sides = jnp.stack([log_ndtr(z), log_ndtr(-z)])
    patterns = [p for p in itertools.product((0, 1), repeat=len(omega)) if sum(p) % 2 == 0]
    same, other = (
        jax.nn.logsumexp(
            jnp.stack(
                [
                    sum(sides[s, i] for i, s in enumerate(((p[0] + flip) % 2, *p[1:])))
                    for p in patterns
                ]
            ),
            axis=0,
        )
        for flip in (0, 1)
    )
    return jnp.where(sign > 0, same, other)


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
        sides = [sign_output(jnp.full_like(omega[0], s), omega, covariance) for s in (1.0, -1.0)]
        log_weights = prepared + jnp.stack([side.log_evidence for side in sides])
        return mixture(
            log_weights,
            jnp.stack([side.score for side in sides], axis=1),
            jnp.stack([side.curvature for side in sides], axis=2),
        )

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
            return self._tensor(overlap, sign_output, halves=1)
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

    def _tensor(self, overlap, output, *, halves):
        """Over the grid of ω, of which `halves` lines are symmetric: ω_i and −ω_i are alike."""
        v = remaining(overlap)
        nodes = NODES[self.k]
        lines = [graded(nodes, jnp.sqrt(v[i, i])) for i in range(self.k)]
        for i in range(halves):
            points, weights = lines[i]
            lines[i] = points[nodes // 2 :], 2 * weights[nodes // 2 :]
        x = jnp.stack(jnp.meshgrid(*(x for x, _ in lines), indexing="ij"))
        w = jnp.ones((), overlap.dtype)
        for _, line in lines:
            w = w[..., None] * line.reshape(*(1,) * w.ndim, -1)
        omega = jnp.tensordot(symmetric_root(overlap), x, axes=1)
        sides = [output(jnp.full_like(w, s), omega, self._wide(v)) for s in (1.0, -1.0)]
        log_s = jnp.stack([side.log_evidence for side in sides])
        scores = jnp.stack([side.score for side in sides], axis=1)
        return self._average(w, log_s, scores)

    def _separable(self, overlap):
        def output(sign, omega, covariance):
            scale = jnp.sqrt(jnp.diag(covariance))
            total = lambda o: log_probability(sign, o, scale).sum()  # noqa: E731
            value = log_probability(sign, omega, scale)
            return Output(value, jax.grad(total)(omega), jnp.zeros(()))

        # Every sign of every direction alone can be moved into that of the label.
        return self._tensor(jnp.diag(jnp.diag(overlap)), output, halves=self.k)

    def _scattered(self, overlap):
        def draw(h, u):
            sign = jnp.sign(h).prod(axis=0)
            if self.noisy:
                return self.scale * sign + jnp.sqrt(jnp.asarray(self.noise, h.dtype)) * u[0]
            flipped = u[0] < jax.scipy.special.ndtri(jnp.asarray(self.flip, h.dtype))
            return jnp.where(flipped, -sign, sign)

        return scattered_averages(self, overlap, draw, extra=1, count=2**12)
