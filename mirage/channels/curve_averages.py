"""Averages of a noiseless channel of rank 2 over all labels at once, along its level curves."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.channels.averages import SMALLEST, remaining
from mirage.channels.level_curves import LevelCurves

# Beliefs with smaller variances are not resolved: their averages are extrapolated.
RESOLVED = 0.015
# A belief that is wider than this in one direction is not extrapolated.
WIDE = 0.25
# The rule over ω = Q^{1/2} x, |x_i| ≤ HALF_WIDTH: nodes in each direction, and for which largest
# eigenvalues of Q V⁻¹ they are enough, with 1.3 of them to the width of ω given h.
HALF_WIDTH = 5.0
CENTRES, ENOUGH = (30, 46, 66, 108), (4.0, 11.6, 24.0)


class Averages(NamedTuple):
    """V^{1/2} E[g_out g_outᵀ] V^{1/2} = E[m mᵀ] for m = V^{-1/2}(E[h|y] − ω), and E[log Z]."""

    moment: Float[Array, "2 2"]
    log_evidence: Float[Array, ""]


def curve_averages(
    curves: LevelCurves, overlap: Float[Array, "2 2"]
) -> tuple[Float[Array, "2 2"], Float[Array, ""]]:
    """E[g_out g_outᵀ] and E[log Z] for y = g(h), at an overlap matrix Q, V = I − Q.

    With the points h_k and densities c_k of the curve of a label y

        Z = Σ_k c_k N(h_k; ω, V),    Z E[h|y] = Σ_k c_k h_k N(h_k; ω, V)

    at all ω of a tensor rule: products of two matrices, for N(h; ω, V) is a function of ω_1
    times one of ω_2. Beliefs need a width of 0.12, V ≥ 0.015. In narrower ones curves are
    straight but for the neighbourhoods of extrema and saddle points, and averages are those of
    straight curves less something that goes as v (a + b log v + c v) for V = v V₁: a, b and c
    are taken from 0.015, 0.03 and 0.06. Where V is narrow in one direction and wider than 0.25
    in the other, it counts as 0.015 in the narrow one.

    Against a rule four times as fine, with V resolved down to 0.005: of h_4(h_1) + h_4(h_2),
    h1*h2 and h1² + h2 averages are right to 2e-4 of their size where beliefs are resolved, 8e-4
    where they are not; of curves that turn more (h1 + He3(h2), sin(3 h1) + h2), or have
    kinks (relu(h1) + h2), to 2e-3 and 6e-3; where g jumps, to 1e-2.
    """
    v = remaining(overlap)
    low, high = _eigenvalues(v)
    least = jnp.maximum(low, RESOLVED * jnp.minimum(1, (high / WIDE) ** 2))
    scale = jnp.maximum(RESOLVED / least, 1)
    most = jnp.maximum(high, jnp.minimum(scale * high, WIDE))
    resolved = _with_eigenvalues(v, scale * least, most)
    share = high / most

    def direct(_):
        return _over_curves(curves, resolved)

    def extrapolated(_):
        narrow = _straight(curves, _with_eigenvalues(v, least, high))

        def short(w):
            return jax.tree.map(jnp.subtract, _straight(curves, w), _over_curves(curves, w))

        def less(straight, short):
            first, second, third = short[0], short[1] / 2, short[2] / 4
            c = third - 2 * second + first
            b = second - first - c
            return straight - share * (first + b * jnp.log2(share) + c * (share - 1))

        shorts = jax.lax.map(short, jnp.stack([resolved, 2 * resolved, 4 * resolved]))
        return jax.tree.map(less, narrow, shorts)

    found = jax.lax.cond(scale > 1, extrapolated, direct, None)
    inverse_root = _with_eigenvalues(v, 1 / jnp.sqrt(low), 1 / jnp.sqrt(high))
    return inverse_root @ found.moment @ inverse_root, found.log_evidence


def _eigenvalues(v):
    half = (v[0, 0] + v[1, 1]) / 2
    square = ((v[0, 0] - v[1, 1]) / 2) ** 2 + v[0, 1] ** 2
    apart = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    # Of a narrow direction beside a wide one half − apart would be rounding.
    high = half + apart
    determinant = v[0, 0] * v[1, 1] - v[0, 1] ** 2
    return jnp.maximum(determinant / high, SMALLEST / 2), high


def _with_eigenvalues(v, low, high):
    """The matrix with the eigenvectors of V and other eigenvalues."""
    was_low, was_high = _eigenvalues(v)
    apart = was_high - was_low
    alike = apart <= 1e-6 * was_high
    slope = jnp.where(alike, 0, (high - low) / jnp.where(alike, 1, apart))
    eye = jnp.eye(2, dtype=v.dtype)
    return low * eye + slope * (v - was_low * eye)


def _root(matrix):
    """The symmetric root: a rule over ω or h then has the symmetries of the target."""
    low, high = _eigenvalues(matrix)
    return _with_eigenvalues(matrix, jnp.sqrt(low), jnp.sqrt(high))


def _arrays(curves, dtype):
    return (jnp.asarray(array, dtype) for array in curves[:4])


def _over_curves(curves, v) -> Averages:
    """The averages at a V that is resolved."""
    eye = jnp.eye(2, dtype=v.dtype)
    overlap = eye - v + 2 * SMALLEST * eye
    # (h − ω)ᵀV⁻¹(h − ω)/2 = Σ_i (b_i − c x_i)²/2c + what depends on h alone or x alone, with
    # b = V⁻¹ Q^{1/2} h and c the largest eigenvalue of Q V⁻¹: no part of it is large and negative.
    largest = _eigenvalues(overlap)[1] / _eigenvalues(v)[0]
    rules = [functools.partial(_with_centres, curves, count) for count in CENTRES]
    finest = (largest > jnp.asarray(ENOUGH, v.dtype)).sum()
    return jax.lax.switch(finest, rules, v, overlap, largest)


def _with_centres(curves, count, v, overlap, largest) -> Averages:
    dtype = v.dtype
    weight, points, density, _ = _arrays(curves, dtype)
    low, high = _eigenvalues(v)
    inverse = _with_eigenvalues(v, 1 / low, 1 / high)
    inverse_root = _with_eigenvalues(v, 1 / jnp.sqrt(low), 1 / jnp.sqrt(high))
    root = _root(overlap)
    x = jnp.linspace(-HALF_WIDTH, HALF_WIDTH, count, dtype=dtype)
    axes = x[count // 2 :] if curves.even else x, x
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)
    omega = grid @ root
    ratio = overlap @ inverse
    of_x = (largest * (grid**2).sum(axis=-1) - ((grid @ ratio) * grid).sum(axis=-1)) / 2
    log_scale = of_x - math.log(2 * math.pi) - jnp.log(low * high) / 2
    step = x[1] - x[0]
    prior = jnp.exp(-(grid**2).sum(axis=-1) / 2) * step**2 / (2 * math.pi)
    tiny = jnp.finfo(dtype).tiny

    def one(label):
        weight, points, density = label
        b = points @ (inverse @ root)
        of_h = (b**2).sum(axis=-1) / largest - ((points @ inverse) * points).sum(axis=-1)
        mass = density * jnp.exp(of_h / 2)
        first, second = (
            jnp.exp(-((b[:, i, None] - largest * axes[i][None]) ** 2) / (2 * largest))
            for i in (0, 1)
        )
        parts = jnp.stack([mass, mass * points[:, 0], mass * points[:, 1]])
        z, *means = jnp.matmul((parts[:, :, None] * first[None]).swapaxes(1, 2), second[None])
        seen = z > tiny
        z = jnp.where(seen, z, 1)
        mean = jnp.stack([mean / z for mean in means], axis=-1) - omega
        m = jnp.where(seen[..., None], mean, 0) @ inverse_root
        log_z = jnp.log(z) + log_scale
        share = jnp.where(seen, prior * jnp.exp(log_z), 0) * weight
        return (
            jnp.einsum("ab,abi,abj->ij", share, m, m),
            (share * log_z).sum(),
            share.sum(),
        )

    moment, log_evidence, total = jax.tree.map(
        lambda a: a.sum(axis=0), jax.lax.map(one, (weight, points, density))
    )
    return Averages(moment / total, log_evidence / total)


def _straight(curves, v) -> Averages:
    """The averages if every curve were its tangent where h is.

    Then E[h|y] − ω = V^{1/2} n (n·z) with n along V^{1/2}∇g and h = ω + V^{1/2} z, and given h,
    z has mean V^{1/2}h and covariance Q.
    """
    dtype = v.dtype
    weight, points, density, gradient = _arrays(curves, dtype)
    root = _root(v)
    measure = weight[:, None] * density * jnp.exp(-(points**2).sum(axis=-1) / 2) / (2 * math.pi)
    slope = gradient @ root
    square = jnp.maximum((slope**2).sum(axis=-1), jnp.finfo(dtype).tiny)
    n = slope / jnp.sqrt(square)[..., None]
    along = ((n @ root) * points).sum(axis=-1)
    eye = jnp.eye(2, dtype=dtype)
    second = along**2 + ((n @ (eye - v)) * n).sum(axis=-1)
    return Averages(
        jnp.einsum("lk,lki,lkj->ij", measure * second, n, n),
        -(measure * (second + jnp.log(2 * math.pi * square))).sum() / 2,
    )
