"""What the spectral estimator of a loss finds, against n/d: the curve to lay over simulations."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mirage.channels.labels import LabelBins
from mirage.channels.preprocessing import law_of
from mirage.losses import Loss
from mirage.targets import Target
from mirage.theory.loss_design import LossThreshold, loss_threshold
from mirage.theory.spectral import predict


class Curves(NamedTuple):
    """At every α: squared overlaps of the eigenvectors of the end that sees the target first.

    `overlap` (alphas, r), strongest first; `cos_best` is the root of the first, what the best of
    these eigenvectors has in the target's subspace.
    """

    overlap: Float[np.ndarray, "alphas r"]
    cos_best: Float[np.ndarray, " alphas"]
    threshold: LossThreshold


def spectral_curves(
    target: Target, loss: Loss, bins: LabelBins, alpha: Float[np.ndarray, " alphas"]
) -> Curves:
    """The curves of a loss; zero where neither end of its T(y) is bounded."""
    ends = loss_threshold(target, loss, bins)
    slopes = law_of(loss, bins)
    overlap = np.zeros((len(alpha), target.rank))
    for end, side in ((ends.upper, slopes), (ends.lower, slopes.negated())):
        if end is not None and float(end.value) == ends.best < np.inf:
            overlap = np.maximum(overlap, predict(side, alpha).overlap)
    overlap = -np.sort(-overlap, axis=1)
    return Curves(overlap, np.sqrt(overlap[:, 0]), ends)
