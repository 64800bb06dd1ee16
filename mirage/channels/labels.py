"""The joint law of a label and h as a table: P(b) and E[f(h); b] for a partition of the labels.

Any target will do, with any label noise: points of h are drawn by a randomised rule, labelled,
and sorted by their label into bins, a value that repeats having one of its own. Cutting the labels
into bins can only hide what they say, so all that follows is a bound that closes as the bins get
finer; joining neighbours (`coarse`) shows how fast. Two independent halves of the points,
multiplied with one another, leave no bias where a moment is zero; replicas give the error.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mirage.arguments import ROUNDING, as_array, shaped
from mirage.channels.partition import Sizes, sampled
from mirage.gaussian import hermite_functions, multi_indices
from mirage.options import require
from mirage.targets import Target

REPLICAS = 8
MAX_RANK = 4
# By the number of directions known and unknown.
SIZES = {
    (0, 1): Sizes(1, 2**18, 1024),
    (0, 2): Sizes(1, 2**17, 512),
    (0, 3): Sizes(1, 2**18, 512),
    (0, 4): Sizes(1, 2**18, 512),
    (1, 1): Sizes(128, 2**11, 64),
    (1, 2): Sizes(64, 2**13, 32),
    (1, 3): Sizes(64, 2**13, 64),
    (2, 1): Sizes(256, 2**11, 64),
    (2, 2): Sizes(256, 2**11, 64),
    (3, 1): Sizes(1024, 2**9, 32),
}


@dataclasses.dataclass(frozen=True, eq=False)
class LabelTable:
    """P(b | a) for bins b of labels, at nodes a of the known directions, and what moments need.

    `weights` (nodes,) are those of the nodes; `points` (halves, nodes, points, q) the standard
    normal coordinates z of h outside the known directions, `point_weights` theirs; `bins` the
    bin of each point among 2 × `count`: first the plain ones in order of the label, then those
    of single values. Axes are (replicas, ...) throughout.
    """

    nodes: Float[np.ndarray, "replicas nodes s"]
    weights: Float[np.ndarray, "replicas nodes"]
    points: Float[np.ndarray, "replicas halves nodes points q"]
    point_weights: Float[np.ndarray, "replicas halves nodes points"]
    labels: Float[np.ndarray, "replicas halves nodes points"]
    bins: Int[np.ndarray, "replicas halves nodes points"]
    count: int
    _sums: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def unknown(self) -> int:
        """q, the number of directions not known."""
        return self.points.shape[-1]

    def summed(self, values: np.ndarray) -> Float[np.ndarray, "replicas halves nodes bins"]:
        """E[f; b | a] in each half, for the values of f at the points."""
        shape = self.bins.shape[:-1]
        size = int(np.prod(shape)) * 2 * self.count
        weighted = (values * self.point_weights).ravel()
        summed = np.bincount(self._places, weighted, minlength=size)
        return summed.reshape(*shape, 2 * self.count)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """The bin of each point among those of all replicas, halves and nodes."""
        shape = self.bins.shape[:-1]
        rows = np.arange(np.prod(shape)).reshape(*shape, 1) * (2 * self.count)
        return (rows + self.bins).ravel()

    def moments(
        self, degree: int, *, coarse: bool = False
    ) -> Float[np.ndarray, "replicas halves nodes bins indices"]:
        """E[Π_i h_{k_i}(z_i); b | a] for every multi-index of the degree, in each half.

        Degree 0 is P(b | a). With `coarse`, neighbouring plain bins are joined.
        """
        if degree not in self._sums:
            functions = hermite_functions(self.points, degree)
            self._sums[degree] = np.stack([self.summed(f) for f in functions], axis=-1)
        sums = self._sums[degree]
        if not coarse:
            return sums
        plain, single = sums[..., : self.count, :], sums[..., self.count :, :]
        return np.concatenate([plain[..., ::2, :] + plain[..., 1::2, :], single], axis=-2)

    def weight(self, *, coarse: bool = False) -> Float[np.ndarray, "replicas nodes bins"]:
        """P(a, b), over both halves."""
        probability = self.moments(0, coarse=coarse)[..., 0].mean(axis=1)
        return probability * self.weights[:, :, None]

    def conditional(
        self, degree: int, *, coarse: bool = False
    ) -> Float[np.ndarray, "replicas halves nodes bins indices"]:
        """E[Π_i h_{k_i}(z_i) | b, a] for every multi-index of the degree, in each half.

        Zero in bins that one half has no point in.
        """
        halves = self.moments(0, coarse=coarse)
        met = (halves > 0).all(axis=1, keepdims=True)
        inverse = np.where(met, 1 / np.where(met, halves, 1.0), 0.0)
        return self.moments(degree, coarse=coarse) * inverse


def label_table(
    target: Target,
    known: Float[np.ndarray, "s r"] | None = None,
    *,
    sizes: Sizes | None = None,
) -> LabelTable:
    """The table of a target, given the coordinates of h along the orthonormal rows of `known`.

    ValueError where the rank is above what can be integrated, where `known` is not orthonormal or
    leaves nothing, or where the target is not finite on a set of positive measure.
    """
    r = target.rank
    if r > MAX_RANK:
        raise ValueError(
            f"target={target.name()}: rank {r}; label integrals go up to rank {MAX_RANK}"
        )
    known = np.zeros((0, r)) if known is None else as_array("known", known)
    shaped((None, r), known=known)
    s = len(known)
    orthonormal = s < r and np.allclose(known @ known.T, np.eye(s), atol=ROUNDING)
    accepted = f"expected orthonormal rows, fewer than the {r} directions"
    require(orthonormal, "known", known, accepted)
    rest = complement(known)
    sizes = SIZES[s, r - s] if sizes is None else sizes
    replicas = [sampled(target, known, rest, sizes, replica) for replica in range(REPLICAS)]
    arrays = [np.stack(parts) for parts in zip(*replicas, strict=True)]
    return LabelTable(*arrays, count=sizes.bins)


class LabelBins(NamedTuple):
    """Of a table with nothing known: mean label, P(b) and E[z zᵀ − I; b] of its bins."""

    labels: Float[np.ndarray, "replicas bins"]
    probability: Float[np.ndarray, "replicas bins"]
    moments: Float[np.ndarray, "replicas bins q q"]


def label_bins(table: LabelTable) -> LabelBins:
    """The bins of a table with nothing known, both halves together."""
    probability = table.weight()[:, 0]
    total = table.summed(table.labels).mean(axis=1)[:, 0]
    moments = as_matrices(table.moments(2).mean(axis=1)[:, 0], table.unknown)
    return LabelBins(total / np.where(probability > 0, probability, 1.0), probability, moments)


class Summary(NamedTuple):
    """What most questions ask of a target: its label bins and E[G_ij G_kl]."""

    bins: LabelBins
    second: Float[np.ndarray, "r r r r"]


def summary(target: Target) -> Summary:
    """The summary of a target, kept for the last few; errors as for `label_table`."""
    try:
        return _summary(target)
    except TypeError:  # a target with arrays among its settings has no hash
        return _summary.__wrapped__(target)


@functools.lru_cache(maxsize=8)
def _summary(target: Target) -> Summary:
    table = label_table(target)
    return Summary(label_bins(table), second_moments(table).mean(axis=0))


class LabelTables:
    """The tables of one target, each made once."""

    def __init__(self, target: Target, sizes: dict[tuple[int, int], Sizes] | None = None):
        self.target = target
        self._sizes = sizes or {}
        self._made: dict[bytes, LabelTable] = {}

    def __call__(self, known: Float[np.ndarray, "s r"]) -> LabelTable:
        """The table given h along the orthonormal rows of `known`."""
        key = np.round(known, 6).tobytes()
        if key not in self._made:
            sizes = self._sizes.get((len(known), self.target.rank - len(known)))
            self._made[key] = label_table(self.target, known, sizes=sizes)
        return self._made[key]


def complement(known: Float[np.ndarray, "s r"]) -> Float[np.ndarray, "q r"]:
    """An orthonormal basis of what the orthonormal rows of `known` leave of R^r."""
    s, r = known.shape
    if s == 0:
        return np.eye(r)
    values, vectors = np.linalg.eigh(np.eye(r) - known.T @ known)
    basis = vectors[:, values > 0.5].T
    # The axes themselves where they are left over, so that what is aligned stays aligned.
    left = np.eye(r) - known.T @ known
    axes = [row for row in left if abs(row @ row - 1) < 1e-9]
    return np.array(axes) if len(axes) == r - s else basis


def second_moments(
    table: LabelTable, *, coarse: bool = False
) -> Float[np.ndarray, "replicas q q q q"]:
    """E[G_ij G_kl] with G = E[z zᵀ − I | y, a], a replica each."""
    q, weight = table.unknown, table.weight(coarse=coarse)
    g = as_matrices(table.conditional(2, coarse=coarse), q).reshape(*weight.shape[:1], 2, -1, q * q)
    weighted = g[:, 0] * weight.reshape(len(weight), -1, 1)
    products = (weighted.swapaxes(1, 2) @ g[:, 1]).reshape(-1, q, q, q, q)
    return (products + products.transpose(0, 3, 4, 1, 2)) / 2


def as_matrices(
    moments: Float[np.ndarray, "*batch indices"], q: int
) -> Float[np.ndarray, "*batch q q"]:
    """E[z zᵀ − I] from the normalised moments of degree 2."""
    result = np.zeros((*moments.shape[:-1], q, q))
    for place, index in enumerate(multi_indices(q, 2)):
        i, j = (axis for axis, k in enumerate(index) for _ in range(k))
        result[..., i, j] = result[..., j, i] = moments[..., place] * (2**0.5 if i == j else 1.0)
    return result
