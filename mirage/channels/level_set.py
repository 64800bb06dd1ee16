"""Channels of noiseless targets, y = g(h): integrals over the level set {h : g(h) = y}.

With one direction the level set is a few points, one on each monotone branch of g, and for a
value that g takes on whole intervals those intervals. With two it is a curve, met by two families
of parallel lines.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr
from jaxtyping import Array, Float, Int

from mirage.channels.averages import SMALLEST, remaining, scattered_averages
from mirage.channels.channel import Channel, Information, Output, mixture
from mirage.small_matrices import cholesky, inverse_lower
from mirage.targets import Target, evaluation

# g of one direction is looked at on [−END, END], at NODES points, moved by OFFSET: so none is a
# simple number, where targets have kinks and jumps, and no two are mirror images.
END = 10.0
NODES = 8192
OFFSET = math.pi * 1e-4
MAX_BRANCHES = 64
# A cell that keeps this share of the change of g, however short it gets, holds a jump.
JUMP = 0.02
# Relative precision of labels in float32 and float64, after a formula of some length (the tanh of
# XLA is off by 2e-7 and 4e-14 where it is nearly 1).
SINGLE = 4 * float(np.finfo(np.float32).eps)
DOUBLE = 1e-12
# Averages: h on panels of [−REACH, REACH], a rule of PANEL points on each, and ω given h.
REACH = 8.0
PANEL = 64
MAX_PANELS = 24
CENTRES = 64
SQUARE_CENTRES = 16
# What stands for infinity among the ends of intervals: derivatives want numbers.
FAR = 1e6
# The line rule of `predict`: 2.8e-2 between nodes, and kinks cost the square of that over 30.
PREDICT = 512
# For two directions, in units of the belief: PLANE_NODES lines each way, from −PLANE_END to
# PLANE_END, and at most ROOTS points of a line.
PLANE_END = 5.0
PLANE_NODES = 81
ROOTS = 4
# Powers of ∂_i g in the weights of the two families.
POWER = 2
PLANE_PREDICT = 65
POINTS = 2**12
FLOATS = 2**22
LABELS = 4096

Line = Callable[[np.ndarray], np.ndarray]


class Branch(NamedTuple):
    """An interval on which g is monotone and continuous, and g at its two ends.

    Labels do not tell points outside [inner_lower, inner_upper] from the ends.
    """

    lower: float
    upper: float
    at_lower: float
    at_upper: float
    inner_lower: float
    inner_upper: float


class Atom(NamedTuple):
    """A value that g takes on intervals; ends may be infinite."""

    value: float
    intervals: tuple[tuple[float, float], ...]


class Pieces(NamedTuple):
    """g of one direction: where it is monotone, where constant, and its jumps (place, height).

    Labels differ if they do by `tolerance`, relative to their size or to `scale`, that of g.
    """

    branches: tuple[Branch, ...]
    atoms: tuple[Atom, ...]
    jumps: tuple[tuple[float, float], ...]
    scale: float
    tolerance: float


def _on_line(target: Target) -> Line:
    """g at points of any shape, in float64."""

    def line(h):
        with np.errstate(all="ignore"):
            return evaluation.values(target, h[..., None])

    return line


def _bisected(
    low: np.ndarray, high: np.ndarray, is_low: Callable[[np.ndarray], np.ndarray], *, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Brackets halved `steps` times; `is_low` says which end the middle replaces."""
    for _ in range(steps):
        middle = (low + high) / 2
        go_up = is_low(middle)
        low, high = np.where(go_up, middle, low), np.where(go_up, high, middle)
    return low, high


