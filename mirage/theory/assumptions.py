"""The assumptions of the layer-wise GD theorem (arXiv 2511.15120, A1-A7) as numbers."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from mirage.activations import Activation
from mirage.losses import Loss, slopes
from mirage.network import TwoLayer
from mirage.precision import double_precision
from mirage.theory.loss_matrix import LossMatrix

# Where derivatives of activations and losses are looked at.
REACH, POINTS = 30.0, 6001
# Steps of finite differences: a derivative that grows as they shrink is not there.
STEPS = (2e-2, 2e-3)
# What is left of a zero: rounding of a third difference, and of an average over labels.
ZERO = 1e-4


class Assumption(NamedTuple):
    """One assumption: `verdict` is `holds`, `fails`, or `bent` where what matters of it holds."""

    name: str
    statement: str
    numbers: dict[str, float]
    verdict: str
    remark: str


def assumptions(
    *,
    square: float,
    slope_mean: float,
    matrix: LossMatrix,
    degree: int | None,
    loss: Loss,
    activation: Activation,
    network: TwoLayer,
    rank: int,
) -> list[Assumption]:
    """A1 to A7 for E g² = `square`, E ℓ'(0, y) = `slope_mean`, Σ_ℓ and a polynomial `degree`."""
    return [
        _link(square),
        _activation(activation),
        _loss(loss),
        _centred(slope_mean),
        _rank(matrix, rank),
        _monomials(activation, degree),
        _small(activation, network),
    ]


def _link(square: float) -> Assumption:
    verdict = "holds" if math.isfinite(square) else "fails"
    return Assumption("A1", "E g² is finite", {"square": square}, verdict, "")


def derivatives(activation: Activation) -> tuple[float, float, float]:
    """σ'(0), σ''(0) and sup |σ'''| on |z| ≤ 30, inf where σ has a kink in some derivative.

    By central differences, whose growth as their step shrinks gives kinks away.
    """
    steps = np.array(STEPS)[:, None, None]
    z = np.linspace(-REACH, REACH, POINTS) + steps * np.arange(-2, 3)[:, None]
    with double_precision():
        far_below, below, at, above, far_above = np.asarray(
            _elementwise(activation, jnp.asarray(z)), np.float64
        ).swapaxes(0, 1)
    h, zero = steps[:, 0], POINTS // 2
    third = (np.abs(far_above - 2 * above + 2 * below - far_below) / (2 * h**3)).max(axis=1)
    first = ((above - below) / (2 * h))[1, zero]
    second = ((above - 2 * at + below) / h**2)[:, zero]
    if abs(second[1]) > 3 * abs(second[0]) + ZERO:  # a kink: the difference grows as 1/h
        return float(first), math.nan, math.inf
    bounded = third[1] <= 3 * third[0] + ZERO
    return float(first), float(second[1]), float(third[1]) if bounded else math.inf


@eqx.filter_jit
def _elementwise(activation, z):
    return activation(z)


def _activation(activation: Activation) -> Assumption:
    first, second, third = derivatives(activation)
    numbers = {"sigma_prime": first, "sigma_second": second, "sup_sigma_third": third}
    statement = "σ in C³, σ'(0) = 0, σ''(0) = 1, σ''' bounded"
    if math.isnan(second):
        return Assumption("A2", statement, numbers, "fails", "σ has a kink at 0")
    if abs(second) < ZERO:
        remark = "σ''(0) = 0: no power iteration at small norm"
        return Assumption("A2", statement, numbers, "fails", remark)
    if abs(first) > ZERO:
        remark = "σ'(0) ≠ 0: the linear part of the label moves neurons first"
        return Assumption("A2", statement, numbers, "bent", remark)
    if abs(second - 1) > ZERO:
        remark = "σ''(0) ≠ 1 rescales the step size" + (", with its sign" if second < 0 else "")
        return Assumption("A2", statement, numbers, "bent", remark)
    verdict = "holds" if math.isfinite(third) else "bent"
    return Assumption("A2", statement, numbers, verdict, "")


