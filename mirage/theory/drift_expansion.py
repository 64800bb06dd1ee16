"""The drift of SGD on a first layer at small overlaps, and the exponent that it gives a target.

A neuron of unit norm with overlap m = U w (r), the others orthogonal to it, to one another and to
U: (h, z) is Gaussian, and the Hermite expansion of its density in m (Mehler) gives

    E[C (h − m z)] = (I − m mᵀ) E[∂C/∂h],
    E[∂C/∂h] = Σ_k (1/k!) E₀[C He_k(z) He_{k+1}(h)] · m^{⊗k},

E₀ with h and z independent. One direction: ṁ = −(1 − m²) Σ_k c_k m^k − ½ E[C²] m for spherical SGD,
c_k = E₀[C He_k(z) He_{k+1}(h)]/k!. If c_k is the first that is not 0, the update learns as at
information exponent ℓ = k + 1. For plain gradients C is a function of z times one of y, linear in y
for the square loss: c_k is the product of their coefficients, and ℓ no less than the information
exponent (Ben Arous et al. 2021, arXiv 2003.10409). An update that uses a sample twice has powers of
y in C: ℓ can be as low as the generative exponent (Dandi et al. 2024, arXiv 2402.03220; Arnaboldi
et al. 2024, arXiv 2405.15459).
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from mirage.gaussian import Estimate, hermite_functions, multi_indices
from mirage.options import require
from mirage.precision import double_precision
from mirage.theory.joint_quadrature import POINTS, rule
from mirage.theory.order_parameters import Dynamics, as_arrays

# A coefficient counts when it is so many times the difference of two rules, and larger than
# rounding, in units of √E[C²].
CLEARLY, ROUNDING = 3.0, 1e-9


def drift_coefficients(dynamics: Dynamics, order: int, *, points: int = POINTS) -> list[Estimate]:
    """E₀[C_j He_k(z_j) Π_i He_{κ_i}(h_i)]/k! for k = 0, ..., `order`.

    Entry k has one row a neuron and one column a multi-index κ of degree k + 1, in the order of
    `mirage.gaussian.multi_indices` (one column for one direction: c_k). The drift along direction
    i is −Σ_κ' (k!/κ'!) c_{κ' + e_i} m^κ'. The error is the difference from a coarser rule.
    ValueError for an `order` below 0, or a target whose labels cannot be averaged over.
    """
    require(isinstance(order, int) and order >= 0, "order", order, "expected a whole number ≥ 0")
    return _coefficients(dynamics, order, points)[0]


def effective_exponent(dynamics: Dynamics, *, order: int = 8, points: int = POINTS) -> int | None:
    """ℓ = k + 1 for the first k ≤ `order` at which a neuron's drift does not vanish, else None.

    It vanishes where no coefficient, of normalised Hermite polynomials and in units of √E[C²], is
    more than `CLEARLY` times the error of its degree. ValueError as `drift_coefficients`.
    """
    require(isinstance(order, int) and order >= 0, "order", order, "expected a whole number ≥ 0")
    estimates, size = _coefficients(dynamics, order, points)
    for k, (value, error) in enumerate(estimates):
        unit = math.sqrt(math.factorial(k)) / _lengths(dynamics.target.rank, k + 1) / size[:, None]
        if (np.abs(value) * unit).max() > CLEARLY * (error * unit).max() + ROUNDING:
            return k + 1
    return None


def _lengths(rank, degree):
    """√κ!, the norms of Π_i He_{κ_i}(h_i)."""
    indices = multi_indices(rank, degree)
    return np.sqrt([math.prod(map(math.factorial, index)) for index in indices])


def _coefficients(dynamics, order, points):
    """Estimates of the coefficients, and √E[C_j²]."""
    fine, coarse = (_by_rule(dynamics, order, points, coarse=c) for c in (False, True))
    pairs = zip(fine[0], coarse[0], strict=True)
    return [Estimate(a, np.abs(a - b)) for a, b in pairs], fine[1]


def _by_rule(dynamics, order, points, *, coarse):
    m, r = len(dynamics.readout), dynamics.target.rank
    with double_precision():
        chosen = rule(dynamics.target, m, points=points, coarse=coarse)
        at, c = _at_start(as_arrays(dynamics), chosen)
    h, z, c = np.asarray(at.h).T, np.asarray(at.z), np.asarray(c)
    weighted = c * np.asarray(at.weights)
    found = []
    for k in range(order + 1):
        one = np.stack([next(hermite_functions(row[:, None], k)) for row in z])
        seen = np.stack([(weighted * one) @ f for f in hermite_functions(h, k + 1)], axis=1)
        found.append(seen * _lengths(r, k + 1) / math.sqrt(math.factorial(k)))
    return found, np.sqrt((weighted * c).sum(axis=1))


@eqx.filter_jit
def _at_start(dynamics, rule):
    m, r = len(dynamics.readout), len(rule.h)
    at = rule(jnp.zeros((m, r), rule.h.dtype), jnp.eye(m, dtype=rule.h.dtype))
    return at, dynamics.coefficients(at.z, at.y)
