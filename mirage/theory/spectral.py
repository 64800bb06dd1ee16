"""The spectrum of D = (1/n) Σ_i T(y_i) x_i x_iᵀ for n, d → ∞ at n/d = α.

With ψ(τ) = τ (1/α + E[T/(τ − T)]) and Φ(τ) = τ E[T hhᵀ/(τ − T)] on τ > sup T, and τ̄ where ψ is
least: the bulk ends at ψ(τ̄), and each eigenvalue φ of Φ with φ(τ̄) > ψ(τ̄) sends an eigenvalue
to ψ(τ*), ψ(τ*) = φ(τ*), whose eigenvector has squared overlap ψ'/(ψ' − φ') at τ* with its direction
(Lu and Li 2017; Mondelli and Montanari 2018; several directions: Defilippis et al., arXiv
2502.02545). The lower end is the upper end of −T.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import elementwise

from mirage.arguments import finite_array, positive, positive_vector
from mirage.channels.preprocessing import Law
from mirage.gaussian import Estimate, mean_and_error

# τ is searched for at sup T + s, with log s between these (in units of the spread of T).
NARROW, WIDE = 1e-12, 1e8
# Thresholds above this are rounding of moments that vanish.
LARGEST = 1e6
# Steps in the imaginary part by which the bulk is followed down to the real line.
DESCENT = 24


class Prediction(NamedTuple):
    """The upper end of the spectrum at each α.

    `edge` is where the bulk ends; of the r directions, strongest first, `outlier` is where their
    eigenvalue sits (the edge where it has none) and `overlap` the squared overlap (0 then).
    `direction` (alphas, r, r) has the directions, one a row.
    """

    edge: Float[np.ndarray, " alphas"]
    outlier: Float[np.ndarray, "alphas r"]
    overlap: Float[np.ndarray, "alphas r"]
    direction: Float[np.ndarray, "alphas r r"]


class _Functions:
    """ψ, Φ and their derivatives at τ = sup T + s."""

    def __init__(self, law: Law):
        self.t, self.p, self.m = law.values[0], law.probability[0], law.moments[0]
        self.sup = self.t.max()
        self.spread = max(self.sup - self.t.min(), abs(self.sup), 1e-300)
        self.gap = self.sup - self.t

    def ratio(self, s):
        """T/(τ − T), (..., bins)."""
        return self.t / (s[..., None] + self.gap)

    def squares(self, s):
        """E[T²/(τ − T)²], which falls from its largest value to 0."""
        return self.ratio(s) ** 2 @ self.p

    def psi(self, s, alpha):
        return (self.sup + s) * (1 / alpha + self.ratio(s) @ self.p)

    def signal(self, s):
        """E[T (hhᵀ − I)/(τ − T)], (..., r, r)."""
        return np.tensordot(self.ratio(s), self.m, axes=1)

    def phi(self, s):
        """Eigenvalues of Φ, largest first, and the eigenvectors as rows."""
        identity = (self.ratio(s) @ self.p)[..., None, None] * np.eye(self.m.shape[-1])
        values, vectors = np.linalg.eigh(self.signal(s) + identity)
        tau = (self.sup + s)[..., None]
        return tau * values[..., ::-1], np.swapaxes(vectors, -1, -2)[..., ::-1, :]

    def slopes(self, s, alpha, vectors):
        """ψ' and φ' = −E[T² (u·h)²/(τ − T)²]."""
        squared = self.ratio(s) ** 2
        along = np.einsum("...i,bij,...j->...b", vectors, self.m, vectors)
        return 1 / alpha - squared @ self.p, -np.sum(squared * (along + self.p), axis=-1)

    def root(self, function, shape, *arguments):
        """The zero in s of a function that falls, at the nearest end where it has none."""
        low = np.full(shape, math.log(NARROW * self.spread))
        high = np.full(shape, math.log(WIDE * self.spread))

        def of_log(x, *rest):
            return function(np.exp(x), *rest)

        at_low, at_high = of_log(low, *arguments), of_log(high, *arguments)
        inside = (at_low > 0) & (at_high < 0)
        found = elementwise.find_root(of_log, (low, high), args=arguments).x
        return np.exp(np.where(inside, found, np.where(at_low <= 0, low, high)))


def predict(law: Law, alpha: Float[np.ndarray, " alphas"]) -> Prediction:
    """The upper end of the spectrum at every α, from all replicas of a law.

    ValueError for no α or an α ≤ 0.
    """
    alpha = positive_vector("alpha", alpha)
    f = _Functions(law.pooled())
    bar = f.root(lambda s, a: f.squares(s) - 1 / a, alpha.shape, alpha)
    edge = f.psi(bar, alpha)
    r = f.m.shape[-1]
    outlier, overlap = np.repeat(edge[:, None], r, axis=1), np.zeros((len(alpha), r))
    at_bar, direction = f.phi(bar)
    for k in range(r):
        out = np.flatnonzero(at_bar[:, k] > edge)
        if not len(out):
            continue
        a = alpha[out]
        s = f.root(lambda s, a, k=k: f.phi(s)[0][..., k] - f.psi(s, a), a.shape, a)
        s = np.maximum(s, bar[out])
        vectors = f.phi(s)[1][:, k]
        rise, fall = f.slopes(s, a, vectors)
        outlier[out, k] = f.psi(s, a)
        overlap[out, k] = np.clip(rise / (rise - fall), 0.0, 1.0)
        direction[out, k] = vectors
    return Prediction(edge, outlier, overlap, direction)


def threshold(law: Law) -> Estimate:
    """The smallest α at which the upper end has an eigenvalue outside the bulk; inf if none.

    There the largest eigenvalue of E[T (hhᵀ − I)/(τ − T)] is E[T²/(τ − T)²], and α is the inverse
    of both.
    """
    value = pooled_threshold(law)
    if math.isinf(value):
        return Estimate(np.asarray(value), np.asarray(0.0))
    replicas = range(len(law.values))
    found = np.array([pooled_threshold(law.alone(replica)) for replica in replicas])
    if not np.isfinite(found).all():  # far out, where what is seen is the error of the rules
        return Estimate(np.asarray(math.inf), np.asarray(0.0))
    error = mean_and_error(found).error
    return Estimate(np.asarray(value if error < 0.2 * value else math.inf), error)


def pooled_threshold(law: Law) -> float:
    """The threshold of a law with all its replicas taken as one, without its error."""
    return _threshold(law.pooled())


def _threshold(law: Law) -> float:
    f = _Functions(law)

    def excess(s):  # negative where a signal stands out
        return f.squares(s) - np.linalg.eigvalsh(f.signal(s))[..., -1]

    grid = np.exp(np.linspace(math.log(NARROW), math.log(WIDE), 400)) * f.spread
    values = excess(grid)
    if not (values < 0).any():
        return math.inf
    # α = 1/E[T²/(τ − T)²] grows with τ: the first τ at which a signal stands out.
    first = int(np.argmax(values < 0))
    s = grid[first]
    if first > 0:
        bracket = np.log(grid[first - 1]), np.log(s)
        s = np.exp(elementwise.find_root(lambda x: excess(np.exp(x)), bracket).x)
    found = float(1 / f.squares(np.asarray(s)))
    return found if found < LARGEST else math.inf


def bulk_density(
    law: Law, alpha: float, x: Float[np.ndarray, " points"], *, smoothing: float = 1e-3
) -> Float[np.ndarray, " points"]:
    """The density of eigenvalues of D at x, an eigenvalue being a bump of width `smoothing`.

    The Stieltjes transform m solves z = −1/m + E[T/(1 + m T/α)] (Marchenko and Pastur 1967;
    Silverstein and Bai 1995) at z = x + i · smoothing · (spread of x). ValueError for an α or a
    smoothing ≤ 0, and an x that is no vector of finite numbers.
    """
    positive(alpha=alpha, smoothing=smoothing)
    finite_array((None,), x=x)
    pooled = law.pooled()
    t, p = pooled.values[0], pooled.probability[0]
    spread = float(np.ptp(x)) or 1.0
    heights = np.geomspace(10 * spread + np.abs(t).max(), smoothing * spread, DESCENT)
    m = -1 / (x + 1j * heights[0])
    for height in heights:
        z = x + 1j * height
        for _ in range(50):
            ratio = t / (1 + m[:, None] * t / alpha)
            value = -1 / m + ratio @ p - z
            slope = 1 / m**2 - (ratio**2 @ p) / alpha
            step = value / slope
            # A Newton step that leaves the upper half plane is cut.
            while (bad := (m - step).imag <= 0).any():
                step = np.where(bad, step / 2, step)
            m = m - step
            if np.abs(step).max() < 1e-10 * np.abs(m).max():
                break
    return m.imag / math.pi
