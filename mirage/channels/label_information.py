"""What a label says of h at second order: p(y) and G(y) = E[hhᵀ − I | y] on a grid of labels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mirage.channels.labels import LabelBins

# Bins of the table joined into one, so that a curve is smooth to the eye.
GROUPS = 120


class LabelInformation(NamedTuple):
    """At ascending labels y: probability, density (NaN for single values) and G(y)."""

    label: Float[np.ndarray, " places"]
    probability: Float[np.ndarray, " places"]
    density: Float[np.ndarray, " places"]
    information: Float[np.ndarray, "places r r"]


def label_information(bins: LabelBins) -> LabelInformation:
    """The bins joined to some 120; a value that repeats stays alone, with its probability."""
    half = bins.labels.shape[1] // 2
    parts = [_joined(bins, slice(None, half)), _single(bins, slice(half, None))]
    columns = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return LabelInformation(*(column[order] for column in columns))


def _joined(bins: LabelBins, plain: slice):
    """Plain bins of all replicas, sorted and joined: label, probability, density, G."""
    p = bins.probability[:, plain].ravel() / len(bins.probability)
    order = np.argsort(bins.labels[:, plain].ravel(), kind="stable")
    order = order[p[order] > 0]
    q = bins.moments.shape[-1]
    if not len(order):
        return np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, q, q))
    p, y = p[order], bins.labels[:, plain].ravel()[order]
    m = bins.moments[:, plain].reshape(-1, q, q)[order] / len(bins.probability)
    # Half of the groups by probability, half by where the central labels lie.
    share = np.cumsum(p) / p.sum()
    low, high = np.interp([0.005, 0.995], share, y)
    place = np.clip((y - low) / max(high - low, 1e-300), 0, 1)
    group = np.minimum((share + place) / 2 * GROUPS, GROUPS - 1).astype(int)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    mass = np.add.reduceat(p, starts)
    label = np.add.reduceat(p * y, starts) / mass
    # From halfway to the group below up to halfway to the one above.
    edges = np.concatenate([[y[0]], (label[1:] + label[:-1]) / 2, [y[-1]]])
    width = np.maximum(np.diff(edges), 1e-300)
    return label, mass, mass / width, np.add.reduceat(m, starts) / mass[:, None, None]


def _single(bins: LabelBins, single: slice):
    """Values that repeat, each once: label, probability, no density, G."""
    p = bins.probability[:, single].ravel() / len(bins.probability)
    y = bins.labels[:, single].ravel()
    q = bins.moments.shape[-1]
    m = bins.moments[:, single].reshape(-1, q, q) / len(bins.probability)
    y, p, m = y[p > 0], p[p > 0], m[p > 0]
    order = np.argsort(y)
    y, p, m = y[order], p[order], m[order]
    if not len(y):
        return np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, q, q))
    starts = np.flatnonzero(np.diff(y, prepend=-np.inf) > 1e-9 * np.maximum(np.abs(y), 1e-300))
    mass = np.add.reduceat(p, starts)
    moments = np.add.reduceat(m, starts) / mass[:, None, None]
    return y[starts], mass, np.full(len(starts), np.nan), moments
