"""E[f(h, z, y)] for directions h ~ N(0, I_r), pre-activations z and a label y ~ P(·|h).

With W of order parameters M = W Uᵀ (m, r) and Q = W Wᵀ (m, m),

    z = M h + L η,    L Lᵀ = Q − M Mᵀ,    η ~ N(0, I_m),

so that up to r + m = 4 a tensor rule serves: h on lines broken at 0, where targets like to jump,
and z_j given h and z_1 ... z_{j−1} on lines broken at z_j = 0, where relu has its kink. Nodes move
smoothly with M and Q, and so do averages. Above, a scrambled Sobol sequence, fixed by its seed.
"""

import abc
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mirage.arguments import whole
from mirage.gaussian import gauss_hermite, scattered
from mirage.options import require
from mirage.precision import double_precision
from mirage.targets import Kernel, Likelihood, NoisySign, Target, evaluation

# At most so many points (h, z, y).
POINTS = 400_000
FEWEST_POINTS = 2**12
# Nodes a line: no more than MOST are needed, and with fewer than FEWEST a Sobol sequence does
# better. Lines of h, along which targets vary as they like, have SHARE times those of z or more.
MOST, FEWEST, SHARE = 160, 12, 2.5
COARSE = 0.8
# Lines end at ±HALF_WIDTH and are even in tanh(η/STRETCH).
HALF_WIDTH, STRETCH = 8.0, 3.0
# Gauss-Hermite nodes of the label noise by r + m, and above.
NOISE_NODES = {2: 16, 3: 8}
FEWEST_NOISE_NODES = 4
# The variance of z_j given what comes before it counts as at least this share of Q_jj.
SMALLEST = 1e-12


