"""The curves {h : g(h) = y} of a target with two directions, at labels that stand for all."""

import functools
import itertools
from typing import NamedTuple

import jax
import numpy as np
from contourpy import contour_generator
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from mirage.targets import Target, evaluation

# g is looked at on GRID² nodes of [−END, END]².
END, GRID = 6.0, 481
# Labels: NODES on each panel. Panels end where curves change their shape and at these quantiles
# (of a standard normal number), but are at least NARROWEST wide, in the same measure.
NODES = 6
QUANTILES = (-5.6, -4.2, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.2, 5.6)
NARROWEST, MOST_CRITICAL = 0.3, 8
# Neighbouring points of a straight curve are SPACING apart, of a narrow circle TURN radians.
SPACING, TURN = 0.12, 0.3
# Points that Newton's steps move farther, in spacings of the grid, lie on a jump.
NEWTON, FARTHEST = 4, 2.0
# Of a curve's probability, and of all; curves of one label.
NEGLIGIBLE, MISSED, MOST_LINES = 1e-7, 0.05, 100


class LevelCurves(NamedTuple):
    """∫ f(h) φ(h) dh ≈ Σ_l weight_l Σ_k density_lk φ(h_lk) f(h_lk), φ the density of N(0, I).

    `points` h_lk lie on {g = y_l}, `density` is ds/‖∇g‖ and `gradient` ∇g there; where a curve
    has fewer points than others the density is 0. `even` says that g(−h) = g(h).
    """

    weight: Float[np.ndarray, " labels"]
    points: Float[np.ndarray, "labels points 2"]
    density: Float[np.ndarray, "labels points"]
    gradient: Float[np.ndarray, "labels points 2"]
    even: bool


def level_curves(target: Target) -> LevelCurves:
    """The curves of a target, remembered for the last few.

    Contours of g on a grid (0.025 apart), walked in equal steps and put on the curve by Newton's
    method, so that sums over a curve converge as those of a trapezoidal rule do. Labels are Gauss
    points on panels between the labels of extrema and saddle points, where their density jumps
    or is infinite, and some quantiles. Raises ValueError where they miss more than 5 % of the
    probability: curves too fine for the grid, or beyond |h_i| = 6.
    """
    with jax.ensure_compile_time_eval():
        try:
            return _remembered(target)
        except TypeError:  # a target with arrays among its settings has no hash
            return _remembered.__wrapped__(target)


@functools.lru_cache(maxsize=8)
def _remembered(target: Target) -> LevelCurves:
    axis = np.linspace(-END, END, GRID)
    values = evaluation.values(target, np.stack(np.meshgrid(axis, axis), axis=-1))
    labels, weight = _labels(axis, values)
    contours = contour_generator(axis, axis, np.ma.masked_invalid(values))
    lines = [(i, np.asarray(line)) for i, y in enumerate(labels) for line in contours.lines(y)]
    if len(lines) > MOST_LINES * len(labels):
        raise _too_fine(target, f"{len(lines) / len(labels):.0f} curves a label")
    corners, ends = _joined([line for _, line in lines])
    turns = np.split(_directions(target, corners), ends)
    walked = [_walk(line, turn) for (_, line), turn in zip(lines, turns, strict=True)]
    start, ends = _joined([points for points, _ in walked])
    owner = np.repeat([i for i, _ in lines], [len(points) for points, _ in walked])
    points, gradient, on_curve = _put_on_curve(target, start, labels[owner])
    norm = np.linalg.norm(gradient, axis=1)
    pieces = np.split(points, ends), np.split(gradient / norm[:, None], ends)
    closed = [one for _, one in walked]
    length = np.concatenate([_lengths(*one) for one in zip(*pieces, closed, strict=True)])
    density = np.where(on_curve, length / norm, 0)
    mass = density * np.exp(-(points**2).sum(axis=1) / 2) / (2 * np.pi)
    kept = mass > NEGLIGIBLE * np.bincount(owner, mass)[owner]
    owner, points, gradient, density, mass = (
        a[kept] for a in (owner, points, gradient, density, mass)
    )
    share = weight[owner] * mass
    moments = np.array([share.sum(), *(share @ points**2)])
    if not (np.abs(moments - 1) < MISSED).all():
        seen = ", ".join(f"{x:.2f}" for x in moments)
        raise _too_fine(target, f"1, E[h1²] and E[h2²] on them are {seen}")
    weight = weight / moments[0]
    arrays = _padded(owner, len(labels), points, density, gradient)
    return LevelCurves(weight, *arrays, even=_same(values, values[::-1, ::-1]))


