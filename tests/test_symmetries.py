"""Symmetries of targets: known groups, the best of a group, rotations, what is not finite."""

import abc
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from mirage.symmetries import aligned, found_rank, symmetries
from mirage.targets import (
    Committee,
    Expression,
    Hermite,
    NoisySign,
    Parity,
    PhaseRetrieval,
    Quadratic,
    SingleIndex,
    Staircase,
    Target,
)

# Target, how many signed permutations, and the blocks.
KNOWN = [
    (Parity(), 4, ()),
    (Parity(k=3), 24, ()),
    (Parity(k=4), 192, ()),
    # h1 and two of the three signs as one likes them, as long as the product stays; h2 and h3 swap
    (Staircase(), 8, ()),
    (PhaseRetrieval(), 2, ()),
    (SingleIndex(), 1, ()),
    (NoisySign(), 1, ()),
    (Committee(rank=3), 6, ()),
    (Committee(rank=2, link="relu"), 2, ()),
    (Hermite(), 8, ()),
    (Quadratic(condition_number=2.0), 4, ()),
    (Quadratic(condition_number=1.0), 8, ((0, 1),)),
    (Quadratic(rank=4, condition_number=1.0), 384, ((0, 1, 2, 3),)),
    (Expression("h1**2 + h2**2"), 8, ((0, 1),)),
    (Expression("h1**2 + h2**2 + h3"), 8, ((0, 1),)),
    (Expression("h3**2 + h1**2 + sin(h2)"), 8, ((0, 2),)),
    (Expression("sign(h1**2 + h2**2 - 1)"), 8, ((0, 1),)),
    (Expression("(h1**2 + h2**2)*(h3**2 + h4**2)"), 128, ((0, 1), (2, 3))),
    (Expression("(h1**2 + h2**2) + sin(h3**2 + h4**2)"), 64, ((0, 1), (2, 3))),
    (Expression("h1*h2"), 4, ()),
    (Expression("h1**2 - h2**2"), 4, ()),
    (Expression("exp(-h1**2)", rank=3), 16, ((1, 2),)),
    # Rank 5: for each of 10 pairs two signs at once and 2 or 4 exchanges; single signs.
    (Parity(k=5), 31, ()),
    (Quadratic(rank=5, condition_number=1.0), 56, ((0, 1, 2, 3, 4),)),
]
each_target = pytest.mark.parametrize(
    "target", [t for t, *_ in KNOWN], ids=[repr(t)[:50].replace("\n", "") for t, *_ in KNOWN]
)


@pytest.mark.parametrize(("target", "count", "blocks"), KNOWN)
def test_the_symmetries_that_are_known(target, count, blocks):
    found = symmetries(target)
    assert (len(found.moves), found.blocks) == (count, blocks)
    np.testing.assert_array_equal(found.moves[0], np.eye(target.rank))


@pytest.mark.parametrize("k", [2, 3])
def test_parity_allows_the_signs_of_product_one(k):
    for move in symmetries(Parity(k=k)).moves:
        assert move.sum(axis=0).prod() == 1


@each_target
def test_moves_are_a_group_up_to_rank_four(target):
    if target.rank > 4:
        pytest.skip("only single moves are tried")
    moves = symmetries(target).moves
    names = {move.tobytes() for move in moves + 0.0}  # no negative zeros
    assert {(a @ b.T + 0.0).tobytes() for a in moves for b in moves} == names


@each_target
def test_alignment_does_not_see_a_symmetry(target):
    if target.rank > 4:
        pytest.skip("a local maximum")
    overlap = np.random.default_rng(3).standard_normal((5, target.rank, target.rank))
    expected = np.trace(aligned(overlap, target), axis1=1, axis2=2)
    for move in symmetries(target).moves:
        moved = aligned(move @ overlap, target)
        np.testing.assert_allclose(np.trace(moved, axis1=1, axis2=2), expected, rtol=1e-10)


@each_target
def test_alignment_undoes_a_symmetry(target):
    for move in symmetries(target).moves:
        np.testing.assert_allclose(
            aligned(0.7 * move, target), 0.7 * np.eye(target.rank), atol=1e-12
        )


