"""Bayes-AMP for the parity sign(h1 h2) as a plain script: what mirage's own AMP is held against.

    python benchmarks/amp_scripts.py

Three times the same iteration in NumPy, float64: with a channel that takes one sample at a time by
adaptive quadrature, the usual way of a script; with that quadrature for all samples at once, by a
fixed rule; and with the channel in closed form, which few would derive. X has
entries N(0, 1), h = U x, and Û is an estimate of U (2 × d), C its posterior covariance:

    Ω = X Ûᵀ − g C,    g ← g_out(y, Ω, C),    A = −(1/d) Σ_i ∂_ω g_out,
    Û ← (I + A)⁻¹ (gᵀ X/d + A Û),             C ← (I + A)⁻¹.
"""

import itertools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from report import header, line
from scipy.integrate import quad
from scipy.special import ndtr

NODES = 32  # of the integral over the correlation, exact to rounding for |ρ| < 0.9
LINE_NODES = 32  # of the fixed rule, on either side of h1 = 0
WIDTH = 9.0  # standard deviations of h1 that the adaptive quadrature covers
FLOOR = 1e-14  # of a probability that is a difference, where its rounding begins
FIXED_POINT = 0.64384  # overlap of either direction, state evolution at α = 4


class State(NamedTuple):
    """Û (2 × d), the last g (n × 2) and C (2 × 2)."""

    u_hat: np.ndarray
    g: np.ndarray
    c: np.ndarray


Iteration = Callable[[State, np.ndarray, np.ndarray], State]


class Problem(NamedTuple):
    """An informed start, X (n × d), y (n,) and U (2 × d)."""

    state: State
    x: np.ndarray
    y: np.ndarray
    u: np.ndarray


def start(rng: np.random.Generator, d: int, n: int, overlap: float) -> Problem:
    """Data, and Û with Û Uᵀ = Û Ûᵀ = overlap · I up to 1/√d."""
    u = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
    x = rng.standard_normal((n, d))
    y = np.sign(x @ u[0]) * np.sign(x @ u[1])
    noise = rng.standard_normal((2, d)) / math.sqrt(d)
    u_hat = overlap * u + math.sqrt(overlap * (1 - overlap)) * noise
    return Problem(State(u_hat, np.zeros((n, 2)), (1 - overlap) * np.eye(2)), x, y, u)


def scripted_iteration(state: State, x: np.ndarray, y: np.ndarray) -> State:
    """One iteration, the channel a Python loop over samples."""
    omega = x @ state.u_hat.T - state.g @ state.c
    g = np.zeros_like(omega)
    derivative = np.zeros((2, 2))
    for i in range(len(y)):
        g[i], curvature = scripted_channel(y[i], omega[i], state.c)
        derivative += curvature
    return update(state, x, g, derivative)


def vectorised_iteration(state: State, x: np.ndarray, y: np.ndarray) -> State:
    """The same iteration, all samples at once by a fixed rule."""
    return _at_once(vectorised_channel, state, x, y)


def closed_form_iteration(state: State, x: np.ndarray, y: np.ndarray) -> State:
    """The same iteration, all samples at once in closed form."""
    return _at_once(closed_form_channel, state, x, y)


def _at_once(channel, state: State, x: np.ndarray, y: np.ndarray) -> State:
    omega = x @ state.u_hat.T - state.g @ state.c
    g, curvature = channel(y, omega, state.c)
    return update(state, x, g, curvature.sum(axis=0))


def update(state: State, x: np.ndarray, g: np.ndarray, derivative: np.ndarray) -> State:
    """Û and C after the scores g and the sum over samples of ∂_ω g_out."""
    d = x.shape[1]
    a = -derivative / d
    c = np.linalg.inv(np.eye(2) + a)
    return State(c @ (g.T @ x / d + a @ state.u_hat), g, c)


