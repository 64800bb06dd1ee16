"""Learning curves of targets with many features: one transition after another, d → ∞.

The label is y = Σ_k a_k g_k(h_k) (Defilippis, Krzakala, Loureiro and Maillard, arXiv 2602.05846).
From the asymptotics of `mirage.theory.spectral`, feature by feature; for a_k = k^(−γ) with m⋆ → ∞
feature k appears at n/d ∝ k^(2γ), and what is missing of Σ a_k² falls as (n/d)^(−1 + 1/(2γ)), then
as (n/d)^(−1) when all have been found.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mirage.arguments import ROUNDING, as_array, finite, positive_vector, shaped, whole
from mirage.channels.additive_labels import (
    AdditiveLabels,
    FeatureLaw,
    additive_labels,
    check_additive,
)
from mirage.gaussian import hermite_lines, line_rule
from mirage.options import require
from mirage.precision import double_precision
from mirage.targets import Target
from mirage.theory.spectral import pooled_threshold, predict


def feature_overlaps(
    law: FeatureLaw, alpha: Float[np.ndarray, " alphas"]
) -> Float[np.ndarray, "alphas r"]:
    """‖P u_k‖² of every direction, P on the eigenvectors that leave the upper end of the bulk.

    ValueError for no α or an α ≤ 0.
    """
    alpha = positive_vector("alpha", alpha)
    if law.pairs is None:
        alone = [predict(law.alone(k), alpha).overlap[:, 0] for k in range(len(law.own))]
        return np.stack(alone, axis=1)
    found = predict(law.together(), alpha)
    return np.einsum("aj,ajk->ak", found.overlap, found.direction**2)


def feature_thresholds(law: FeatureLaw) -> Float[np.ndarray, " r"]:
    """n/d at which each eigenvector leaves the upper end of the bulk, ascending; inf for none.

    Of the k-th direction where labels do not tie directions to one another.
    """
    if law.pairs is None:
        return np.array([pooled_threshold(law.alone(k)) for k in range(len(law.own))])
    grid = np.geomspace(1e-2, 1e6, 400)
    out = predict(law.together(), grid).overlap > 0
    first = np.where(out.any(axis=0), out.argmax(axis=0), -1)
    return np.where(first >= 0, grid[first], np.inf)


def optimal_thresholds(target: Target, *, count: int | None = None) -> Float[np.ndarray, " count"]:
    """n/d from which the best estimator finds feature k = 1, ..., `count`, those before it known.

    1/E[G²] with G = E[h_k² − 1 | y − Σ_{j<k} a_j g_j(h_j)], the weak-recovery threshold of what is
    left of the label. ValueError for a target that is no sum of functions of one direction each,
    and a `count` that is not between 1 and its rank.
    """
    check_additive(target)
    count = target.rank if count is None else count
    whole(1, count=count)
    require(count <= target.rank, "count", count, f"expected at most the rank, {target.rank}")
    return np.array([_weak_recovery(additive_labels(target, known=k)) for k in range(count)])


def _weak_recovery(labels: AdditiveLabels) -> float:
    # Below a trillionth of the likeliest label the ratio is rounding of the transform.
    met = labels.probability > 1e-12 * labels.probability.max()
    information = float((labels.own[0, met] ** 2 / labels.probability[met]).sum())
    return 1 / information if information > 0 else np.inf


def readout_risk(
    target: Target, overlap: Float[np.ndarray, "*batch r"], *, degree: int = 40
) -> Float[np.ndarray, "*batch"]:
    """E(g − E[g | P x])² of the best readout on the projection P: what a wide second layer reaches.

    A feature Σ_ℓ c_ℓ h_ℓ(h_k) of squared overlap q leaves Σ_ℓ c_ℓ² (1 − q^ℓ); degrees above
    `degree` count as not learnt. Directions of P are taken to mix no two features. ValueError for a
    target that is no such sum, squared overlaps outside [0, 1] or of other directions, and a degree
    below 0.
    """
    check_additive(target)
    shaped((..., target.rank), overlap=overlap)
    inside = ((overlap >= -ROUNDING) & (overlap <= 1 + ROUNDING)) | np.isnan(overlap)
    require(bool(inside.all()), "overlap", overlap, "expected numbers in [0, 1]")
    whole(0, degree=degree)
    parts = sorted(target.parts(), key=lambda part: part[1])
    total = np.zeros(overlap.shape[:-1])
    with double_precision():
        points, weights = line_rule(320, 13.0)
        for k, (part, _) in enumerate(parts):
            values = np.asarray(part(jnp.asarray(points[:, None])), np.float64)
            square, left = float(weights @ values**2), np.zeros(overlap.shape[:-1])
            for degrees, function in enumerate(hermite_lines(points, degree)):
                coefficient = float(weights @ (values * function))
                left = left + coefficient**2 * overlap[..., k] ** degrees
            total = total + np.maximum(square - left, 0.0)
    return total


def rate(gamma: float) -> float:
    """−1 + 1/(2γ), the exponent in n/d while features appear, for m⋆ → ∞; NaN for γ ≤ ½.

    ValueError for a γ that is no finite number.
    """
    finite(gamma=gamma)
    return -1 + 1 / (2 * gamma) if gamma > 0.5 else float("nan")


def local_slope(
    alpha: Float[np.ndarray, " alphas"], error: Float[np.ndarray, " alphas"]
) -> Float[np.ndarray, " alphas"]:
    """d log error/d log alpha; NaN about errors that are not finite or not positive.

    ValueError for fewer than two α, an α ≤ 0, or another number of errors.
    """
    alpha, error = positive_vector("alpha", alpha), as_array("error", error)
    require(len(alpha) >= 2, "alpha", alpha, "expected at least two")
    shaped(alpha.shape, error=error)
    error = np.where((error > 0) & np.isfinite(error), error, np.nan)
    return np.gradient(np.log(error), np.log(alpha))