@each_target
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_alignment_is_a_symmetry_and_no_move_does_better(target, seed):
    overlap = np.random.default_rng(seed).standard_normal((target.rank, target.rank))
    result = aligned(overlap, target)
    np.testing.assert_allclose(result.T @ result, overlap.T @ overlap, atol=1e-12)
    np.testing.assert_allclose(aligned(result, target), result, atol=1e-10)
    for move in symmetries(target).moves:
        assert np.trace(move @ overlap) <= np.trace(result) + 1e-9
    assert found_rank(result) == found_rank(overlap)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_alignment_undoes_rotations_within_blocks(seed):
    rng = np.random.default_rng(seed)
    for target, move in (
        (Expression("h1**2 + h2**2 + sin(h3)"), np.eye(3)),
        (Expression("h1**2 + h2**2 + sin(h3)"), np.diag([1.0, -1.0, 1.0])),
        (Quadratic(rank=4, condition_number=1.0), np.eye(4)),
        (Expression("(h1**2 + h2**2)*(h3**2 + h4**2)"), np.eye(4)[[2, 3, 1, 0]]),
        (Quadratic(rank=5, condition_number=1.0), np.eye(5)),
    ):
        rotation = np.eye(target.rank)
        for block in map(list, symmetries(target).blocks):
            a = rng.standard_normal((len(block), len(block)))
            rotation[np.ix_(block, block)] = expm(a - a.T)
        np.testing.assert_allclose(aligned(rotation @ move, target), np.eye(target.rank), atol=1e-9)


def test_a_rotation_is_found_by_brute_force_too():
    overlap = np.random.default_rng(5).standard_normal((2, 2))
    angles = np.linspace(0, 2 * math.pi, 100_001)
    # Tr[R M] = cos (M11 + M22) + sin (M12 − M21), and the same for a reflected M.
    traces = []
    for m in (overlap, np.diag([1.0, -1.0]) @ overlap):
        traces.append(np.cos(angles) * np.trace(m) + np.sin(angles) * (m[0, 1] - m[1, 0]))
    best = np.trace(aligned(overlap, Expression("h1**2 + h2**2")))
    assert best == pytest.approx(np.max(traces), rel=1e-8)


def test_single_moves_follow_one_another_above_rank_four():
    signs = np.diag([1.0, -1.0, -1.0, 1.0, -1.0, 1.0])
    target = Expression("+".join(f"h{i}**4" for i in range(1, 7)))
    overlap = 0.9 * signs[[1, 2, 0, 4, 3, 5]]
    np.testing.assert_allclose(aligned(overlap, target), 0.9 * np.eye(6), atol=1e-12)


def test_leading_dimensions_and_what_is_not_finite():
    overlap = np.random.default_rng(6).standard_normal((3, 4, 2, 2)).astype(np.float32)
    overlap[1, 2] = np.nan
    overlap[2, 0, 1, 1] = np.inf
    for target in (Parity(), Expression("h1**2 + h2**2")):
        result = aligned(overlap, target)
        lost = np.zeros((3, 4), bool)
        lost[1, 2] = lost[2, 0] = True
        assert np.isnan(result[lost]).all()
        for place in zip(*np.nonzero(~lost), strict=True):
            np.testing.assert_allclose(result[place], aligned(overlap[place], target), rtol=1e-12)
    assert (found_rank(overlap, threshold=0.0) == np.where(lost, 0, 2)).all()


def test_found_rank_counts_singular_values():
    overlap = np.stack([np.diag([0.9, 0.5]), np.full((2, 2), 0.3), np.full((2, 2), 0.1)])
    assert found_rank(overlap).tolist() == [2, 1, 0]
    assert found_rank(overlap, threshold=0.7).tolist() == [1, 0, 0]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 3, 3\)"):
        aligned(np.zeros((4, 2, 3)), Staircase())


class Spread(Target, abc.ABC):  # ABC: no option of others' tests
    """A label of mean zero whose spread depends on h1: g is silent, the likelihood is not."""

    @property
    def rank(self):
        return 2

    def __call__(self, h):
        return jnp.zeros_like(h[..., 0])

    def draw(self, key, h):
        return (1 + h[..., 0] ** 2) * jax.random.normal(key, h.shape[:-1], h.dtype)

    def log_likelihood(self, y, h):
        scale = 1 + h[..., 0] ** 2
        return -((y / scale) ** 2) / 2 - jnp.log(scale)


def test_a_likelihood_is_compared_too():
    found = symmetries(Spread())
    assert (len(found.moves), found.blocks) == (4, ())