def scripted_channel(y: float, omega: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g_out and its derivative for one sample, from six moments of h ~ N(ω, C) given y.

    g_out = C⁻¹ (E[h|y] − ω) and ∂_ω g_out = C⁻¹ Cov[h|y] C⁻¹ − C⁻¹. Given h1, the other direction
    is a Gaussian cut at 0, whose moments are known; h1 is left to adaptive quadrature, in two
    pieces because the cut changes sides at 0.
    """
    evidence = moment(y, omega, c, 0, 0)
    mean = np.array([moment(y, omega, c, 1, 0), moment(y, omega, c, 0, 1)]) / evidence
    mixed = moment(y, omega, c, 1, 1)
    second = np.array([[moment(y, omega, c, 2, 0), mixed], [mixed, moment(y, omega, c, 0, 2)]])
    inverse = np.linalg.inv(c)
    covariance = second / evidence - np.outer(mean, mean)
    return inverse @ (mean - omega), inverse @ covariance @ inverse - inverse


def moment(y: float, omega: np.ndarray, c: np.ndarray, first: int, other: int) -> float:
    """E[h1^first h2^other; sign(h1 h2) = y], h ~ N(ω, C)."""
    deviation = math.sqrt(c[0, 0])
    slope = c[0, 1] / c[0, 0]
    rest = math.sqrt(c[1, 1] - c[0, 1] * slope)

    def integrand(h):
        z = (h - omega[0]) / deviation
        density = math.exp(-z * z / 2) / (math.sqrt(2 * math.pi) * deviation)
        side = y * math.copysign(1, h)
        return density * h**first * cut_moment(omega[1] + slope * (h - omega[0]), rest, side, other)

    low, high = omega[0] - WIDTH * deviation, omega[0] + WIDTH * deviation
    edges = [low, 0.0, high] if low < 0 < high else [low, high]
    pieces = itertools.pairwise(edges)
    return sum(quad(integrand, *piece, epsabs=1e-10, epsrel=1e-9)[0] for piece in pieces)


def cut_moment(mean: float, deviation: float, side: float, power: int) -> float:
    """E[h^power; side · h > 0] for h ~ N(mean, deviation²), power 0, 1 or 2."""
    z = side * mean / deviation
    mass = math.erfc(-z / math.sqrt(2)) / 2
    edge = side * deviation * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    if power == 0:
        return mass
    if power == 1:
        return mean * mass + edge
    return (mean**2 + deviation**2) * mass + mean * edge


def vectorised_channel(
    y: np.ndarray, omega: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The six moments of `scripted_channel` for all samples, by Gauss-Legendre on either side."""
    deviation = math.sqrt(c[0, 0])
    slope = c[0, 1] / c[0, 0]
    rest = math.sqrt(c[1, 1] - c[0, 1] * slope)
    nodes, weights = np.polynomial.legendre.leggauss(LINE_NODES)
    low, high = omega[:, 0] - WIDTH * deviation, omega[:, 0] + WIDTH * deviation
    ends = [(low, np.minimum(high, 0)), (np.maximum(low, 0), high)]
    halves = [np.maximum(b - a, 0)[:, None] / 2 for a, b in ends]
    h = np.hstack(
        [a[:, None] + half * (1 + nodes) for (a, _), half in zip(ends, halves, strict=True)]
    )
    z = (h - omega[:, :1]) / deviation
    density = np.hstack([half * weights for half in halves]) * np.exp(-z * z / 2)
    mean = omega[:, 1:] + slope * (h - omega[:, :1])
    side = y[:, None] * np.sign(h)
    mass = ndtr(side * mean / rest)
    edge = side * rest * np.exp(-((mean / rest) ** 2) / 2) / math.sqrt(2 * math.pi)
    cut = (mass, mean * mass + edge, (mean**2 + rest**2) * mass + mean * edge)
    powers = (density, density * h, density * h * h)

    def moments(first, other):
        return (powers[first] * cut[other]).sum(axis=1)

    evidence = moments(0, 0)
    mean = np.stack([moments(1, 0), moments(0, 1)], axis=1) / evidence[:, None]
    mixed = moments(1, 1)
    second = np.array([[moments(2, 0), mixed], [mixed, moments(0, 2)]]) / evidence
    inverse = np.linalg.inv(c)
    covariance = np.moveaxis(second, -1, 0) - mean[:, :, None] * mean[:, None]
    return (mean - omega) @ inverse, inverse @ covariance @ inverse - inverse


def closed_form_channel(
    y: np.ndarray, omega: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """g_out (n × 2) and its derivative (n × 2 × 2) as derivatives in ω of log P(y | ω, C).

    With a = ω1/√C11, b = ω2/√C22 and the correlation ρ of C, P(y) = ½ (1 + y E), where E is
    E[sign(h1 h2)]. It is erf(a/√2) erf(b/√2) at ρ = 0, and ∂E/∂ρ is four times the density of the
    pair at (a, b) (Plackett 1954), integrated here over the angle arcsin ρ. The derivatives of E
    in a and b are elementary.
    """
    deviation = np.sqrt(np.diag(c))
    rho = c[0, 1] / (deviation[0] * deviation[1])
    rest = math.sqrt(1 - rho**2)
    a, b = (omega / deviation).T
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = math.asin(rho) / 2
    angles = half * (1 + nodes)
    exponent = (a * a + b * b)[:, None] - 2 * np.multiply.outer(a * b, np.sin(angles))
    turned = half * np.exp(-exponent / (2 * np.cos(angles) ** 2)) @ weights / (2 * math.pi)
    expected = (2 * ndtr(a) - 1) * (2 * ndtr(b) - 1) + 4 * turned

    # Slopes: given h1 = 0 the other direction has mean b − ρ a, in its own unit, and 1 − ρ² left.
    density_a, density_b = (np.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in (a, b))
    sign_b, sign_a = 2 * ndtr((b - rho * a) / rest) - 1, 2 * ndtr((a - rho * b) / rest) - 1
    slope = np.stack([2 * density_a * sign_b, 2 * density_b * sign_a], axis=1)
    both = 4 * np.exp(-(a * a - 2 * rho * a * b + b * b) / (2 * rest**2)) / (2 * math.pi * rest)
    second = np.empty((len(y), 2, 2))
    second[:, 0, 0] = -a * slope[:, 0] - rho * both
    second[:, 1, 1] = -b * slope[:, 1] - rho * both
    second[:, 0, 1] = second[:, 1, 0] = both

    probability = np.maximum((1 + y * expected) / 2, FLOOR)
    factor = y / (2 * probability)
    g = factor[:, None] * slope / deviation
    curvature = factor[:, None, None] * second / np.multiply.outer(deviation, deviation)
    return g, curvature - g[:, :, None] * g[:, None, :]


def iterate(step: Iteration, problem: Problem, steps: int) -> State:
    state = problem.state
    for _ in range(steps):
        state = step(state, problem.x, problem.y)
    return state


def difference(d: int, n: int, steps: int) -> float:
    """The largest difference between them, relative, after some steps on a small instance."""
    problem = start(np.random.default_rng(0), d, n, 0.5)
    first = iterate(scripted_iteration, problem, steps)
    others = (iterate(s, problem, steps) for s in (vectorised_iteration, closed_form_iteration))
    pairs = [pair for other in others for pair in zip(first, other, strict=True)]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def overlaps(d: int, alpha: float, steps: int, seeds: int) -> np.ndarray:
    """The diagonal of Û Uᵀ of the closed-form iteration, a row a seed; NaN where it diverged.

    At finite d the undamped iteration leaves the fixed point in some seeds: an estimate grows
    longer than its direction, or an eigenvalue of C above 1, that of the prior, or below 0.
    """
    found = []
    for seed in range(seeds):
        problem = start(np.random.default_rng(seed), d, int(alpha * d), 0.5)
        state = iterate(closed_form_iteration, problem, steps)
        lengths, widths = np.linalg.norm(state.u_hat, axis=1), np.linalg.eigvalsh(state.c)
        sound = lengths.max() < 1 and widths[0] > 0 and widths[-1] < 1
        found.append(np.diag(state.u_hat @ problem.u.T) if sound else np.full(2, np.nan))
    return np.stack(found)


def seconds(step: Iteration, problem: Problem, steps: int) -> list[float]:
    """Wall-clock seconds of each of some iterations."""
    state, taken = problem.state, []
    for _ in range(steps):
        began = time.perf_counter()
        state = step(state, problem.x, problem.y)
        taken.append(time.perf_counter() - began)
    return taken


def main() -> None:
    print(header("python benchmarks/amp_scripts.py"))
    print("\nthe three agree: relative difference after 3 iterations, d = 20, n = 60")
    gap = difference(20, 60, 3)
    line("largest of Û, g and C", f"{gap:.1e}", "1e-6")
    if not gap < 1e-6:
        raise SystemExit("the iterations differ")
    print("\nthe fixed point: diagonal of Û Uᵀ, d = 500, n/d = 4, 30 iterations from 0.5")
    found = overlaps(500, 4, 30, 8)
    sound = found[np.isfinite(found).all(axis=1)]
    line("seeds, of them diverged", f"{len(found)}, {len(found) - len(sound)}")
    line("mean over the others", f"{sound.mean():.3f}", f"{FIXED_POINT:.3f}")
    line("smallest, largest", f"{sound.min():.3f}, {sound.max():.3f}")
    print("\nseconds an iteration, d = 500, n/d = 3, best / median")
    problem = start(np.random.default_rng(0), 500, 1500, 0.5)
    scripted = seconds(scripted_iteration, problem, 1)
    line("one sample at a time (once)", f"{scripted[0]:.2f}")
    for words, step in (
        ("all samples at once, fixed rule", vectorised_iteration),
        ("all samples at once, closed form", closed_form_iteration),
    ):
        taken = seconds(step, problem, 20)
        line(words, f"{min(taken):.4f} / {np.median(taken):.4f}")


if __name__ == "__main__":
    main()
