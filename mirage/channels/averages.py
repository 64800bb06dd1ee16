"""Averages of a channel over ω ~ N(0, Q), h | ω ~ N(ω, I − Q) and y ~ P(·|h)."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtri

from mirage.channels.channel import Channel, Information
from mirage.small_matrices import cholesky

# I − Q and Q count as at least this in every direction: recovery is exact below it.
SMALLEST = 1e-12
HALF_WIDTH = 8.0
# Points that go through a channel at once, and the floats of what needs many a point.
CHUNK = 2**12
FLOATS = 2**22

# A label for each h (r, *batch), given standard normal numbers (extra, *batch).
Draw = Callable[[Float[Array, " r *batch"], Float[Array, " extra *batch"]], Float[Array, "*batch"]]


def symmetric_root(matrix: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """L with L Lᵀ = matrix, lower triangular, for a matrix that may be singular."""
    eye = jnp.eye(len(matrix), dtype=matrix.dtype)
    return cholesky(matrix + SMALLEST * eye)


def remaining(overlap: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """I − Q, kept positive."""
    eye = jnp.eye(len(overlap), dtype=overlap.dtype)
    return eye - overlap + SMALLEST * eye


def graded(
    nodes: int, width: Float[Array, ""]
) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
    """Points and weights for E[f(x)], x ~ N(0, 1), for f that varies on the scale `width` at 0.

    The trapezoidal rule in t, x = width · sinh(t): it converges faster than any power of
    `nodes`, whatever the width.
    """
    end = jnp.arcsinh(HALF_WIDTH / width)
    t = jnp.linspace(-1.0, 1.0, nodes) * end
    x = width * jnp.sinh(t)
    weights = width * jnp.cosh(t) * jnp.exp(-(x**2) / 2)
    return x, weights / weights.sum()


@functools.cache
def _scattered(dimensions: int, count: int) -> np.ndarray:
    """Standard normal points (dimensions, count), spread evenly; the same in every process."""
    from scipy.stats import qmc  # slow to import, and needed for generic channels alone

    uniform = qmc.Sobol(dimensions, rng=0).random(count)
    return ndtri(np.clip(uniform, 1e-16, 1 - 1e-16)).T


def line_averages(
    channel: Channel,
    overlap: Float[Array, "1 1"],
    draw: Draw,
    *,
    extra: int = 0,
    nodes: int = 64,
    extra_nodes: int = 16,
) -> Information:
    """The averages of a channel of rank 1, by a tensor rule over ω, h and `extra` ≤ 1 numbers."""
    dtype = overlap.dtype
    v = remaining(overlap)[0, 0]
    x, weight_x = graded(nodes, jnp.sqrt(v))
    z = jnp.linspace(-7.0, 7.0, nodes, dtype=dtype)
    weight_z = jnp.exp(-(z**2) / 2)
    u = jnp.linspace(-6.0, 6.0, extra_nodes, dtype=dtype) if extra else jnp.zeros((1,), dtype)
    weight_u = jnp.exp(-(u**2) / 2)
    grid = jnp.stack(jnp.meshgrid(x, z, u, indexing="ij")).reshape(3, -1)
    weights = (weight_x[:, None, None] * weight_z[None, :, None] * weight_u[None, None]).ravel()
    omega = jnp.sqrt(jnp.maximum(overlap[0, 0], 0) + SMALLEST) * grid[:1]
    h = omega + jnp.sqrt(v) * grid[1:2]
    return _average(channel, overlap, omega, draw(h, grid[2:][:extra]), weights / weights.sum())


def double_exponential(
    panels: tuple[tuple[float, float], ...], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights (panels, count) on intervals, for functions singular at their ends.

    The trapezoidal rule in t, with h = (a + b)/2 + (b − a)/2 tanh(π/2 sinh t) (Takahasi and Mori
    1974): points crowd at both ends, so that layers of any width there are met.
    """
    t = np.linspace(-2.8, 2.8, count)
    share = 1 / (1 + np.exp(-np.pi * np.sinh(t)))
    weight = np.pi * np.cosh(t) * share * share[::-1] * (t[1] - t[0])
    lower, upper = np.array(panels).T[..., None]
    points = np.where(t < 0, lower + (upper - lower) * share, upper - (upper - lower) * share[::-1])
    return points, (upper - lower) * weight


def normal_rule(count: int, width: float, dtype) -> tuple[Array, Array]:
    """Equidistant points and weights for a standard normal number."""
    u = np.linspace(-width, width, count)
    w = np.exp(-(u**2) / 2)
    return jnp.asarray(u, dtype), jnp.asarray(w / w.sum(), dtype)


def in_blocks(function: Callable, samples, *, floats: int):
    """A function of one sample that needs so many floats, at all: as many at once as may be.

    Blocks are of one size, the last filled up: another size would be compiled for itself.
    """
    count, most = len(jax.tree.leaves(samples)[0]), max(1, FLOATS // floats)
    if count <= most:
        return jax.vmap(function)(samples)
    blocks = -(-count // most)
    size = -(-count // blocks)

    def cut(a):
        a = jnp.pad(a, [(0, blocks * size - count)] + [(0, 0)] * (a.ndim - 1), mode="edge")
        return a.reshape(blocks, size, *a.shape[1:])

    values = jax.lax.map(jax.vmap(function), jax.tree.map(cut, samples))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], values)


def scattered_averages(
    channel: Channel, overlap: Float[Array, "r r"], draw: Draw, *, extra: int = 0, count: int
) -> Information:
    """The averages of any channel over `count` points of a scrambled Sobol sequence.

    The same points at every Q, so that the averages are smooth functions of it, with errors of
    about 1/count^0.8 for smooth channels and 1/√count at worst.
    """
    r = len(overlap)
    points = jnp.asarray(_scattered(2 * r + extra, count), overlap.dtype)
    omega = scattered_centres(overlap, extra=extra, count=count)
    h = omega + symmetric_root(remaining(overlap)) @ points[r : 2 * r]
    weights = jnp.full((count,), 1 / count, overlap.dtype)
    return _average(channel, overlap, omega, draw(h, points[2 * r :]), weights)


def scattered_centres(
    overlap: Float[Array, "r r"], *, extra: int, count: int
) -> Float[Array, "r count"]:
    """The ω of `scattered_averages`."""
    r = len(overlap)
    points = jnp.asarray(_scattered(2 * r + extra, count), overlap.dtype)
    return symmetric_root(overlap) @ points[:r]


def _average(channel, overlap, omega, y, weights) -> Information:
    """Weighted means over points, in chunks."""
    v = remaining(overlap)
    count = len(weights)
    chunks = math.ceil(count / CHUNK)

    def cut(a):  # the last chunk is filled up with points of no weight
        a = jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, chunks * CHUNK - count)], mode="edge")
        return jnp.moveaxis(a.reshape(*a.shape[:-1], chunks, CHUNK), -2, 0)

    weights = jnp.pad(weights, (0, chunks * CHUNK - count)).reshape(chunks, CHUNK)

    def one(chunk):
        omega, y, w = chunk
        out = channel(y, omega, v)
        score = (w[None] * out.score) @ out.score.T
        return Information(score, w @ out.log_evidence, w @ channel.predict(omega, v) ** 2)

    sums = jax.lax.map(one, (cut(omega), cut(y), weights))
    return jax.tree.map(lambda a: a.sum(axis=0), sums)
