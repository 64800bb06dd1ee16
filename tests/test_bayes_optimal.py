"""The replica free energy: stationary points, limits at exact recovery, hard phases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mirage.channels.registry import channel_of
from mirage.channels.signs import SignProduct
from mirage.targets import PhaseRetrieval, SingleIndex
from mirage.theory.bayes_optimal import (
    free_energy,
    optimal,
    rays,
    stationary_points,
    value_of,
)
from mirage.theory.overlap_curves import curve
from mirage.theory.settling import settled
from mirage.theory.state_evolution import averages, mapped, start_of

# Compilations of many channels: with the long checks.
pytestmark = pytest.mark.slow

PARITY, TRIPLE = SignProduct(2), SignProduct(3)
PROBIT = SignProduct(1, inner_noise=0.5)
TILTED = np.array([[0.4, 0.15], [0.15, 0.3]])
CHANGES = (
    np.array([[1.0, 0.0], [0.0, 0.0]]),
    np.array([[0.0, 1.0], [1.0, 0.0]]),
    np.array([[0.3, -0.2], [-0.2, 0.8]]),
)


@pytest.fixture
def square():
    return channel_of(PhaseRetrieval())


def score(channel, overlap):
    with jax.enable_x64(True):
        _, information = mapped(channel, jnp.asarray(overlap), jnp.asarray(1.0))
    return np.asarray(information.score)


def image(channel, overlap, alpha):
    with jax.enable_x64(True):
        return np.asarray(mapped(channel, jnp.asarray(overlap), jnp.asarray(alpha))[0])


@pytest.mark.parametrize("change", CHANGES)
def test_evidence_grows_with_half_the_score(change):
    h = 1e-5
    _, evidence = averages(PARITY, np.stack([TILTED + h * change, TILTED - h * change]))
    slope = (evidence[0] - evidence[1]) / (2 * h)
    np.testing.assert_allclose(slope, (score(PARITY, TILTED) * change).sum() / 2, rtol=1e-6)


def test_evidence_grows_with_half_the_score_in_three_directions():
    q, h = np.array([0.5, 0.2, 0.7]), 1e-5
    _, evidence = averages(TRIPLE, np.stack([np.diag(q + h), np.diag(q - h)]))
    slope = (evidence[0] - evidence[1]) / (2 * h)
    np.testing.assert_allclose(slope, np.trace(score(TRIPLE, np.diag(q))) / 2, rtol=1e-5)


def test_free_energy_is_the_extremum_over_the_conjugate():
    alpha, q = 2.0, 0.4
    _, evidence = averages(PROBIT, np.array([[[q]]]))

    def functional(conjugate):
        return (-q * conjugate - np.log1p(conjugate) + conjugate) / 2 + alpha * evidence[0]

    lowest = minimize_scalar(functional, bounds=(0, 10), method="bounded", options={"xatol": 1e-9})
    value = value_of(PROBIT, np.array([[q]]), alpha)
    np.testing.assert_allclose(value, lowest.fun, rtol=1e-9)


def test_the_gradient_of_the_free_energy_vanishes_at_fixed_points():
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(lambda q, alpha: free_energy(PROBIT, q, alpha)))
        for alpha in (0.5, 3.0):
            overlap = settled(PROBIT, alpha, start_of("uninformed", 1)).overlap
            value, slope = both(jnp.asarray(overlap), alpha)
            np.testing.assert_allclose(slope, 0, atol=1e-6)
            np.testing.assert_allclose(value, value_of(PROBIT, overlap, alpha), rtol=1e-12)


@pytest.mark.slow
def test_the_gradient_of_the_free_energy_of_parity_vanishes_at_fixed_points():
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(lambda q, alpha: free_energy(PARITY, q, alpha)))
        for alpha in (3.0, 4.0):
            overlap = settled(PARITY, alpha, start_of("uninformed", 2)).overlap
            slope = gradient(jnp.asarray(overlap), alpha)
            np.testing.assert_allclose(slope + slope.T, 0, atol=2e-6)


@pytest.mark.parametrize("change", CHANGES)
def test_the_free_energy_of_parity_is_stationary_at_fixed_points(change):
    overlap, h = settled(PARITY, 4.0, start_of("uninformed", 2)).overlap, 1e-4
    ends = [value_of(PARITY, overlap + sign * h * change, 4.0) for sign in (1, -1)]
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * h), 0, atol=1e-6)


def test_rays_are_projectors():
    counts = {1: 1, 2: 1 + 2 + 2, 3: 1 + 6 + 6 + 4}
    for rank, count in counts.items():
        found = rays(rank)
        assert len(found) == count
        for ray in found:
            np.testing.assert_allclose(ray @ ray, ray, atol=1e-15)
            np.testing.assert_array_equal(ray, ray.T)


def test_stationary_points_of_parity():
    points = stationary_points(PARITY, alpha=3.0)
    both, lines, zero = points[0], points[1:3], points[3]
    assert len(points) == 4
    np.testing.assert_allclose(both.overlap, 0.24271 * np.eye(2), atol=1e-5)
    assert [point.stable for point in points] == [True, False, False, False]
    for line, other in zip(sorted(lines, key=lambda p: p.overlap[0, 1]), (-1, 1), strict=True):
        expected = 0.11328 * np.outer([1, other], [1, other])
        np.testing.assert_allclose(line.overlap, expected, atol=1e-5)
    np.testing.assert_array_equal(zero.overlap, 0.0)
    for point in points:
        moved = image(PARITY, point.overlap, 3.0)
        np.testing.assert_allclose(moved, point.overlap, atol=1e-8)
    energies = [point.free_energy for point in points]
    assert energies == sorted(energies, reverse=True)
    np.testing.assert_allclose(zero.free_energy, -3 * np.log(2), rtol=1e-10)


def test_parity_has_nothing_but_zero_below_its_threshold():
    (point,) = stationary_points(PARITY, alpha=2.3)
    np.testing.assert_array_equal(point.overlap, 0.0)
    assert point.stable


def test_stationary_points_of_phase_retrieval(square):
    points = stationary_points(square, alpha=1.05)
    overlaps = [float(point.overlap[0, 0]) for point in points]
    np.testing.assert_allclose(overlaps, [1.0, 0.56845, 0.0, 0.99183], atol=1e-4)
    assert [point.stable for point in points] == [True, True, False, False]
    assert points[0].free_energy == np.inf


def test_exact_recovery_that_repels_is_no_stationary_point(square):
    overlaps = [float(p.overlap[0, 0]) for p in stationary_points(square, alpha=0.8)]
    np.testing.assert_allclose(overlaps, [0.21623, 0.0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.optimised
def test_stationary_points_of_a_triple_product():
    points = stationary_points(TRIPLE, alpha=9.5)
    overlaps = [np.diag(point.overlap) for point in points]
    np.testing.assert_allclose(overlaps, np.outer([0, 0.92677, 0.6624], np.ones(3)), atol=1e-5)
    assert [point.stable for point in points] == [True, True, False]


@pytest.mark.parametrize(("alpha", "limit"), [(0.9, -np.inf), (1.1, np.inf), (5.0, np.inf)])
def test_the_limit_at_exact_recovery_of_a_continuous_label(square, alpha, limit):
    assert value_of(square, np.eye(1), alpha) == limit
    near = [value_of(square, (1 - v) * np.eye(1), alpha) for v in (1e-3, 1e-4, 1e-5)]
    assert (np.sign(np.diff(near)) == np.sign(limit)).all()


def test_a_balanced_limit_is_finite(square):
    near = value_of(square, (1 - 1e-5) * np.eye(1), 1.0)
    np.testing.assert_allclose(value_of(square, np.eye(1), 1.0), near, atol=2e-3)


def test_a_discrete_label_is_never_worth_exact_recovery():
    for alpha in (3.0, 100.0):
        assert value_of(PARITY, np.eye(2), alpha) == -np.inf
        assert value_of(PARITY, np.diag([1.0, 0.5]), alpha) == -np.inf


def test_a_label_that_is_continuous_half_the_time_needs_twice_the_data():
    relu = channel_of(SingleIndex(link="relu"))
    assert value_of(relu, np.eye(1), 1.9) == -np.inf
    assert value_of(relu, np.eye(1), 2.1) == np.inf


@pytest.mark.optimised
def test_the_hard_phase_of_phase_retrieval(square):
    alphas = np.array([1.2, 0.9, 1.1])
    found = optimal(square, alphas, tolerance=2e-3)
    np.testing.assert_array_equal(found.hard, (alphas > 1) & (alphas < 1.12))
    np.testing.assert_allclose(found.alpha_it, 1.0, atol=2e-3)
    (jump,) = found.uninformed.jumps
    np.testing.assert_allclose(found.alpha_alg, (jump.low + jump.high) / 2, atol=4e-3)
    np.testing.assert_allclose(found.alpha_c, 0.5, rtol=1e-5)
    for i, branch in enumerate(found.informed if hard else found.uninformed for hard in found.hard):
        np.testing.assert_array_equal(found.overlap[i], branch.overlap[i])
        assert found.square[i] == branch.square[i]
    assert (found.energies[found.hard, 1] == np.inf).all()


def test_a_hard_phase_that_is_not_all_seen(square):
    found = optimal(square, np.array([1.02, 1.08]))
    assert found.hard.all()
    assert (found.alpha_it, found.alpha_alg) == (0.0, np.inf)


def test_no_hard_phase():
    found = optimal(PARITY, np.array([2.0, 3.0, 4.0]))
    assert not found.hard.any()
    assert np.isnan([found.alpha_it, found.alpha_alg]).all()
    np.testing.assert_array_equal(found.overlap, found.uninformed.overlap)
    np.testing.assert_allclose(found.energies[:, 0], found.energies[:, 1], atol=1e-8)


@pytest.mark.optimised
def test_a_triple_product_is_hard_for_ever():
    found = optimal(TRIPLE, np.array([8.0, 9.0, 10.0, 11.0]), tolerance=0.05)
    np.testing.assert_array_equal(found.hard, [False, False, True, True])
    assert (found.alpha_c, found.alpha_alg) == (np.inf, np.inf)
    np.testing.assert_allclose(found.alpha_it, 9.567, atol=0.05)
    # The informed branch is there before it is the better one.
    assert found.informed.overlap[1].max() > 0.8
    assert found.energies[1, 1] < found.energies[1, 0]
    # Against the free energy of guessing, with no overlap at all.
    for alpha, sign in ((9.55, -1), (9.6, 1)):
        (overlap,) = curve(TRIPLE, np.array([alpha]), start="informed").overlap
        value = value_of(TRIPLE, overlap, alpha) + alpha * np.log(2)
        assert np.sign(value) == sign