def _loss(loss: Loss) -> Assumption:
    t = np.linspace(-3.0, 3.0, 61)

    def slope(t, y):
        return slopes(loss, *np.broadcast_arrays(t, y))

    y = np.concatenate([-np.geomspace(1e3, 1e-2, 200), np.geomspace(1e-2, 1e3, 200)])
    grid = slope(t[:, None], y[None])
    curvature = np.diff(grid, axis=0) / (t[1] - t[0])
    far, near = np.abs(grid[:, [0, -1]]).max(), np.abs(grid[:, [100, 300]]).max()
    fine = np.linspace(-2.0, 2.0, 4001)
    at_zero = slope(fine, np.zeros(1))
    jumps = np.abs(np.diff(at_zero)).max()
    bends = np.abs(np.diff(at_zero, n=2)).max() / (fine[1] - fine[0])
    with double_precision():
        on_diagonal = np.asarray(loss(jnp.asarray(t), jnp.asarray(t)), np.float64)
    convex = bool((curvature > -1e-9).all())
    bounded = bool(far < 3 * near + 10)
    numbers = {
        "sup_slope": float(far) if bounded else math.inf,
        "least_curvature": float(curvature.min()),
        "value_at_label": float(np.abs(on_diagonal).max()),
    }
    statement = "ℓ in C², 0 at t = y, convex in t, first two derivatives bounded"
    remarks = []
    if not convex:
        return Assumption("A3", statement, numbers, "fails", "not convex in t")
    if numbers["value_at_label"] > 1e-9:
        remarks.append("ℓ(y, y) ≠ 0: the label is transformed")
    if jumps > 0.1:
        remarks.append("ℓ' jumps")
    elif bends > 0.1:
        remarks.append("ℓ'' jumps (C^{1,1})")
    if not bounded:
        remarks.append("ℓ' grows with y: A3' instead, which asks for weight_decay = 0")
    return Assumption("A3", statement, numbers, "bent" if remarks else "holds", "; ".join(remarks))


def _centred(mean: float) -> Assumption:
    holds = abs(mean) < ZERO
    remark = "" if holds else "the algorithms subtract the sample mean (centred=true)"
    numbers = {"slope_mean": mean}
    return Assumption("A4", "E ℓ'(0, y) = 0", numbers, "holds" if holds else "bent", remark)


def _rank(matrix: LossMatrix, rank: int) -> Assumption:
    numbers = {"rank": float(matrix.rank), "condition_number": matrix.condition_number}
    if matrix.rank == rank:
        return Assumption("A5", f"Σ_ℓ has rank r = {rank}", numbers, "holds", "")
    remark = "Σ_ℓ = 0" if matrix.rank == 0 else f"Σ_ℓ sees {matrix.rank} of {rank} directions"
    return Assumption("A5", f"Σ_ℓ has rank r = {rank}", numbers, "fails", remark)


def activation_degree(activation: Activation) -> float:
    """The degree of an activation that is a polynomial, else inf."""
    with double_precision():
        z = np.cos(np.pi * (np.arange(256) + 0.5) / 256) * REACH
        sigma = np.asarray(activation(jnp.asarray(z)))
        series = np.polynomial.chebyshev.chebfit(z / REACH, sigma, 40)
    large = np.abs(series) > 1e-9 * np.abs(series).max()
    top = int(np.flatnonzero(large).max())
    return float(top) if top <= 20 else math.inf


def _monomials(activation: Activation, degree: int | None) -> Assumption:
    reach = activation_degree(activation)
    statement = "averages of σ(z + b) give the monomials of the target"
    numbers = {"sigma_degree": reach, "target_degree": math.inf if degree is None else degree}
    if math.isinf(reach):
        return Assumption("A6", statement, numbers, "holds", "the exponent β is not computed")
    if degree is not None and reach >= degree:
        return Assumption("A6", statement, numbers, "holds", "")
    remark = f"σ is a polynomial of degree {reach:.0f}, too low for this target"
    return Assumption("A6", statement, numbers, "fails", remark)


def _small(activation: Activation, network: TwoLayer) -> Assumption:
    _, second, third = derivatives(activation)
    size = float(network.initial_norm)
    ratio = size * third / abs(second) if second else math.inf
    numbers = {"initial_norm": size, "nonlinearity": ratio}
    statement = "ε0 is small: ε0 sup|σ'''| / |σ''(0)| ≪ 1"
    verdict = "holds" if ratio <= 0.1 else "bent" if size <= 0.1 else "fails"
    remark = "" if verdict == "holds" else "σ''' is not bounded" if math.isinf(third) else "large"
    return Assumption("A7", statement, numbers, verdict, remark)
