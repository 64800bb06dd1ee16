"""Channels of y = f(h1) + c sign(h1 h2 h3): the staircases."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float

from mirage.channels.averages import (
    double_exponential,
    graded,
    normal_rule,
    remaining,
    scattered_averages,
    scattered_centres,
)
from mirage.channels.channel import Channel, Information
from mirage.channels.line_level_set import LineLevelSet, line_level_set
from mirage.channels.sign_triples import SIDE_NODES, both_sides, given_first
from mirage.channels.signs import independent_signs, sign_output
from mirage.options import require
from mirage.precision import double_precision
from mirage.targets import Target, evaluation

# Averages: nodes of h1 on each panel, of ω1 given h1, of ω2 and ω3, of the noise, of E[f|ω1].
PANEL, CENTRES, PAIRS, NOISES, PREDICT = 24, 24, 24, 12, 64
REACH, MOST_CUTS = 8.0, 256
# Panels are no wider than this, where the density of h1 is not negligible.
MORE_CUTS = (-4.6, -2.8, -1.4, 1.4, 2.8, 4.6)
# Points of the averages at an overlap matrix that is not diagonal.
COUNT = 2**12


class FirstAndSign(Channel):
    """y = f(h1) + c sign(h1 h2 h3) + √Δ ξ, with c = `scale` and Δ = `noise` (`noisy`: Δ > 0).

    Without noise h1 is one of the few roots of f(h1) = y ∓ c, so that Z is a sum over roots h
    and s = ±1 of N(h; ω1, V11)/|f'(h)| · P(sign(h2 h3) = s sign(h) | h1 = h); with noise a rule
    over h1 takes the place of roots. `order` says which directions of the target are h1, h2 and h3.
    """

    first: LineLevelSet
    panels: tuple[tuple[float, float], ...] = eqx.field(static=True)
    scale: float = eqx.field(static=True, default=1.0)
    order: tuple[int, ...] = eqx.field(static=True, default=(0, 1, 2))
    noisy: bool = eqx.field(static=True, default=False)
    noise: Float[Array, ""] | float = 0.0
    full: bool = eqx.field(static=True, default=False)

    @property
    def rank(self):
        return 3

    def _f(self, h):
        return self.first.target(h[..., None])

    def prepare(self, y):
        """Roots for s = 1 and −1 and their log weights; the label itself where there is noise."""
        if self.noisy:
            return y[None]
        h1, log_weights = zip(*(self._roots(y, s) for s in (1.0, -1.0)), strict=True)
        return jnp.concatenate([*h1, *log_weights])

    def _roots(self, y, s):
        """The roots of f(h1) = y − s c with their log weights −log|f'|, −∞ where there is none."""
        away, (h1, log_weights) = self.first.roots(y - s * self.scale)
        other, _ = self.first.roots(y + s * self.scale)
        # A label that rounding moved off what f can reach belongs to the nearer of the two.
        rounding = 16 * jnp.finfo(y.dtype).eps * (jnp.abs(y) + abs(self.scale))
        reached = away <= jnp.minimum(other, rounding)
        return h1, jnp.where(reached, log_weights, -jnp.inf)

    def _components(self, prepared, omega1, variance):
        """h1, log weights and s sign(h1), along a leading axis; the weights without N(h1; ω1).

        With noise, the first half is of s sign(h1) = 1.
        """
        if not self.noisy:
            h1, log_weights = jnp.split(prepared, 2)
            s = jnp.ones_like(h1).at[len(h1) // 2 :].set(-1)
            return h1, log_weights, s * jnp.where(h1 < 0, -1, 1).astype(h1.dtype)
        nodes, widths, sides = both_sides(omega1, variance)
        noise = jnp.asarray(self.noise, nodes.dtype)
        parts = []
        for side in (1.0, -1.0):  # of h2 h3, whose sign is s sign(h1)
            misfit = prepared[:1] - self._f(nodes) - side * sides * self.scale
            log_weights = widths - misfit**2 / (2 * noise) - jnp.log(2 * math.pi * noise) / 2
            parts.append((nodes, log_weights, jnp.full_like(nodes, side)))
        return tuple(jnp.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def output(self, prepared, omega, covariance):
        order = np.asarray(self.order)
        omega, covariance = omega[order], covariance[order][:, order]
        h1, log_weights, signs = self._components(prepared, omega[0], covariance[0, 0])
        out = given_first(h1, log_weights, signs, omega, covariance)
        back = np.argsort(order)
        return out._replace(score=out.score[back], curvature=out.curvature[back][:, back])

    def predict(self, omega, covariance):
        order = np.asarray(self.order)
        omega, covariance = omega[order], covariance[order][:, order]
        plus = sign_output(jnp.ones_like(omega[0]), omega, covariance).log_evidence
        return self._mean(omega[0], covariance[0, 0]) + self.scale * (2 * jnp.exp(plus) - 1)

    def _mean(self, omega1, variance):
        return self.first.predict(omega1[None], variance[None, None])

    def information(self, overlap):
        """By tensor rules for a diagonal Q, or with `full` over scattered points."""
        return self._scattered(overlap) if self.full else self._separable(overlap)

    @property
    def diagonal_only(self):
        return not self.full

    def for_any_overlap(self):
        return dataclasses.replace(self, full=True)

    def _scattered(self, overlap):
        def draw(h, u):
            h = h[np.asarray(self.order)]
            y = self._f(h[0]) + self.scale * jnp.sign(h).prod(axis=0)
            return y + jnp.sqrt(jnp.asarray(self.noise, y.dtype)) * u[0] if self.noisy else y

        sizes = {"extra": int(self.noisy), "count": COUNT}
        averages = scattered_averages(self, overlap, draw, **sizes)
        # E[f|ω1]² may have heavy tails, which few points miss: its mean over the points gives way
        # to that by a rule.
        i = self.order[0]
        v1 = remaining(overlap)[i, i]
        centres, weights = self._centres(jnp.maximum(overlap[i, i], 0), v1)
        exact = weights @ self._mean(centres, v1) ** 2
        seen = (self._mean(scattered_centres(overlap, **sizes)[i], v1) ** 2).mean()
        return averages._replace(square=averages.square + exact - seen)

    def _separable(self, overlap):
        """Z = W₊ P₊ + W₋ P₋, where W depends on (y, ω1) and P₊ = P(h2 h3 > 0) on (ω2, ω3) alone."""
        order, dtype = np.asarray(self.order), overlap.dtype
        q = jnp.maximum(jnp.diag(overlap)[order], 0)
        v = jnp.diag(remaining(overlap))[order]
        log_pair, slopes, weight_pair = self._pairs(q, v)
        points, measure = double_exponential(self.panels, PANEL)
        measure = measure * np.exp(-(points**2) / 2)
        u, weight_u = normal_rule(CENTRES, 6.0, dtype)
        noise_u, noise_weight = normal_rule(NOISES, 5.0, dtype)
        if not self.noisy:
            noise_u, noise_weight = jnp.zeros((1,), dtype), jnp.ones((1,), dtype)
        root_noise = jnp.sqrt(jnp.asarray(self.noise, dtype)) if self.noisy else 0.0

        s = jnp.asarray([1.0, -1.0], dtype)[:, None, None]

        def panel(nodes):
            h, w = nodes  # (PANEL,)
            omega1 = q[0] * h[:, None] + jnp.sqrt(q[0] * v[0] + 1e-24) * u[None]
            sign = s * jnp.where(h < 0, -1, 1).astype(dtype)[None, None]  # (2, 1, PANEL)
            y = self._f(h)[None, None] + s * self.scale + root_noise * noise_u[None, :, None]
            log_w, ahead = self._sides(y, omega1[None, None], v[0])
            mass = noise_weight[:, None, None] * w[None, :, None] * weight_u[None, None]
            return self._sum(log_w, ahead, mass, sign, log_pair, slopes, weight_pair)

        nodes = (jnp.asarray(points, dtype), jnp.asarray(measure / measure.sum(), dtype))
        first, second, third, evidence = jax.tree.map(
            lambda a: a.sum(axis=0), jax.lax.map(panel, nodes)
        )
        score = jnp.diag(jnp.stack([first, second, third])[np.argsort(order)])
        return Information(score, evidence, self._square(q, v, log_pair, weight_pair))

    def _pairs(self, q, v):
        """log P(h2 h3 ≷ 0) (2, pairs), its slopes in ω2 and ω3 (2, 2, pairs), and weights (pairs,).

        Half the nodes of ω2: both signs turned round at once change nothing.
        """
        (x2, w2), (x3, w3) = (graded(PAIRS, jnp.sqrt(v[i])) for i in (1, 2))
        x2, w2 = x2[PAIRS // 2 :], 2 * w2[PAIRS // 2 :]
        roots, scale = jnp.sqrt(q[1:] + 1e-24), jnp.sqrt(v[1:])
        law = independent_signs([roots[0] * x2[:, None], roots[1] * x3[None]], scale)
        pairs = (w2[:, None] * w3[None]).ravel()
        slopes = law.slopes.swapaxes(0, 1).reshape(2, 2, -1)
        return law.log_probability.reshape(2, -1), slopes, pairs

    def _sides(self, y, omega1, variance):
        """log W₊, log W₋ and the means of (h1 − ω1)/V11 in each, (2, *labels, ω1)."""
        prepared = self.prepare(y)[..., None]
        h1, log_weights, signs = self._components(prepared, omega1, variance)
        ahead = h1 - omega1[None]
        log_weights = log_weights - ahead**2 / (2 * variance) - jnp.log(2 * math.pi * variance) / 2
        if self.noisy:
            sides, aheads = jnp.split(log_weights, 2), jnp.split(ahead, 2)
        else:
            sides = [jnp.where(signs * s > 0, log_weights, -jnp.inf) for s in (1.0, -1.0)]
            aheads = [ahead, ahead]
        tops = [jnp.maximum(side.max(axis=0), -1e6) for side in sides]
        shares = [jnp.exp(side - top[None]) for side, top in zip(sides, tops, strict=True)]
        totals = [share.sum(axis=0) for share in shares]
        # What is smaller than normal numbers counts as 0 in some operations and not in others.
        present = [total > jnp.finfo(total.dtype).tiny for total in totals]
        divisors = [jnp.where(here, total, 1) for here, total in zip(present, totals, strict=True)]
        means = [
            # In this order: XLA would multiply two divisors, and the product may vanish.
            jnp.where(here, (share * (ahead / variance)).sum(axis=0), 0) / divisor
            for here, share, ahead, divisor in zip(present, shares, aheads, divisors, strict=True)
        ]
        log_w = [
            jnp.where(here, top + jnp.log(divisor), -1e6)
            for here, top, divisor in zip(present, tops, divisors, strict=True)
        ]
        return jnp.stack(log_w), jnp.stack(means)

    def _sum(self, log_w, ahead, mass, sign, log_pair, slopes, weight_pair):
        """Weighted sums of g1², g2², g3² and log Z over labels, ω1 and (ω2, ω3)."""
        line = (*(1,) * (log_w.ndim - 1), -1)
        top = log_w.max(axis=0)
        # Numbers in place of logs: an outcome whose probability is too small for one has no weight.
        scaled = jnp.exp(log_w - top[None])[..., None]
        plus, minus = (jnp.exp(log).reshape(line) for log in log_pair)
        for_plus = scaled[0] * plus
        evidence = for_plus + scaled[1] * minus
        possible = evidence > jnp.finfo(evidence.dtype).tiny
        evidence = jnp.where(possible, evidence, 1)
        share = for_plus / evidence  # of h2 h3 > 0, given the label
        drawn = jnp.where(sign[..., None, None] > 0, plus, minus)
        weight = mass[None, ..., None] * drawn * weight_pair.reshape(line)
        weight = jnp.where(possible, weight, 0)

        def total(first, second):
            return (weight * (second + share * (first - second)) ** 2).sum()

        return (
            total(ahead[0][..., None], ahead[1][..., None]),
            total(*(slope.reshape(line) for slope in slopes[:, 0])),
            total(*(slope.reshape(line) for slope in slopes[:, 1])),
            (weight * (top[..., None] + jnp.log(evidence))).sum(),
        )

    def _centres(self, q, v):
        """A rule for ω1 ~ N(0, q)."""
        x, w = graded(2 * PREDICT, jnp.sqrt(v))
        return jnp.sqrt(q + 1e-24) * x, w

    def _square(self, q, v, log_pair, weight_pair):
        """E[E[y|ω]²]."""
        omega1, w = self._centres(q[0], v[0])
        mean = self._mean(omega1, v[0])
        side = self.scale * erf(omega1 / jnp.sqrt(2 * v[0]))
        pair = -jnp.expm1(log_pair[1] + math.log(2))  # P₊ − P₋
        predicted = mean[:, None] + side[:, None] * pair[None]
        return w @ predicted**2 @ weight_pair


def first_and_sign(
    first: Target, *, scale: float = 1.0, order: tuple[int, ...] = (0, 1, 2), noise: float = 0.0
) -> FirstAndSign:
    """The channel of f(h1) + scale · sign(h1 h2 h3) + √noise ξ, with a noiseless f of rank 1.

    ValueError where the noise is too small for the rule over h1 that takes the place of roots.
    """
    line = line_level_set(first)
    if noise > 0:
        h = np.random.default_rng(0).standard_normal((2**12, 1))
        slope = float(np.sqrt(np.nanmean(evaluation.gradients(first, h) ** 2)))
        least = (slope * 8 / SIDE_NODES) ** 2
        words = f"expected 0, or at least {least:.2g}: less is not resolved"
        require(noise >= least, "target.noise", noise, words)
    return FirstAndSign(line, _panels(line, scale), scale, order, noise > 0, noise)


def _panels(line: LineLevelSet, scale: float) -> tuple[tuple[float, float], ...]:
    """[−REACH, REACH] cut where roots of f(h) = y ± c appear or vanish, and at 0.

    The right half alone where f is even: turning round h1 and h2 then changes nothing.
    """
    branches = line.double.branches
    extremes = [v for b in branches for x, v in ((b[0], b[2]), (b[1], b[3])) if abs(x) < REACH]
    levels = np.array([v + k * scale for v in extremes for k in (-2.0, 0.0, 2.0)])
    cuts = {0.0, -REACH, REACH, *(x for b in branches for x in b[:2] if abs(x) < REACH)}
    if len(levels) and len(levels) * len(branches) < MOST_CUTS:
        with double_precision():
            _, (roots, log_weights) = jax.jit(lambda y: line.roots(y))(levels)
            found = np.asarray(roots)[np.isfinite(np.asarray(log_weights))]
            cuts |= {float(x) for x in found if abs(x) < REACH}
    cuts |= {x for x in MORE_CUTS if min(abs(x - cut) for cut in cuts) > 0.4}
    h = np.linspace(0, REACH, 1001)[1:, None]
    even = np.allclose(evaluation.values(line.target, h), evaluation.values(line.target, -h))
    places = np.array(sorted(x for x in cuts if not even or x >= 0))
    places = places[np.diff(places, prepend=-np.inf) > 1e-6]
    return tuple(zip(places[:-1].tolist(), places[1:].tolist(), strict=True))
