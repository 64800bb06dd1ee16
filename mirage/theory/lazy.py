"""What random features and their kernel learn: the test error of ridge regression, by degrees.

Deterministic equivalents: sums over the kernel's eigenvalues that the error approaches, at any n
and d, as the eigenvalues are many (Simon, Karkada, Ghosh and Belkin 2024, arXiv 2311.14646;
Defilippis, Loureiro and Misiakiewicz 2024, arXiv 2405.15699).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import gammaln

from mirage.activations import Activation
from mirage.arguments import finite_array, non_negative, positive, whole
from mirage.gaussian import hermite_coefficients
from mirage.kernels import FeatureKernel
from mirage.precision import double_precision
from mirage.targets import Target
from mirage.targets.evaluation import values

# Degrees in t that are resolved, and in the correlation they come from; the rest of k(1) acts as
# a ridge.
DEGREES, TERMS = 10, 60


class Spectrum(NamedTuple):
    """Eigenvalues of a kernel by degree 0, 1, ..., how often each occurs, and what is left of k(1).

    For inputs uniform on the sphere of radius √d, which N(0, I_d) approaches.
    """

    eigenvalues: Float[np.ndarray, " degrees"]
    multiplicity: Float[np.ndarray, " degrees"]
    rest: float


def kernel_series(
    activation: Activation, *, norm: float, bias_scale: float
) -> tuple[Float[np.ndarray, " degrees"], float]:
    """c_j² of k(t) = Σ_j c_j² t^j for inputs of norm √d, j up to `DEGREES`, and k(1).

    With biases the correlation is ρ = (s² t + β²)/(s² + β²), so that c_j² gathers the binomial
    terms of every power of ρ. ValueError for a norm ≤ 0 or a `bias_scale` < 0.
    """
    positive(norm=norm)
    non_negative(bias_scale=bias_scale)
    with double_precision():
        kernel = FeatureKernel(activation, float(norm), float(bias_scale), degree=TERMS)
        points = kernel.points(jnp.ones((1, 1)))
        squares, total = np.asarray(points.coefficients[:, 0]) ** 2, float(points.square[0])
    share = norm**2 / (norm**2 + bias_scale**2)
    series = np.zeros(DEGREES + 1)
    for k, square in enumerate(squares):
        for j in range(min(k, DEGREES) + 1):
            series[j] += square * math.comb(k, j) * share**j * (1 - share) ** (k - j)
    return series, total


def sphere_spectrum(series: Float[np.ndarray, " degrees"], total: float, d: int) -> Spectrum:
    """The eigenvalues ∫ k(t) P_k(t) of k(t) = Σ_j c_j² t^j, P_k Gegenbauer's with P_k(1) = 1.

    By ∫ t^j P_k = j! Γ(d/2) / (2^j ((j − k)/2)! Γ((j + k + d)/2)) for j = k, k + 2, ... ValueError
    for a series or a total that are not finite, and a d below 2.
    """
    finite_array((None,), series=series)
    non_negative(total=total)
    whole(2, d=d)
    degrees = np.arange(len(series))
    eigenvalues = np.zeros(len(series))
    for k in degrees:
        for j in range(k, len(series), 2):
            log = math.lgamma(j + 1) + math.lgamma(d / 2) - j * math.log(2)
            log -= math.lgamma((j - k) / 2 + 1) + math.lgamma((j + k + d) / 2)
            eigenvalues[k] += series[j] * math.exp(log)
    k = degrees[1:]
    log_count = gammaln(k + d - 2) - gammaln(k) - gammaln(d - 1)
    count = (2 * k + d - 2) / k * np.exp(log_count)
    return Spectrum(eigenvalues, np.concatenate([[1.0], count]), total - float(series.sum()))


def degree_variances(target: Target) -> Float[np.ndarray, " degrees"]:
    """The variance of E[y | h] in every Hermite degree up to `DEGREES`; none is in degree 0."""
    found = [
        float((hermite_coefficients(lambda h: values(target, h), target.rank, k).value ** 2).sum())
        for k in range(1, DEGREES + 1)
    ]
    return np.array([0.0, *found])


def ridge_error(
    spectrum: Spectrum,
    variances: Float[np.ndarray, " degrees"],
    *,
    n: float,
    ridge: float,
    width: float = math.inf,
    noise: float = 0.0,
) -> float:
    """E(f − g)² of ridge regression on n samples with `width` random features, or their kernel.

    With the eigenvalues λ of the kernel, v² the target's variance in each degree, m the width and
    λ the ridge, κ solves

        n = z + ridge · m/(κ (m − z)),    z = Σ λ/(λ + κ),    q = Σ (λ/(λ + κ))²,

    and the error is, before the noise that is not in g is taken off,

        (Σ [κ/(λ+κ) − κλ/(λ+κ)² (m−z)/(m−q)] v² + noise) / (1 − (q (m−2z) + z²)/(n (m−q))).

    `noise` is the variance of the label given h, or of what lies above the degrees. The constant
    is left to the intercept. NaN where no κ in the range of floats solves the equation. ValueError
    for an n, a ridge or a width ≤ 0, a noise < 0, and for variances of other degrees.
    """
    positive(n=n, ridge=ridge)
    if width != math.inf:
        positive(width=width)
    non_negative(noise=noise)
    finite_array(spectrum.eigenvalues.shape, variances=variances)
    value, count = spectrum.eigenvalues[1:], spectrum.multiplicity[1:]
    variance = variances[1:]

    def learnt(kappa):
        return float((count * value / (value + kappa)).sum()) + spectrum.rest / kappa

    def excess(log_kappa):
        kappa = math.exp(log_kappa)
        z = learnt(kappa)
        return z + ridge / (kappa * (1 - z / width)) - n

    low, high = -60.0, 20.0
    if math.isfinite(width):  # above the κ at which as many are learnt as there are features
        low = _root(lambda log: math.log(learnt(math.exp(log)) / width), low, high) + 1e-12
    kappa = math.exp(_root(excess, low, high))
    z, q = learnt(kappa), float((count * (value / (value + kappa)) ** 2).sum())
    if math.isfinite(width):
        own, spread = (width - z) / (width - q), (q * (width - 2 * z) + z**2) / (width - q)
    else:
        own, spread = 1.0, q
    bias = kappa / (value + kappa) - kappa * value / (value + kappa) ** 2 * own
    return (float(bias @ variance) + noise) / (1 - spread / n) - noise


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a function that falls; NaN where it has none in reach."""
    if not function(low) >= 0 >= function(high):
        return math.nan
    return float(brentq(function, low, high, xtol=1e-13))  # type: ignore[arg-type]