def _jumps(line: Line, h: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brackets of the jumps of g: cells halved towards the larger change, which stays large."""
    low, high, at_low, at_high = h[:-1], h[1:], g[:-1], g[1:]
    change = np.abs(at_high - at_low)
    for _ in range(36):
        middle = (low + high) / 2
        at = line(middle)
        go_up = np.abs(at_high - at) > np.abs(at - at_low)
        low, high = np.where(go_up, middle, low), np.where(go_up, high, middle)
        at_low, at_high = np.where(go_up, at, at_low), np.where(go_up, at_high, at)
    left = np.abs(at_high - at_low)
    size = np.abs(at_high) + np.abs(at_low)
    found = np.isfinite(left) & (left > JUMP * change) & (left > 1e-9 * size)
    return low[found], high[found]


def _extremes(line: Line, h: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Places of the local extremes of g, kinks included, where its values on a grid turn round."""
    up = np.sign(np.diff(g))
    turn = np.flatnonzero(up[:-1] * up[1:] < 0) + 1
    if not len(turn):
        return np.zeros(0)
    low, high, direction = h[turn - 1], h[turn + 1], up[turn - 1, None]
    for _ in range(30):  # nine points in each bracket, of which the best and its neighbours stay
        x = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 9)
        best = np.clip(np.argmax(direction * line(x), axis=1), 1, 7)
        row = np.arange(len(turn))
        low, high = x[row, best - 1], x[row, best + 1]
    return x[row, best]


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and one past last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _plateaus(
    line: Line, h: np.ndarray, g: np.ndarray, *, tolerance: float, scale: float
) -> list[tuple[float, float, float]]:
    """(value, lower, upper) of the intervals on which g is constant, the longest first.

    Constant is what is so in float64; the ends are where g leaves the value by more than
    `tolerance`, relative to it or to `scale`: in float32 tanh(3h) is 1 from h = 2.5 on.
    """
    flat = (np.abs(np.diff(g)) <= DOUBLE * np.abs(g[1:])) & np.isfinite(g[1:])
    found: list[tuple[float, float, float]] = []
    for first, last in sorted(_runs(flat), key=lambda run: h[run[0]] - h[run[1]]):
        middle = (first + last) // 2
        short = h[last] - h[first] < 6 * END / NODES
        if short or any(lower <= h[middle] <= upper for _, lower, upper in found):
            continue
        value = float(g[middle])

        def near(x, value=value):
            return np.abs(line(x) - value) <= tolerance * max(abs(value), scale)

        away = ~near(h)
        before, after = np.flatnonzero(away[:middle]), np.flatnonzero(away[middle:])
        lower = _edge(near, h[before[-1] + 1], h[before[-1]]) if len(before) else -np.inf
        upper = (
            _edge(near, h[middle + after[0] - 1], h[middle + after[0]]) if len(after) else np.inf
        )
        found.append((value, lower, upper))
    return found


def _edge(
    near: Callable[[np.ndarray], np.ndarray], inside: np.ndarray, outside: np.ndarray
) -> float:
    """Where `near` ends, between a point inside and one outside."""
    return float(_bisected(inside[None], outside[None], near, steps=60)[0][0])


def _atoms(plateaus: list[tuple[float, float, float]], *, tolerance: float) -> tuple[Atom, ...]:
    """Plateaus of the same value put together."""
    atoms: list[Atom] = []
    for value, lower, upper in plateaus:
        same = [i for i, a in enumerate(atoms) if abs(a.value - value) <= tolerance * abs(value)]
        if same:
            atom = atoms[same[0]]
            atoms[same[0]] = Atom(atom.value, (*atom.intervals, (lower, upper)))
        else:
            atoms.append(Atom(value, ((lower, upper),)))
    return tuple(atoms)


def _branches(
    line: Line, h: np.ndarray, sign: np.ndarray, *, tolerance: float
) -> tuple[Branch, ...]:
    """Runs of cells on which g goes the same way, given its direction in each; 0 where none."""
    runs = np.array([run for up in (-1, 1) for run in _runs(sign == up)], int).reshape(-1, 2)
    lower, upper = h[runs].T
    at_lower, at_upper = line(lower), line(upper)
    kept = np.abs(at_upper - at_lower) > 8 * DOUBLE * np.abs(at_lower)
    lower, upper, at_lower, at_upper = (x[kept] for x in (lower, upper, at_lower, at_upper))

    def inner(end, value, other):
        def same(x):
            return np.abs(line(x) - value) <= tolerance * np.abs(value)

        return _bisected(end, other, same, steps=60)[1]

    edges = inner(lower, at_lower, upper), inner(upper, at_upper, lower)
    table = np.array([lower, upper, at_lower, at_upper, *edges]).T
    branches = [Branch(*row) for row in table.tolist()]
    branches.sort(key=lambda b: max(b.lower, -b.upper, 0))  # those nearest to 0 first
    return tuple(branches[:MAX_BRANCHES])


