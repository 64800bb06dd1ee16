"""The channel of a noiseless target with one direction, y = g(h): sums over the h that give y.

The level set is a few points, one on each monotone branch of g, and for a value that g takes on
whole intervals those intervals.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array

from mirage.channels.averages import (
    SMALLEST,
    double_exponential,
    in_blocks,
    normal_rule,
    remaining,
)
from mirage.channels.channel import Channel, Information, mixture
from mirage.channels.intervals import FAR, interval_output
from mirage.channels.line_pieces import DOUBLE, SINGLE, Pieces, on_line, panels_of, pieces_of
from mirage.targets import Target, evaluation

# Averages: a rule of PANEL points on each panel of h, and ω given h.
PANEL = 64
CENTRES = 64
SQUARE_CENTRES = 16
# The line rule of `predict`: 2.8e-2 between nodes, and kinks cost the square of that over 30.
PREDICT = 512
# Labels that a target is looked at with.
LABELS = 4096


class LineLevelSet(Channel):
    """y = g(h) with one direction: Z = Σ_k N(h_k; ω, V)/|g'(h_k)| over the roots of g(h) = y.

    For a value that g takes on intervals Z is their probability instead. Labels that no h has
    (rounding at an extremum) count as the nearest that some h has. `prepare` finds the roots:
    K of them, one a monotone branch (absent where the branch does not reach y), then their log
    weights −log|g'|, −∞ for absent, then the index of the atom, −1 for none.

    g is taken apart once, on a grid of 8192 points of [−10, 10]: of what happens between two
    neighbours, one extremum or one jump is seen. Float32 and float64 labels have pieces of their
    own, for a saturated g is constant earlier in float32.
    """

    target: Target
    single: Pieces = eqx.field(static=True)
    double: Pieces = eqx.field(static=True)
    panels: tuple[tuple[float, float], ...] = eqx.field(static=True)

    @property
    def rank(self):
        return 1

    def _of(self, dtype) -> Pieces:
        return self.double if dtype == jnp.float64 else self.single

    def _g(self, h):
        return self.target(h[..., None])

    def prepare(self, y):
        pieces = self._of(y.dtype)
        nearest, (points, weights) = self.roots(y)
        if not pieces.atoms:
            return jnp.concatenate([points, weights])
        values = _column([atom.value for atom in pieces.atoms], y)
        distance = jnp.abs(y[None] - values)
        index = jnp.argmin(distance, axis=0)
        closest = distance.min(axis=0)
        size = jnp.maximum(jnp.abs(values.ravel())[index], pieces.scale)
        atom = (closest <= pieces.tolerance * size) | (closest <= nearest)
        weights = jnp.where(atom[None], -jnp.inf, weights)
        chosen = jnp.where(atom, index, -1).astype(y.dtype)
        return jnp.concatenate([points, weights, chosen[None]])

    def roots(self, y):
        """How far y lies from all branches, and a root on each, with its log weight (K, *batch)."""
        pieces = self._of(y.dtype)
        branches = pieces.branches
        if not branches:
            none = jnp.zeros((0, *y.shape), y.dtype)
            return jnp.full_like(y, jnp.inf), (none, none)
        lower, upper, at_lower, at_upper, inner_lower, inner_upper = (
            _column(list(field), y) for field in zip(*branches, strict=True)
        )
        up = jnp.sign(at_upper - at_lower)
        below, above = jnp.minimum(at_lower, at_upper), jnp.maximum(at_lower, at_upper)
        label = jax.lax.stop_gradient(y)[None]
        # Rounding at an extremum must not cost a label its branch.
        slack = pieces.tolerance * jnp.maximum(jnp.abs(label), pieces.scale)
        distance = jnp.maximum(jnp.maximum(below - label, label - above) - slack, 0)

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            go_up = up * (label - self._g(middle)) > 0
            return jnp.where(go_up, middle, low), jnp.where(go_up, high, middle)

        ends = (jnp.broadcast_to(x, (len(branches), *y.shape)) for x in (lower, upper))
        digits = 53 if y.dtype == jnp.float64 else 24
        low, high = jax.lax.fori_loop(0, digits + 20, halve, tuple(ends))
        root = (low + high) / 2
        # Not at the ends themselves, where kinks are and g' may be 0.
        margin = 4 * jnp.finfo(y.dtype).eps * (upper - lower)
        smallest = jnp.sqrt(jnp.finfo(y.dtype).tiny)

        def slope(h):
            h = jnp.clip(h, lower + margin, upper - margin)
            h = jnp.clip(h, inner_lower, inner_upper)
            return jnp.maximum(jnp.abs(jax.jvp(self._g, (h,), (jnp.ones_like(h),))[1]), smallest)

        # ∂h/∂y = 1/g'(h), for those who differentiate; the value is that of bisection.
        root = root + up * (y[None] - label) / jax.lax.stop_gradient(slope(root))
        nearest = distance.min(axis=0)
        weight = jnp.where(distance <= nearest[None], -jnp.log(slope(root)), -jnp.inf)
        return nearest, (root, weight)

    def output(self, prepared, omega, covariance):
        pieces = self._of(prepared.dtype)
        count, v = len(pieces.branches), covariance[0, 0]
        points, weights = prepared[:count], prepared[count : 2 * count]
        difference = points - omega
        log_z = weights - difference**2 / (2 * v) - jnp.log(2 * math.pi * v) / 2
        parts = [(log_z, difference / v, jnp.full_like(difference, -1) / v)]
        if pieces.atoms:
            parts.append(self._intervals(pieces.atoms, prepared[-1], omega, v))
        log_z, score, curvature = (jnp.concatenate(x) for x in zip(*parts, strict=True))
        return mixture(log_z, score[None], curvature[None, None])

    @staticmethod
    def _intervals(atoms, index, omega, v):
        """The intervals of the atom of each label as components (intervals, *batch)."""
        most = max(len(atom.intervals) for atom in atoms)
        ends = np.zeros((len(atoms), most, 2))
        absent = np.ones((len(atoms), most))
        for i, atom in enumerate(atoms):
            ends[i, : len(atom.intervals)] = np.clip(atom.intervals, -FAR, FAR)
            absent[i, : len(atom.intervals)] = 0
        place = jnp.maximum(index, 0).astype(jnp.int32)
        ends = jnp.moveaxis(jnp.asarray(ends, index.dtype)[place], (-2, -1), (1, 0))
        absent = jnp.moveaxis(jnp.asarray(absent, bool)[place], -1, 0) | (index < 0)[None]
        # A component that is absent stands for (ω − s, ω + s): finite, and of no weight.
        apart = jnp.sqrt(v)
        lower = jnp.where(absent, omega - apart, ends[0])
        upper = jnp.where(absent, omega + apart, ends[1])
        log_p, score, curvature = interval_output(
            lower, upper, jnp.broadcast_to(omega, lower.shape), v
        )
        return jnp.where(absent, -jnp.inf, log_p), score, curvature

    def predict(self, omega, covariance):
        """E[g(h)]: jumps in closed form, and what is left, continuous, by a fixed rule."""
        pieces, dtype = self._of(omega.dtype), omega.dtype
        s = jnp.sqrt(covariance[0, 0])
        u, weights = normal_rule(PREDICT, 7.0, dtype)
        jumps = sorted(pieces.jumps)
        places = jnp.asarray([place for place, _ in jumps], dtype)
        heights = jnp.asarray([height for _, height in jumps], dtype)
        levels = jnp.concatenate([jnp.zeros((1,), dtype), jnp.cumsum(heights)])

        def at(centre):
            h = centre + s * u
            value = self._g(h)
            if not jumps:
                return weights @ value
            value = value - levels[jnp.searchsorted(places, h)]
            return weights @ value + heights @ ndtr((centre - places) / s)

        flat = in_blocks(at, omega.ravel(), floats=4 * PREDICT)
        return flat.reshape(omega.shape[1:])

    def information(self, overlap):
        """Over h ~ N(0, 1) on the panels, and ω given h, which is N(q h, q (1 − q))."""
        dtype = overlap.dtype
        q, v = jnp.maximum(overlap[0, 0], 0), remaining(overlap)
        points, measure = double_exponential(self.panels, PANEL)
        measure = measure * np.exp(-(points**2) / 2)
        h = jnp.asarray(points, dtype)
        measure = jnp.asarray(measure / measure.sum(), dtype)
        spread = jnp.sqrt(q * v[0, 0] + SMALLEST**2)
        u, weights = normal_rule(CENTRES, 7.0, dtype)
        rough, rough_weights = normal_rule(SQUARE_CENTRES, 5.5, dtype)

        def panel(nodes):
            h, w = nodes
            prepared = self.prepare(self._g(h))[..., None]
            centre = q * h[None, :, None]
            out = self.output(prepared, centre + spread * u[None, None], v)
            predicted = self.predict(centre + spread * rough[None, None], v)
            return Information(
                (w @ out.score[0] ** 2 @ weights)[None, None],
                w @ out.log_evidence @ weights,
                w @ predicted**2 @ rough_weights,
            )

        sums = jax.lax.map(panel, (h, measure))
        return jax.tree.map(lambda a: a.sum(axis=0), sums)


def _column(numbers: list[float], like: Array) -> Array:
    """Numbers (k, 1, ..., 1), to meet (*batch)."""
    return jnp.asarray(numbers, like.dtype).reshape(-1, *(1,) * like.ndim)


def line_level_set(target: Target) -> LineLevelSet:
    """The channel of a noiseless target of rank 1.

    Raises ValueError for another rank, or for labels that are random given h.
    """
    check_noiseless(target, rank=1)
    single, double = (pieces_of(target, tolerance=eps) for eps in (SINGLE, DOUBLE))
    return LineLevelSet(target, single, double, panels_of(on_line(target), double))


def check_noiseless(target: Target, *, rank: int) -> None:
    """Raise ValueError unless the target has this rank and y = g(h)."""
    name = target.name()
    if target.rank != rank:
        raise ValueError(f"target={name}: rank {target.rank}; expected a target of rank {rank}")
    if target.noise != 0:
        raise ValueError(f"target={name}: noise {target.noise}; expected target.noise = 0")
    h = np.random.default_rng(0).standard_normal((LABELS, rank))
    y, g = evaluation.labels(target, h, seed=1), evaluation.values(target, h)
    if not np.array_equal(y, g, equal_nan=True):
        raise ValueError(f"target={name}: labels are random given h; expected y = g(h)")