@functools.partial(jax.jit, static_argnames="nodes")
def split_normal(
    edge: Float[Array, "*batch"], nodes: int
) -> tuple[Float[Array, "*batch nodes"], Float[Array, "*batch nodes"]]:
    """Points and weights for E[f(η)], η ~ N(0, 1), f smooth on either side of `edge`.

    Gauss-Legendre on [−8, edge] and on [edge, 8], `nodes`/2 each, in v = tanh(η/3), that crowds
    them where the density is. With 14 nodes and an edge at z = 0, averaged over edges as they come,
    expectations of relu and tanh are right to 1e-5, with 20 to 1e-6.
    """
    x, w = np.polynomial.legendre.leggauss(nodes // 2)
    x, w = (jnp.asarray(v, edge.dtype) for v in (x, w))
    end = jnp.asarray(math.tanh(HALF_WIDTH / STRETCH), edge.dtype)
    middle = jnp.tanh(jnp.clip(edge, -HALF_WIDTH, HALF_WIDTH) / STRETCH)[..., None]

    def panel(low, high):
        reach = (high - low) / 2
        return low + reach + _outer(reach, x), _outer(reach, w)

    panels = panel(-end, middle), panel(middle, end)
    v, widths = (jnp.concatenate(both, axis=-1) for both in zip(*panels, strict=True))
    points = STRETCH * jnp.arctanh(v)
    weights = widths / (1 - v * v) * jnp.exp(-(points**2) / 2)
    return points, weights / weights.sum(axis=-1, keepdims=True)


def _outer(scale, line):
    return scale * line.reshape(*(1,) * (scale.ndim - 1), -1)


def root(covariance: Float[Array, "m m"], variance: Float[Array, " m"]) -> Float[Array, "m m"]:
    """L, lower triangular, with L Lᵀ = `covariance`, which may be singular.

    What is left of row j counts as at least `SMALLEST` of `variance` j; where it is no more than
    that, later rows are taken not to depend on it. No derivative is NaN.
    """
    m = len(covariance)
    columns: list[Array] = []
    for j in range(m):
        left = covariance[:, j] - sum(
            (c * c[j] for c in columns), start=jnp.zeros(m, covariance.dtype)
        )
        floor = SMALLEST * variance[j] + 1e-30
        pivot = jnp.sqrt(jnp.where(left[j] < 0, 0.0, left[j]) + floor)
        below = jnp.where((jnp.arange(m) > j) & (left[j] > floor), left / pivot, 0.0)
        columns.append(below.at[j].set(pivot))
    return jnp.stack(columns, axis=1)


class Points(eqx.Module):
    """Points of (h, z, y) and their weights."""

    h: Float[Array, "r points"]
    z: Float[Array, "m points"]
    y: Float[Array, " points"]
    weights: Float[Array, " points"]


class Rule(eqx.Module):
    """What of the points does not depend on M and Q: h, y, and weights of both."""

    h: Float[Array, "r count"]
    y: Float[Array, " count"]
    weights: Float[Array, " count"]

    @abc.abstractmethod
    def __call__(self, overlap: Float[Array, "m r"], gram: Float[Array, "m m"]) -> Points:
        """The points at M and Q."""


class TensorRule(Rule):
    """z_1, ..., z_m one after another on lines that are broken where they change their sign."""

    nodes: int = eqx.field(static=True)

    def __call__(self, overlap, gram):
        m = len(gram)
        lower = root(gram - overlap @ overlap.T, jnp.diag(gram))
        z, weights = overlap @ self.h, self.weights
        for j in range(m):
            eta, w = split_normal(-z[j] / lower[j, j], self.nodes)
            z = (z[:, :, None] + lower[:, j, None, None] * eta[None]).reshape(m, -1)
            weights = (weights[:, None] * w).ravel()
        times = self.nodes**m
        h, y = (jnp.repeat(a, times, axis=-1) for a in (self.h, self.y))
        return Points(h, z, y, weights)


class ScatteredRule(Rule):
    """z = M h + L η at fixed normal numbers η."""

    normals: Float[Array, "m count"]

    def __call__(self, overlap, gram):
        lower = root(gram - overlap @ overlap.T, jnp.diag(gram))
        return Points(self.h, overlap @ self.h + lower @ self.normals, self.y, self.weights)


def rule(target: Target, neurons: int, *, points: int = POINTS, coarse: bool = False) -> Rule:
    """The rule for a target and m = `neurons` pre-activations, of at most so many points.

    A tensor rule where it has `FEWEST` nodes a line for z. Its `coarse` twin has four fifths of
    the nodes, half of the points of a sequence: the difference is an upper estimate of the error.

    Measured, for rates of order 1: rounding at r + m ≤ 3; at 4 and above 5e-5 for smooth targets
    and relu, 2e-4 for one as steep as tanh(h1 + He3(h2)), 5e-4 with label noise or at r + m > 4;
    up to 1e-3 where relu' jumps at a z other than 0 (`ExtraGradient`), whatever r + m.

    ValueError where labels cannot be averaged over given h (`labels_given`), or are not finite, for
    fewer neurons than one or points than `FEWEST_POINTS`.
    """
    whole(1, neurons=neurons)
    whole(FEWEST_POINTS, points=points)
    r = target.rank
    dimensions = r + neurons
    labels = len(labels_given(target, np.zeros((1, r)))[0])
    noise_nodes = NOISE_NODES.get(dimensions, FEWEST_NOISE_NODES) if target.noise > 0 else 1
    most = points / (labels * noise_nodes)
    nodes = 2 * int((most / SHARE**r) ** (1 / dimensions) / 2)
    share = COARSE if coarse else 1.0
    with double_precision():
        if nodes >= FEWEST:
            along_h = min((most / nodes**neurons) ** (1 / r), MOST)
            line, w = map(np.asarray, split_normal(jnp.zeros(()), 2 * int(share * along_h / 2)))
            h = np.stack(np.meshgrid(*[line] * r, indexing="ij"), axis=-1).reshape(-1, r)
            weights = functools.reduce(np.multiply.outer, [w] * r).ravel()
            known = _labelled(target, h, weights, *gauss_hermite(1, noise_nodes))
            return TensorRule(*known, nodes=2 * int(share * min(nodes, MOST) / 2))
        count = 2 ** (int(math.log2(points / labels)) - coarse)
        numbers, weights = scattered(dimensions + 1, count, seed=int(coarse))
        h, normals, noise = np.split(numbers, [r, dimensions], axis=1)
        known = _labelled(target, h, weights, noise.T, np.ones(1))
        return ScatteredRule(*known, normals=jnp.asarray(np.repeat(normals.T, labels, axis=1)))


def _labelled(target, h, weights, noise, noise_weights):
    """h once for each of its labels, these, and the weights of both."""
    y, probability = labels_given(target, h)
    if not np.isfinite(y).all():
        raise ValueError(
            f"target={target.name()}: its label is not finite for some h; "
            "expected a number wherever h can be"
        )
    y = y[:, None] + target.noise**0.5 * noise
    weights = probability[:, None] * noise_weights[:, None] * weights
    h = np.repeat(h.T, y.size // len(h), axis=1)
    return [jnp.asarray(a) for a in (h, _pointwise(y), _pointwise(weights))]


def _pointwise(values):
    """(labels, noise, count) in the order of points, all labels of one after another."""
    return values.reshape(-1, values.shape[-1]).T.ravel()


def labels_given(
    target: Target, h: Float[np.ndarray, "count r"]
) -> tuple[Float[np.ndarray, "labels count"], Float[np.ndarray, "labels count"]]:
    """Labels y before noise, and weights with E[f(y) | h] = Σ P(y|h) f(y).

    For y = g(h), for labels ±1, of which g = E[y | h] says all, and for a `Kernel` with
    `label_values` and `log_likelihood`. ValueError for others.
    """
    values = target.label_values() if isinstance(target, Kernel) else None
    values = np.array([-1.0, 1.0]) if isinstance(target, NoisySign) else values
    if values is None:
        plain = not isinstance(target, Kernel) and type(target).draw is Target.draw
        accepted = (
            "its label is random given h in a way that cannot be averaged over; expected label "
            "noise, labels ±1, or label_values (at most a few hundred) and log_likelihood"
        )
        require(plain, "target", target.name(), accepted)
        y = evaluation.values(target, h)[None]
        return y, np.ones_like(y)
    y = np.broadcast_to(values[:, None], (len(values), len(h)))
    if isinstance(target, Likelihood):
        with double_precision():
            log = jax.jit(target.log_likelihood)(jnp.asarray(y), jnp.asarray(h)[None])
        return y, np.exp(np.asarray(log))
    accepted = "expected a Kernel with log_likelihood, or with the labels ±1"
    require(set(values) == {-1.0, 1.0}, "target", target.name(), accepted)
    return y, (1 + y * evaluation.values(target, h)) / 2