def _pieces(target: Target, *, tolerance: float) -> Pieces:
    """A target of rank 1 taken apart, for labels of relative precision `tolerance`."""
    line = _on_line(target)
    h = np.linspace(-END, END, NODES) + OFFSET
    h = np.union1d(h, _extremes(line, h, line(h)))
    before, after = _jumps(line, h, line(h))
    h = np.unique(np.concatenate([h, before, after]))
    g = line(h)
    centre = np.abs(g[(np.abs(h) < 2) & np.isfinite(g)])
    scale = float(centre.mean()) if len(centre) else 1.0
    plateaus = _plateaus(line, h, g, tolerance=tolerance, scale=scale)
    h = np.union1d(h, [x for _, *ends in plateaus for x in ends if math.isfinite(x)])
    g = line(h)
    with np.errstate(invalid="ignore"):
        change = np.diff(g)
    sign = np.where(np.isfinite(change), np.sign(change), 0)
    middle = (h[1:] + h[:-1]) / 2
    for lower, upper in [*zip(before, after, strict=True), *(ends for _, *ends in plateaus)]:
        sign[(middle > lower) & (middle < upper)] = 0
    heights = line(after) - line(before)
    return Pieces(
        _branches(line, h, sign, tolerance=tolerance),
        _atoms(plateaus, tolerance=tolerance),
        tuple(zip(((before + after) / 2).tolist(), heights.tolist(), strict=True)),
        scale,
        tolerance,
    )


