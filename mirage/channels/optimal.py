"""The best preprocessing of a target's labels, as a loss and as matrices."""

import numpy as np
from jaxtyping import Float

from mirage.channels.label_information import label_information
from mirage.channels.labels import LabelBins, summary
from mirage.channels.preprocessing import best_direction
from mirage.losses import Loss, Optimal, Tabulated
from mirage.options import require
from mirage.targets import Target

# Knots of the table, the same for every target so that setups can share a compilation.
KNOTS = 512
# E[(u·h)² | y] counts as at least this: without a floor T would reach down to −∞, and the long
# lower tail of the spectrum would hide the upper end, for one per cent of the threshold.
SMALLEST = 0.1


def made_for(loss: Loss, target: Target) -> Loss:
    """The loss itself, or what `Optimal` is for this target."""
    return optimal(target) if isinstance(loss, Optimal) else loss


def optimal(target: Target) -> Tabulated:
    """T = 1 − 1/E[(u·h)² | y] for the u that a scalar T finds first (`best_direction`)."""
    one_law = (
        "its labels have a law of their own for every seed; expected another loss than optimal"
    )
    require(not target.draws, "target", target.name(), one_law)
    bins, second = summary(target)
    u, _ = best_direction(second)
    information = label_information(bins)
    square = 1 + np.einsum("i,pij,j->p", u, information.information, u)
    values = 1 - 1 / np.maximum(square, SMALLEST)
    labels = information.label
    beyond = KNOTS - len(labels)  # knots that are never met
    labels = np.concatenate([labels, labels[-1] + 1.0 + np.arange(beyond)])
    values = np.concatenate([values, np.full(beyond, values[-1])])
    return Tabulated(labels.astype(np.float32), values.astype(np.float32))


def best_matrices(bins: LabelBins) -> Float[np.ndarray, "replicas bins r r"]:
    """T(y) = I − E[hhᵀ | y]⁻¹, the best matrix-valued preprocessing, for every bin of labels.

    With it the spectral estimator on Σ_i T(y_i) ⊗ x_i x_iᵀ finds all directions of the first step
    from alpha_c on: T (I − T)⁻¹ = G(y), whose map M ↦ E[G M G] has the eigenvalue 1/alpha_c
    (Defilippis et al., arXiv 2502.02545). NaN in bins without probability.
    """
    r = bins.moments.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        square = np.eye(r) + bins.moments / bins.probability[..., None, None]
    result = np.full(square.shape, np.nan)
    met = bins.probability > 0
    values, vectors = np.linalg.eigh(square[met])
    inverse = (vectors / np.maximum(values, SMALLEST)[:, None]) @ vectors.swapaxes(1, 2)
    result[met] = np.eye(r) - inverse
    return result
