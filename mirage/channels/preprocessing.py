"""The law of a preprocessed label with h, and the preprocessing that a target asks for."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mirage.channels.labels import LabelBins
from mirage.losses import Loss, slopes
from mirage.targets import Target, evaluation

# How far out along random directions a preprocessing is asked whether it is bounded.
RADII = (8.0, 1e3, 1e6)
Preprocessing = Callable[[Float[np.ndarray, " k"]], Float[np.ndarray, " k"]]


class Law(NamedTuple):
    """T and h together: values T_b, P(b) and E[hhᵀ − I; b], one row a replica of the table."""

    values: Float[np.ndarray, "replicas bins"]
    probability: Float[np.ndarray, "replicas bins"]
    moments: Float[np.ndarray, "replicas bins r r"]

    def negated(self) -> "Law":
        """The law of −T, whose upper end is the lower one of T."""
        return self._replace(values=-self.values)

    def pooled(self) -> "Law":
        """All replicas as one, neighbours in T joined so that there are as many bins as in one."""
        replicas, bins = self.values.shape
        order = np.argsort(self.values.ravel(), kind="stable")
        order = order[self.probability.ravel()[order] > 0]
        groups = np.arange(0, len(order), replicas)
        p = self.probability.ravel()[order]
        mass = np.add.reduceat(p, groups)
        values = np.add.reduceat(p * self.values.ravel()[order], groups) / mass
        matrices = self.moments.reshape(replicas * bins, *self.moments.shape[2:])[order]
        moments = np.add.reduceat(matrices, groups)
        return Law(values[None], mass[None] / replicas, moments[None] / replicas)

    def alone(self, replica: int) -> "Law":
        """One replica."""
        keep = self.probability[replica] > 0
        return Law(*(field[replica][keep][None] for field in self))


def slope_of(loss: Loss) -> Preprocessing:
    """T(y) = −ℓ'(0, y): what a network near zero sees of the labels through the loss."""

    def preprocessing(y):
        return -slopes(loss, np.zeros_like(y), y)

    return preprocessing


def law_of(loss: Loss, bins: LabelBins) -> Law:
    """The law of T(y) = −ℓ'(0, y) as algorithms see it: centred unless the loss is not to be."""
    return law(bins, slope_of(loss), centred=bool(loss.centring()))


def law(bins: LabelBins, preprocessing: Preprocessing, *, centred: bool = True) -> Law:
    """The law of T(y) from the bins of labels; minus its mean if `centred`."""
    met = bins.probability > 0
    values = np.asarray(preprocessing(bins.labels.ravel()), np.float64)
    values = np.where(met, values.reshape(met.shape), 0.0)
    if not np.isfinite(values).all():
        raise ValueError("preprocessing: T(y) is not finite for labels that occur")
    if centred:
        weights = bins.probability / bins.probability.sum(axis=1, keepdims=True)
        values = np.where(met, values - (weights * values).sum(axis=1, keepdims=True), 0.0)
    return Law(values, bins.probability, bins.moments)


def best_law(bins: LabelBins, direction: Float[np.ndarray, " r"]) -> Law:
    """The law of T = 1 − 1/E[(u·h)² | y], the best scalar preprocessing to find u.

    For a single index no T has a lower threshold (Mondelli and Montanari 2018; Luo, Alghamdi and
    Lu 2019); for several see `best_direction`.
    """
    met = bins.probability > 0
    along = np.einsum("i,rbij,j->rb", direction, bins.moments, direction)
    square = 1 + along / np.where(met, bins.probability, 1.0)
    values = np.where(met, 1 - 1 / np.maximum(square, 1e-12), 0.0)
    return Law(values, bins.probability, bins.moments)


def best_direction(
    second: Float[np.ndarray, "q q q q"],
) -> tuple[Float[np.ndarray, " q"], float]:
    """The unit u with the largest E[(uᵀ G u)²], and that value, given E[G_ij G_kl].

    A scalar T with S = T/(τ − T) finds u where E[S uᵀGu] ≥ E[S²], at 1/alpha = E[S²]: the best is
    S = uᵀGu, T = 1 − 1/(1 + uᵀGu), with threshold 1/E[(uᵀGu)²]. It is alpha_c when the matrix M of
    the weak-recovery threshold has rank one or lies along uuᵀ, and above it otherwise.
    """
    q = len(second)
    rng = np.random.default_rng(0)
    starts = np.concatenate([np.eye(q), rng.standard_normal((16 * q, q))])
    best, value = starts[0], -np.inf
    for u in starts:
        u = u / np.linalg.norm(u)
        for _ in range(500):
            # A shift keeps the ascent monotone where the quartic form is not convex.
            moved = np.einsum("ijkl,j,k,l->i", second, u, u, u)
            u = moved + abs(float(u @ moved)) * u
            u /= max(np.linalg.norm(u), 1e-300)
        at = float(np.einsum("ijkl,i,j,k,l->", second, u, u, u, u))
        if at > value + 1e-12:
            best, value = u, at
    return best, value


def bounded_above(target: Target, preprocessing: Preprocessing) -> bool:
    """Whether T(y) stays bounded as h, and the noise of the label, go to infinity or to a pole."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((4096, target.rank))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    clouds = [radius * directions for radius in RADII]
    # A pole shows as a largest value that grows with the number of points.
    clouds += [rng.standard_normal((count, target.rank)) for count in (2**10, 2**16)]
    highest = []
    with np.errstate(all="ignore"):
        for radius, cloud in zip((*RADII, 0.0, 0.0), clouds, strict=True):
            y = evaluation.values(target, cloud)
            if target.noise > 0 and radius:
                y = np.concatenate([y, [-radius, radius]])
            values = np.asarray(preprocessing(y[~np.isnan(y)]))
            values = values[~np.isnan(values)]
            highest.append(values.max() if values.size else -np.inf)
    near, far, farther, few, many = highest
    scale = abs(near) + 1.0
    tails = farther <= max(near, far) + 0.1 * scale and far <= near + 10 * scale
    return bool(tails and many <= max(few, near) + 10 * (abs(few) + 1.0))