def _same(values, others) -> bool:
    return np.allclose(values, others, rtol=1e-9, atol=1e-9 * np.nanstd(values), equal_nan=True)


def _too_fine(target, seen: str) -> ValueError:
    return ValueError(
        f"target={target.name()}: its level sets are too fine to follow ({seen}); expected "
        "curves that are smooth on a scale of 0.1"
    )


def _joined(arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Arrays one after the other, and where to split them again."""
    return np.concatenate(arrays), np.cumsum([len(one) for one in arrays])[:-1]


def _labels(axis, values) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights for ∫ f(y) dy."""
    measure = np.exp(-(axis**2) / 2)
    measure = np.outer(measure, measure)[np.isfinite(values)]
    finite = values[np.isfinite(values)]
    order = np.argsort(finite)
    share = (np.cumsum(measure[order]) - measure[order] / 2) / measure.sum()
    # The ends of panels, as quantiles of a standard normal number, and whether f may jump or have
    # a logarithm there.
    critical = np.interp(_critical(axis, values), finite[order], share)
    ends = {QUANTILES[0]: True, QUANTILES[-1]: True}
    for x in ndtri(np.clip(critical, 1e-12, 1 - 1e-12)):
        if len(ends) < MOST_CRITICAL and _is_apart(x, ends):
            ends[x] = True
    for x in QUANTILES[1:-1]:
        if _is_apart(x, ends):
            ends[x] = False
    panels = []
    for (a, at_a), (b, at_b) in itertools.pairwise(sorted(ends.items())):
        low, middle, high = np.interp(ndtr([a, (a + b) / 2, b]), share, finite[order])
        if low < high:
            panels.append(_panel(low, middle, high, at_a, at_b))
    labels, weights = (np.concatenate(one) for one in zip(*panels, strict=True))
    return labels, weights


def _is_apart(x, ends) -> bool:
    return min(ends) < x < max(ends) and all(abs(x - other) > NARROWEST for other in ends)


def _panel(a, middle, b, at_a: bool, at_b: bool) -> tuple[np.ndarray, np.ndarray]:
    """Gauss points and weights in s of a panel from a to b, y = e(m(s)).

    m is s² (3 − 2s), s², s (2 − s) or s: points crowd at ends where f may be singular. e(m) is an
    exponential with e(0) = a, e(1) = b and e(1/2) the label in the `middle`, as far as probability
    goes: of a tail each part is seen, however the target is scaled there.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    s = (nodes + 1) / 2
    m, slope = {
        (True, True): (s**2 * (3 - 2 * s), 6 * s * (1 - s)),
        (True, False): (s**2, 2 * s),
        (False, True): (s * (2 - s), 2 * (1 - s)),
        (False, False): (s, np.ones_like(s)),
    }[at_a, at_b]
    part = np.clip((middle - a) / (b - a), 1e-6, 1 - 1e-6)
    rate = 2 * np.log((1 - part) / part)
    rate = rate if abs(rate) > 1e-6 else 1e-6
    y = a + (b - a) * np.expm1(rate * m) / np.expm1(rate)
    return y, (b - a) * rate * np.exp(rate * m) / np.expm1(rate) * slope * weights / 2


def _critical(axis, values) -> np.ndarray:
    """Labels of extrema and saddle points, the most probable places first.

    Around such a node of the grid g − g(node) changes its sign 0, 4 or more times, elsewhere 2.
    """
    inner = values[1:-1, 1:-1]
    around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    size = len(axis) - 2
    ring = np.stack([values[i : i + size, j : j + size] - inner for i, j in around])
    changes = ((ring > 0) != (np.roll(ring, 1, axis=0) > 0)).sum(axis=0)
    found = (changes != 2) & (ring != 0).any(axis=0) & np.isfinite(ring).all(axis=0)
    i, j = np.nonzero(found)
    near = np.argsort(axis[i + 1] ** 2 + axis[j + 1] ** 2, kind="stable")
    return inner[i, j][near]


def _directions(target, points) -> np.ndarray:
    """Unit vectors along ∇g."""
    gradient = evaluation.gradients(target, points)
    norm = np.linalg.norm(gradient, axis=1, keepdims=True)
    good = np.isfinite(norm) & (norm > 0)
    return np.where(good, gradient / np.where(good, norm, 1), np.array([1.0, 0.0]))


def _walk(line: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, bool]:
    """Points of a polygon in equal steps, and whether it is closed (its end is then left out).

    Steps are of length over `SPACING` plus the turn of the normal over `TURN`.
    """
    after, turn = (np.linalg.norm(np.diff(x, axis=0), axis=1) for x in (line, normal))
    along = np.concatenate([[0.0], np.cumsum(after / SPACING + turn / TURN)])
    closed = bool(np.array_equal(line[0], line[-1]))
    count = max(int(np.ceil(along[-1])), 2)
    at = np.linspace(0, along[-1], count + 1)[: count + (not closed)]
    return np.stack([np.interp(at, along, x) for x in line.T], axis=1), closed


def _put_on_curve(target, start, labels):
    """Points of {g = y} near given ones, ∇g there, and whether there is one."""
    points = start
    for _ in range(NEWTON):
        gradient = evaluation.gradients(target, points)
        square = np.maximum((gradient**2).sum(axis=1), 1e-300)
        excess = evaluation.values(target, points) - labels
        points = points - (excess / square)[:, None] * gradient
    gradient = evaluation.gradients(target, points)
    off = np.abs(evaluation.values(target, points) - labels)
    norm = np.linalg.norm(gradient, axis=1)
    moved = np.linalg.norm(points - start, axis=1)
    spacing = 2 * END / (GRID - 1)
    good = (moved < FARTHEST * spacing) & (off < 1e-6 * norm) & np.isfinite(norm)
    flat = np.array([1.0, 0.0])
    return (
        np.where(good[:, None], points, start),
        np.where(good[:, None], gradient, flat),
        good,
    )


def _lengths(points, normal, closed) -> np.ndarray:
    """ds/du at points u = 0, 1, ... of a curve: differences of fourth order of its length s.

    An arc is that of a circle through its ends, as long as the chord times x/sin x for normals
    that turn by 2x.
    """
    if closed:
        points, normal = (np.concatenate([x[-2:], x, x[:2]]) for x in (points, normal))
    chord, turn = (np.linalg.norm(np.diff(x, axis=0), axis=1) for x in (points, normal))
    arc = chord / np.sinc(np.arcsin(np.minimum(turn / 2, 1)) / np.pi)
    if not closed:
        arc = np.pad(arc, 2, mode="edge")
    slope = (7 * (arc[1:-2] + arc[2:-1]) - arc[:-3] - arc[3:]) / 12
    if not closed:
        slope[[0, -1]] /= 2
    return slope


def _padded(owner, count, *arrays) -> list[np.ndarray]:
    """Rows of arrays by their owner, filled up with zeros."""
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner, minlength=count)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    result = []
    for array in arrays:
        full = np.zeros((count, sizes.max(), *array.shape[1:]))
        full[owner[order], place] = array[order]
        result.append(full)
    return result
