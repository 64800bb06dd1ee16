"""The law of the neurons' overlaps with the target's directions after one giant step."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mirage.activations import Activation
from mirage.arguments import finite, positive
from mirage.gaussian import line_rule, scattered
from mirage.losses import Loss, slopes
from mirage.precision import double_precision
from mirage.targets import Target
from mirage.targets.evaluation import labels

# Points over h, and over a pre-activation.
POINTS, NODES = 2**16, 320


class SlopeMoments(NamedTuple):
    """Of s = ℓ'(0, y), its mean taken off if told: E s h, E s h hᵀ and E s² h²."""

    first: Float[np.ndarray, " r"]
    second: Float[np.ndarray, "r r"]
    square: Float[np.ndarray, " r"]


class OverlapLaw(NamedTuple):
    """Mean and standard deviation of w_j·u_k after the step, for each direction."""

    mean: Float[np.ndarray, " r"]
    deviation: Float[np.ndarray, " r"]


def slope_moments(target: Target, loss: Loss, *, centred: bool) -> SlopeMoments:
    """Moments of the loss's slope at zero with h; a label is drawn at every point of the rule.

    ValueError for `Optimal`, which is made for a target first. NaN where the slope is not finite.
    """
    h, weights = scattered(target.rank, POINTS, seed=0)
    y = labels(target, h, seed=0)
    s = slopes(loss, np.zeros_like(y), y)
    s = s - weights @ s if centred else s
    second = np.einsum("n,ni,nj->ij", weights * s, h, h)
    return SlopeMoments((weights * s) @ h, second, (weights * s**2) @ h**2)


def overlap_law(
    moments: SlopeMoments,
    activation: Activation,
    *,
    step: float,
    norm: float,
    d: float,
    n: float,
) -> OverlapLaw:
    """The law of w·u_k over neurons and samples after w ← w − `step` (1/n) Σ_i s_i σ'(w·x_i) x_i.

    `step` is η a_j/m, with its sign; w starts uniform on the sphere of radius ν = `norm`, and
    f ≈ 0. To leading order in 1/d and 1/n, with z ~ N(0, ν²),

        mean_k = −step E σ'(z) E[s h_k],
        deviation_k² = (ν²/d) Σ_l (δ_kl − step E σ''(z) E[s h_k h_l])²
                       + (step²/n) (E σ'(z)² E[s² h_k²] − (E σ'(z) E[s h_k])²):

    where w was at the start, moved by the gradient that its own overlap makes, and the noise of n
    samples (the sketch of Ba et al. 2022, arXiv 2205.01445, proposition 2). ValueError for a step
    that is not finite, and a norm, d or n ≤ 0.
    """
    finite(step=step)
    positive(norm=norm, d=d, n=n)
    z, weights = line_rule(NODES)
    with double_precision():
        derivative = np.asarray(activation.derivative(jnp.asarray(norm * z)))
    slope, square = weights @ derivative, weights @ derivative**2
    curvature = weights @ (z * derivative) / norm  # Stein
    mean = -step * slope * moments.first
    kept = np.eye(len(mean)) - step * curvature * moments.second
    noise = step**2 / n * (square * moments.square - (slope * moments.first) ** 2)
    return OverlapLaw(mean, np.sqrt(norm**2 / d * (kept**2).sum(axis=1) + noise))
