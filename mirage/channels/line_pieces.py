"""A function of one direction taken apart: where it is monotone, where constant, its jumps."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

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
# Averages: h on panels of [−REACH, REACH].
REACH = 8.0
MAX_PANELS = 24

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


def on_line(target: Target) -> Line:
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


def pieces_of(target: Target, *, tolerance: float) -> Pieces:
    """A target of rank 1 taken apart, for labels of relative precision `tolerance`."""
    line = on_line(target)
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


def panels_of(line: Line, pieces: Pieces) -> tuple[tuple[float, float], ...]:
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