def _panels(line: Line, pieces: Pieces) -> tuple[tuple[float, float], ...]:
    """[−REACH, REACH] cut where what a label says changes abruptly.

    These are the ends of branches and atoms and, on every branch, the points whose label is that
    of such an end elsewhere: there roots appear or vanish.
    """
    ends = [x for a in pieces.atoms for interval in a.intervals for x in interval]
    ends += [x for b in pieces.branches for x in (b.lower, b.upper)]
    ends += [place for place, _ in pieces.jumps]
    critical = {a.value for a in pieces.atoms}
    critical |= {
        v for b in pieces.branches for x, v in (b[:4:2], b[1:4:2]) if abs(x) < END - 2 * OFFSET
    }
    inside = [
        (b, v)
        for b in pieces.branches
        for v in critical
        if min(b.at_lower, b.at_upper) < v < max(b.at_lower, b.at_upper)
    ]
    splits = np.zeros(0)
    if 0 < len(inside) <= MAX_PANELS:
        table = np.array([(*b[:4], v) for b, v in inside]).T
        low, high, at_low, at_high, v = table
        up = np.sign(at_high - at_low)
        splits, _ = _bisected(low, high, lambda x: up * (line(x) - v) < 0, steps=60)
    cuts = np.array([-REACH, REACH, *ends, *splits])
    cuts = np.sort(cuts[np.abs(cuts) <= REACH])
    cuts = cuts[np.diff(cuts, prepend=-np.inf) > 1e-9]
    return tuple(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


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


def _log_ndtr_scaled(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log Φ(x) + x²/2 for x ≤ 0, without the two large terms."""
    far = x < -8
    near, away = jnp.where(far, -1, x), jnp.where(far, x, -8)
    s = 1 / away**2
    # Φ(x) = φ(x)/|x| (1 − 1/x² + 3/x⁴ − ...)
    series = jnp.log1p(-s * (1 - 3 * s * (1 - 5 * s * (1 - 7 * s * (1 - 9 * s)))))
    tail = series - jnp.log(-away) - math.log(2 * math.pi) / 2
    return jnp.where(far, tail, log_ndtr(near) + near**2 / 2)


def interval_output(
    lower: Float[Array, "*batch"],
    upper: Float[Array, "*batch"],
    omega: Float[Array, "*batch"],
    variance: Float[Array, ""],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """log P(lower < h < upper), h ~ N(ω, V), and its two derivatives in ω.

        P = Φ(β) − Φ(α),  s ∂ log P = (φ(α) − φ(β))/P,
        V ∂² log P = (α φ(α) − β φ(β))/P − (s ∂ log P)²,

    α = (lower − ω)/s, β = (upper − ω)/s, s = √V. All is taken relative to the density at the end
    next to ω, on the side of the lower tail, so that nothing cancels or underflows far away.
    """
    s = jnp.sqrt(variance)
    alpha = (jnp.maximum(lower, -FAR) - omega) / s
    beta = (jnp.minimum(upper, FAR) - omega) / s
    mirrored = alpha + beta > 0
    a, b = jnp.where(mirrored, -beta, alpha), jnp.where(mirrored, -alpha, beta)
    # b may lie above 0, where Φ(b) ≥ 1/2 needs no scaling.
    scaled = jnp.where(b > 0, log_ndtr(b) + b**2 / 2, _log_ndtr_scaled(jnp.minimum(b, 0)))
    exponent = (a - b) * (-a - b) / 2  # φ(a)/φ(b) = exp(−(a² − b²)/2), a + b ≤ 0
    exponent = -jnp.abs(exponent)
    ratio = jnp.exp(_log_ndtr_scaled(jnp.minimum(a, 0)) - scaled + exponent)
    rest = jnp.log1p(-jnp.minimum(ratio, 1 - jnp.finfo(a.dtype).eps))
    log_p = jnp.where(b > 0, log_ndtr(b), scaled - b**2 / 2) + rest
    at_b = jnp.exp(-scaled - rest - math.log(2 * math.pi) / 2)
    at_a = at_b * jnp.exp(exponent)
    first = at_a - at_b
    second = jnp.where(at_a > 0, a, 0) * at_a - jnp.where(at_b > 0, b, 0) * at_b - first**2
    return log_p, jnp.where(mirrored, -first, first) / s, second / variance


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

        flat = _in_blocks(at, omega.ravel(), floats=4 * PREDICT)
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


def _in_blocks(function: Callable, samples, *, floats: int):
    """A function of one sample that needs so many floats, at all: as many at once as may be."""
    count, block = len(jax.tree.leaves(samples)[0]), max(1, FLOATS // floats)
    if count <= block:
        return jax.vmap(function)(samples)
    return jax.lax.map(function, samples, batch_size=block)


def _column(numbers: list[float], like: Array) -> Array:
    """Numbers (k, 1, ..., 1), to meet (*batch)."""
    return jnp.asarray(numbers, like.dtype).reshape(-1, *(1,) * like.ndim)


class PlaneLevelSet(Channel):
    """y = g(h) with two directions: Z = ∫ N(h; ω, V)/‖∇g‖ over {g = y}, by two families of lines.

    With h = ω + L z, L Lᵀ = V, lines z_j = const meet the curve in points z, found by bisection
    between fixed nodes and polished. With t_i = (∂_i g)²/‖∇g‖², derivatives in z, a point on a
    line along z_i has the weight

        φ(z_1) φ(z_2) · spacing/|∂_i g| · t_i^p/(t_1^p + t_2^p),  p = 2:

    shares of the two families that add up to one, and vanish where lines touch the curve.
    Jumps of g are no points of the curve.

    Lines are 0.125 apart in z, and of each at most four points are kept. Errors of E[z|y] are
    1e-4 where the curve is smooth on that scale, 1e-2 where it turns within it. A closed curve that
    no line meets counts as a point; where the curve lies beyond |z| = 5, g is taken as linear at a
    point of it, found by steps along ∇g from the nearest node.
    """

    target: Target

    @property
    def rank(self):
        return 2

    def output(self, prepared, omega, covariance):
        root = _belief_root(covariance)
        y = prepared[0]

        def one(sample):
            label, centre = sample
            return _on_curve(self.target, label, centre, root)

        samples = (y.ravel(), omega.reshape(2, -1).T)
        log_z, mean, second = _in_blocks(one, samples, floats=4 * PLANE_NODES**2)
        inverse = inverse_lower(root)
        covariances = second - mean[:, :, None] * mean[:, None]
        eye = jnp.eye(2, dtype=y.dtype)[None]
        score = inverse.T @ mean.T
        curvature = jnp.einsum("ki,nkl,lj->ijn", inverse, covariances - eye, inverse)
        return Output(
            log_z.reshape(y.shape),
            score.reshape(omega.shape),
            curvature.reshape(2, 2, *y.shape),
        )

    def predict(self, omega, covariance):
        root = _belief_root(covariance)
        u, weights = normal_rule(PLANE_PREDICT, 6.0, omega.dtype)
        z = jnp.stack(jnp.meshgrid(u, u, indexing="ij"), axis=-1) @ root.T

        def at(centre):
            return weights @ self.target(centre[None, None] + z) @ weights

        flat = _in_blocks(at, omega.reshape(2, -1).T, floats=4 * PLANE_PREDICT**2)
        return flat.reshape(omega.shape[1:])

    def information(self, overlap):
        def draw(h, _):
            return self.target(jnp.moveaxis(h, 0, -1))

        return scattered_averages(self, overlap, draw, count=POINTS)


def _belief_root(covariance: Float[Array, "2 2"]) -> Float[Array, "2 2"]:
    """L with L Lᵀ = V; V may be singular up to rounding."""
    eye = jnp.eye(2, dtype=covariance.dtype)
    return cholesky(covariance + 4 * jnp.finfo(covariance.dtype).eps * jnp.trace(covariance) * eye)


def _log_normal(z: Float[Array, "*shape 2"]) -> Float[Array, "*shape"]:
    return -(z**2).sum(axis=-1) / 2 - math.log(2 * math.pi)


def _on_curve(target, y, omega, root):
    """log Z, E[z] (2,) and E[z zᵀ] (2, 2) of one label, for h = ω + L z."""
    dtype = y.dtype
    nodes = jnp.linspace(-PLANE_END, PLANE_END, PLANE_NODES, dtype=dtype)

    def excess(z):  # (*shape, 2) to (*shape)
        h1 = omega[0] + root[0, 0] * z[..., 0]
        h2 = omega[1] + root[1, 0] * z[..., 0] + root[1, 1] * z[..., 1]
        return target(jnp.stack([h1, h2], axis=-1)) - y

    def slopes(z):
        return jax.grad(lambda z: excess(z).sum())(z)

    grid = jnp.stack(jnp.meshgrid(nodes, nodes, indexing="ij"), axis=-1)
    values = jax.lax.stop_gradient(excess(grid))
    families = [_crossings(excess, slopes, values, nodes, along=i) for i in (0, 1)]
    z, log_w = (jnp.concatenate(x) for x in zip(*families, strict=True))
    found = jnp.isfinite(log_w).any()
    single_z, single_w, single_second = _nearest(excess, slopes, values, grid)
    top = jnp.where(found, jax.lax.stop_gradient(log_w).max(), 0)
    weights = jnp.exp(log_w - top)
    total = jnp.where(found, weights.sum(), 1)
    share = weights / total
    mean = share @ z
    second = (share[:, None] * z).T @ z
    return (
        jnp.where(found, top + jnp.log(total), single_w),
        jnp.where(found, mean, single_z),
        jnp.where(found, second, single_second),
    )


def _crossings(excess, slopes, values, nodes, *, along: int):
    """Points of {excess = 0} on the lines along z_i (points, 2), and their log weights."""
    f = jnp.moveaxis(values, along, 0)
    change = (f[:-1] < 0) != (f[1:] < 0)
    change &= jnp.isfinite(f[:-1]) & jnp.isfinite(f[1:])
    cell, present = _first_true(change, ROOTS)

    def at(x):  # points with z_along = x
        other = jnp.broadcast_to(nodes[None], x.shape)
        return jnp.stack([x, other] if along == 0 else [other, x], axis=-1)

    start = jnp.take_along_axis(f, cell, axis=0)
    whole = jnp.abs(jnp.take_along_axis(f, cell + 1, axis=0) - start)
    is_low = start < 0
    low, high = nodes[cell], nodes[cell + 1]

    def halve(_, state):
        low, high, at_low, at_high = state
        middle = (low + high) / 2
        value = excess(at(middle))
        go_up = (value < 0) == is_low
        return (
            jnp.where(go_up, middle, low),
            jnp.where(go_up, high, middle),
            jnp.where(go_up, value, at_low),
            jnp.where(go_up, at_high, value),
        )

    state = (low, high, start, jnp.take_along_axis(f, cell + 1, axis=0))
    state = jax.lax.stop_gradient(jax.lax.fori_loop(0, 6, halve, state))
    low, high, at_low, at_high = state
    present &= jnp.abs(at_high - at_low) < whole / 4  # else a jump
    x = low - at_low * (high - low) / jnp.where(at_high == at_low, 1, at_high - at_low)
    smallest = jnp.finfo(x.dtype).tiny ** 0.5
    slope = jax.lax.stop_gradient(slopes(at(x))[..., along])
    slope = jnp.where(jnp.abs(slope) > smallest, slope, 1)
    # Newton's step also carries the derivatives of the point in ω, V and y.
    x = x - excess(at(x)) / slope
    x = x + jax.lax.stop_gradient(jnp.clip(x, low, high) - x)
    z = at(x)
    gradient = slopes(z)
    square = (gradient**2).sum(axis=-1) + smallest
    t = jnp.clip(gradient[..., along] ** 2 / square, 1e-12, 1)
    log_w = (POWER - 0.5) * jnp.log(t) - jnp.log(t**POWER + (1 - t) ** POWER)
    log_w += _log_normal(z) - jnp.log(square) / 2 + jnp.log(nodes[1] - nodes[0])
    log_w = jnp.where(present, log_w, -jnp.inf)
    return z.reshape(-1, 2), log_w.ravel()


def _first_true(mask: Array, count: int) -> tuple[Int[Array, "count lines"], Array]:
    """The indices of the first `count` Trues along axis 0, and whether there are that many."""
    length = len(mask)
    place = jnp.arange(length, dtype=jnp.int32)[:, None]
    found = [jnp.full(mask.shape[1:], -1, jnp.int32)]
    for _ in range(count):
        later = mask & (place > found[-1][None])
        found.append(jnp.where(later, place, length).min(axis=0))
    index = jnp.stack(found[1:])
    return jnp.minimum(index, length - 1), index < length


def _nearest(excess, slopes, values, grid):
    """The point that stands for a curve which the lines miss: z, log weight, E[z zᵀ].

    Inside the grid the curve is small and the point is all of it. Outside it is as good as a line,
    n·z = c with n along ∇g: E[z] = c n, and I − n nᵀ is the covariance.
    """
    distance = jnp.where(jnp.isfinite(values), jnp.abs(values), jnp.inf)
    z = grid.reshape(-1, 2)[jnp.argmin(distance)]

    def step(_, z):
        gradient = slopes(z)
        square = (gradient**2).sum()
        move = -excess(z) * gradient / jnp.where(square > 0, square, 1)
        # Not farther than |z|: near an extremum a whole step would lead anywhere.
        far = jnp.maximum((z**2).sum(), 1) / jnp.maximum((move**2).sum(), 1e-12)
        new = z + move * jnp.minimum(1, jnp.sqrt(far))
        return jnp.where(jnp.abs(excess(new)) < jnp.abs(excess(z)), new, z)

    z = jax.lax.stop_gradient(jax.lax.fori_loop(0, 16, step, z))
    gradient = slopes(z)
    norm = jnp.sqrt((gradient**2).sum() + jnp.finfo(z.dtype).tiny ** 0.5)
    n = gradient / norm
    inside = jnp.abs(z).max() < PLANE_END - 0.25
    c = n @ z
    mean = jnp.where(inside, z, c * n)
    spread = jnp.where(inside, 0, 1).astype(z.dtype)
    eye = jnp.eye(2, dtype=z.dtype)
    second = jnp.outer(mean, mean) + spread * (eye - jnp.outer(n, n))
    log_w = jnp.where(inside, _log_normal(z), -(c**2) / 2 - math.log(2 * math.pi) / 2)
    return mean, log_w - jnp.log(norm), second


def line_level_set(target: Target) -> LineLevelSet:
    """The channel of a noiseless target of rank 1.

    Raises ValueError for another rank, or for labels that are random given h.
    """
    _check(target, rank=1)
    single, double = (_pieces(target, tolerance=eps) for eps in (SINGLE, DOUBLE))
    return LineLevelSet(target, single, double, _panels(_on_line(target), double))


def plane_level_set(target: Target) -> PlaneLevelSet:
    """The channel of a noiseless target of rank 2 whose labels do not repeat.

    Raises ValueError for another rank, for labels that are random given h, and for labels that
    repeat.
    """
    _check(target, rank=2)
    h = np.random.default_rng(0).standard_normal((LABELS, 2))
    y = evaluation.labels(target, h, seed=0)
    if len(np.unique(y)) < len(y):
        raise ValueError(
            f"target={target.name()}: labels that repeat, noiseless, at rank 2 have no channel; "
            "expected target.noise > 0"
        )
    return PlaneLevelSet(target)


def _check(target: Target, *, rank: int) -> None:
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
