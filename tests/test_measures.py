"""Measures against sampling, closed forms and plain linear algebra; the Gaussian rules they use."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.integrate import quad
from scipy.stats import norm, ortho_group
from tables import ACTIVATIONS, TARGETS, label

from mirage.activations import Cos, Erf, Quadratic, Relu, Tanh
from mirage.channels.registry import channel_of
from mirage.gaussian import (
    exact_weights,
    gauss_hermite,
    hermite_functions,
    line_rule,
    rule,
    scattered,
)
from mirage.measures import (
    bayes_error,
    cos_best,
    population_error,
    principal_cosines,
    target_square,
)
from mirage.targets import (
    Committee,
    Expression,
    GrandStaircase,
    Hermite,
    Hierarchical,
    NoisySign,
    Parity,
    PhaseRetrieval,
    Polynomial,
    Staircase,
)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def error_of(target, activation, readout, w, *, biases=None, subspace=None):
    """`population_error` of one network given its weights; U is the first axes by default."""
    w, readout = np.atleast_2d(w), np.atleast_1d(np.asarray(readout, np.float64))
    u = np.eye(target.rank, w.shape[1]) if subspace is None else subspace
    biases = np.zeros(len(w)) if biases is None else np.asarray(biases)
    cell = {"readout": readout, "biases": biases, "overlap": w @ u.T, "gram": w @ w.T}
    return population_error(target, activation, **{k: v[None] for k, v in cell.items()})[0]


class Sample:
    """A network with biases and twin neurons, U, and their values on shared draws of x."""

    def __init__(self, n=200_000, d=6, rank=3):
        self.readout, self.biases = np.asarray([1.0, -0.6, 0.8]), np.asarray([0.3, -0.5, 0.1])
        self.subspace = ortho_group(d, seed=1).rvs()[:rank]
        twin = random(d, seed=2)
        twin *= 0.9 / np.linalg.norm(twin)
        inside = 0.7 * self.subspace[0] + 0.4 * self.subspace[1]  # a neuron that is within U
        self.w = np.stack([twin, twin, inside])
        x = random(n, d, seed=3)
        self.h = x @ self.subspace.T
        self.z = x @ self.w.T + self.biases
        self.values = {}

    def of(self, option, function):
        if option not in self.values:
            with jax.enable_x64(True):
                self.values[option] = np.asarray(function())
        return self.values[option]

    def squared_error(self, target, activation):
        f = self.of(activation, lambda: activation(jnp.asarray(self.z)) @ self.readout)
        g = self.of(target, lambda: target(jnp.asarray(self.h[:, : target.rank])))
        return (f - g) ** 2


@pytest.fixture(scope="module")
def sample():
    return Sample()


# Every target with three activations, every activation with several targets of every kind.
PAIRS = [
    pytest.param(target, ACTIVATIONS[(i + shift) % len(ACTIVATIONS)], id=label(target))
    for i, target in enumerate(TARGETS)
    for shift in (0, 3, 6)
]


@pytest.mark.optimised
@pytest.mark.parametrize(("target", "activation"), PAIRS)
def test_the_population_error_is_the_mean_over_samples(sample, target, activation):
    squares = sample.squared_error(target, activation)
    sigma = squares.std() / math.sqrt(len(squares))
    error = error_of(
        *(target, activation, sample.readout, sample.w),
        biases=sample.biases,
        subspace=sample.subspace[: target.rank],
    )
    assert abs(error - squares.mean()) <= 5 * sigma


def test_a_network_equal_to_the_target_has_no_error():
    w, here, elsewhere = [0.6, 0.8, 0.0], np.asarray([[0.6, 0.8, 0.0]]), np.eye(1, 3)
    aligned = error_of(PhaseRetrieval(), Quadratic(), 1.0, w, subspace=here)
    tilted = error_of(PhaseRetrieval(), Quadratic(), 1.0, w, subspace=elsewhere)
    assert (aligned, tilted) == pytest.approx((0, 4 * (1 - 0.6**2)), abs=1e-11)
    committee = error_of(Committee(rank=3), Tanh(), np.ones(3) / 3, np.eye(3, 5))
    assert committee == pytest.approx(0, abs=1e-11)


TERMS = 1 / np.arange(1.0, 501)
SQUARES = [
    (PhaseRetrieval(), 3),
    (PhaseRetrieval(power=1.0), 1),
    (Parity(), 1),
    (Hermite(), 2),
    (Hermite(terms=[[0.5, [0]], [2.0, [0]], [1.0, [1]]]), 7.25),
    (Polynomial(), 6.25 + 2.5 * 1.5**2),
    (Staircase(), 4),
    (Expression("h1 + 2*h1*h2 - 3"), 14),
    (Expression("h1*h2 + h2*h3 + h1*h2"), 5),
    (NoisySign(), 2 / math.pi * math.asin(2 / 3)),
    (Committee(link="erf"), 1 / math.pi * math.asin(2 / 3)),
    # Σ_k a_k h_k² has mean Σ a_k and variance 2 Σ a_k².
    (Hierarchical(features=500, gamma=1.0, link="h**2"), 2 * (TERMS**2).sum() + TERMS.sum() ** 2),
]


@pytest.mark.parametrize(("target", "square"), SQUARES, ids=[label(t) for t, _ in SQUARES])
def test_the_mean_square_of_a_target(target, square):
    assert target_square(target) == pytest.approx(square, rel=1e-10)


def test_a_term_that_shares_no_direction_is_evaluated_once():
    """However many there are: E g² of a hundred features would take ten seconds otherwise."""
    seen = []

    class Counted(Hierarchical):
        def parts(self):
            def counted(k, part):
                return lambda h: (seen.append(k), part(h))[1]

            parts = enumerate(super().parts())
            return [(counted(k, part), active) for k, (part, active) in parts]

    target = Counted(features=20, link="h")
    assert target_square(target) == pytest.approx((target.amplitudes() ** 2).sum(), rel=1e-10)
    assert seen == list(range(20))


def test_a_zero_readout_leaves_the_mean_square_of_the_target():
    for target, square in SQUARES[:2]:
        assert error_of(target, Tanh(), [0.0], random(4)) == pytest.approx(square, rel=1e-10)


def kernel(activation, q):
    """E[σ(z_j) σ(z_k)] for z ~ N(0, q), in closed form."""
    s = np.sqrt(np.diag(q))
    c = np.clip(q / np.outer(s, s), -1, 1)
    scale = np.sqrt(1 + 2 * np.diag(q))
    angle = np.arccos(c)
    arc = np.sin(angle) + (math.pi - angle) * c
    return {
        "cos": np.exp(-(s[:, None] ** 2 + s**2) / 2) * np.cosh(q),
        "quadratic": np.outer(s, s) ** 2 + 2 * q**2,
        "erf": 2 / math.pi * np.arcsin(2 * q / np.outer(scale, scale)),  # Saad and Solla 1995
        "relu": np.outer(s, s) / (2 * math.pi) * arc,  # Cho and Saul 2009
    }[activation.name()]


@pytest.mark.parametrize("activation", [Cos(), Quadratic(), Erf(), Relu()], ids=label)
def test_the_mean_square_of_a_network_is_its_kernel(activation):
    w = random(4, 5, seed=4)
    w[1], w[2] = w[0], -1.5 * w[0]
    a = np.asarray([1.0, 2.0, -0.7, 0.4])
    error = error_of(Expression("0"), activation, a, w)
    assert error == pytest.approx(a @ kernel(activation, w @ w.T) @ a, rel=1e-9)


def test_an_erf_network_against_an_erf_committee():
    w, a, r = random(3, 5, seed=5), np.asarray([0.5, -1.0, 0.8]), 2
    both = np.concatenate([w, np.eye(r, 5)])
    signed = np.concatenate([a, -np.ones(r) / r])
    expected = signed @ kernel(Erf(), both @ both.T) @ signed
    assert error_of(Committee(link="erf"), Erf(), a, w) == pytest.approx(expected, rel=1e-10)


def test_a_neuron_of_norm_zero_is_a_constant():
    error = error_of(PhaseRetrieval(), Cos(), [2.0], np.zeros((1, 3)), biases=[0.4])
    constant = 2 * math.cos(0.4)
    assert error == pytest.approx(3 - 2 * constant + constant**2, rel=1e-12)


def test_the_order_of_neurons_and_of_directions_does_not_matter():
    w, a, b = random(4, 6, seed=6), random(4, seed=7), random(4, seed=8)
    order = [2, 0, 3, 1]
    target = Parity()
    error = error_of(target, Tanh(), a, w, biases=b)
    permuted = error_of(target, Tanh(), a[order], w[order], biases=b[order])
    swapped = error_of(target, Tanh(), a, w, biases=b, subspace=np.eye(2, 6)[::-1])
    assert (permuted, swapped) == pytest.approx((error, error), rel=1e-12)


def test_the_signs_of_directions_and_of_neurons_do_not_matter_where_they_cancel():
    w, a, b = random(3, 5, seed=9), random(3, seed=10), random(3, seed=11)
    signs = np.asarray([-1.0, 1.0, -1.0])
    u = np.eye(2, 5)
    # sign(h1 h2) is even in both directions together, and odd in each.
    error = error_of(Parity(), Tanh(), a, w, biases=b)
    both = error_of(Parity(), Tanh(), a, w, biases=b, subspace=-u)
    one = error_of(Parity(), Tanh(), -a, w, biases=b, subspace=u * [[-1], [1]])
    # tanh is odd: (a, w, b) of a neuron may change sign; cos is even: (w, b) may.
    odd = error_of(Parity(), Tanh(), signs * a, signs[:, None] * w, biases=signs * b)
    assert (both, one, odd) == pytest.approx((error,) * 3, rel=1e-12)
    assert error_of(Parity(), Tanh(), -a, w, biases=b) != pytest.approx(error, rel=1e-3)
    even = error_of(Parity(), Cos(), a, signs[:, None] * w, biases=signs * b)
    assert even == pytest.approx(error_of(Parity(), Cos(), a, w, biases=b), rel=1e-12)


def test_a_rotation_within_the_subspace_does_not_matter_to_a_radial_target():
    w, a, b = random(3, 5, seed=12), random(3, seed=13), random(3, seed=14)
    target, angle = Expression("h1**2 + h2**2"), 0.7
    turn = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    turned = error_of(target, Relu(), a, w, biases=b, subspace=turn @ np.eye(2, 5))
    assert turned == pytest.approx(error_of(target, Relu(), a, w, biases=b), rel=1e-10)


@pytest.mark.parametrize("field", ["readout", "biases", "overlap", "gram"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cell_that_is_not_finite_does_not_touch_the_others(field, value):
    w = random(3, 2, 4, seed=15)
    cells = {
        "readout": random(3, 2, seed=16),
        "biases": random(3, 2, seed=17),
        "overlap": w[:, :, :2].copy(),
        "gram": w @ w.swapaxes(1, 2),
    }
    expected = population_error(Committee(), Cos(), **cells)
    cells[field][1].flat[0] = value
    error = population_error(Committee(), Cos(), **cells)
    assert np.isnan(error[1])
    np.testing.assert_allclose(error[[0, 2]], expected[[0, 2]], rtol=1e-12)
    for i in (0, 2):
        alone = population_error(Committee(), Cos(), **{k: v[[i]] for k, v in cells.items()})
        np.testing.assert_allclose(alone[0], error[i], rtol=1e-12)


def test_cos_best_is_the_cosine_of_the_neuron_nearest_to_the_subspace():
    w, u = random(2, 3, 4, 7, seed=18), ortho_group(7, seed=19).rvs()[:2]
    projected = w @ u.T @ u
    expected = (np.linalg.norm(projected, axis=-1) / np.linalg.norm(w, axis=-1)).max(axis=-1)
    best = cos_best(w @ u.T, np.linalg.norm(w, axis=-1))
    assert best.shape == (2, 3)
    np.testing.assert_allclose(best, expected, rtol=1e-12)
    assert cos_best(w[1, 2] @ u.T, np.linalg.norm(w[1, 2], axis=-1)) == pytest.approx(best[1, 2])


def test_cos_best_does_not_see_lengths_of_neurons_or_rotations_of_the_subspace():
    w, u = random(1, 5, 7, seed=20), ortho_group(7, seed=21).rvs()[:3]
    best = cos_best(w @ u.T, np.linalg.norm(w, axis=-1))
    scaled = w * np.asarray([1e-6, -3.0, 1.0, 1e4, 0.2])[:, None]
    turned = ortho_group(3, seed=22).rvs() @ u
    for v, s in ((scaled, u), (w, turned)):
        np.testing.assert_allclose(cos_best(v @ s.T, np.linalg.norm(v, axis=-1)), best, rtol=1e-12)


def test_a_neuron_that_vanished_has_found_nothing():
    overlap = np.array([[0.0, 0.0], [0.3, 0.4]])
    assert cos_best(overlap, np.array([0.0, 1.0])) == pytest.approx(0.5)
    assert cos_best(overlap[:1], np.array([0.0])) == 0
    assert np.isnan(cos_best(overlap, np.array([np.nan, 1.0])))


def test_cos_best_stays_within_zero_and_one():
    u = ortho_group(50, seed=23).rvs()
    inside, outside = random(1000, 1, 2, seed=24) @ u[:2], random(1, 10, 48, seed=25) @ u[2:]
    ones = cos_best(inside @ u[:2].T, np.linalg.norm(inside, axis=-1))
    assert ((ones > 1 - 1e-12) & (ones <= 1)).all()
    assert cos_best(outside @ u[:2].T, np.linalg.norm(outside, axis=-1)) < 1e-12


def test_cos_best_of_a_neuron_that_is_not_finite_is_nan():
    overlap, lengths = np.ones((3, 2, 1)), 2 * np.ones((3, 2))
    overlap[0, 0], lengths[0, 0], overlap[1, 1] = math.nan, math.nan, math.inf
    lengths[1, 1] = math.inf
    np.testing.assert_array_equal(cos_best(overlap, lengths), [math.nan, math.nan, 0.5])


@pytest.mark.parametrize(("m", "r"), [(1, 1), (4, 2), (2, 4), (3, 3)])
def test_principal_cosines_are_those_of_the_angles_between_the_spans(m, r):
    w, u = random(m, 8, seed=26), ortho_group(8, seed=27).rvs()[:r]
    expected = np.sort(np.cos(scipy.linalg.subspace_angles(w.T, u.T)))[::-1]
    np.testing.assert_allclose(
        principal_cosines(w @ u.T, w @ w.T, tolerance=1e-12), expected, rtol=1e-9
    )
    mixed = random(m, m, seed=28) @ w
    turned = np.atleast_2d(scipy.linalg.qr(random(r, r, seed=29))[0]) @ u
    for v, s in ((mixed, u), (w, turned), (1e-5 * w, u)):
        np.testing.assert_allclose(
            principal_cosines(v @ s.T, v @ v.T, tolerance=1e-12), expected, rtol=1e-9
        )


def test_principal_cosines_count_twin_neurons_once():
    w, u = random(2, 8, seed=30), ortho_group(8, seed=31).rvs()[:3]
    twins = np.concatenate([w, w, -2 * w[:1]])
    cosines = principal_cosines(twins @ u.T, twins @ twins.T)
    np.testing.assert_allclose(cosines[:2], principal_cosines(w @ u.T, w @ w.T), rtol=1e-9)
    np.testing.assert_allclose(cosines[2:], [0], atol=1e-12)


def test_principal_cosines_lose_a_direction_below_the_tolerance():
    """W = diag(1, s) U: both directions are found for s > √tolerance, one for less."""
    for s, smallest in ((0.011, 1.0), (0.009, 0.0)):
        w = np.diag([1, s, 0.0])[:2]
        batch = np.stack([w, np.full_like(w, np.nan)])
        u = np.eye(2, 3)
        cosines = principal_cosines(batch @ u.T, batch @ np.swapaxes(batch, 1, 2))
        np.testing.assert_allclose(cosines[0], [1, smallest], atol=1e-12)
        assert np.isnan(cosines[1]).all()


@pytest.mark.parametrize("activation", [Quadratic(), Tanh()], ids=str)
def test_an_intercept_shifts_the_network(activation):
    """E(f + c − g)² against the same f with a constant neuron: erf at a huge bias is 1."""
    target = Polynomial(terms=[[1.0, [2, 0]], [0.5, [0, 1]], [0.3, [0, 0]]])
    w, a, c = random(3, 6, seed=3), random(3, seed=4), -1.7
    cell = {"readout": a[None], "biases": np.zeros((1, 3)), "overlap": (w @ np.eye(2, 6).T)[None]}
    cell["gram"] = (w @ w.T)[None]
    error = population_error(target, activation, intercept=np.array([c]), **cell)
    shifted = Polynomial(terms=[*target.terms, [-c, [0, 0]]])
    np.testing.assert_allclose(error, population_error(shifted, activation, **cell), rtol=1e-9)


def moment(k):
    """E z^k for z ~ N(0, 1): (k − 1)!! for an even k."""
    return 0 if k % 2 else math.prod(range(1, k, 2))


@pytest.mark.parametrize("nodes", [64, 128, 320])
def test_the_line_rule_is_exact_for_powers_kinks_and_jumps(nodes):
    points, weights = line_rule(nodes)
    assert points.shape == weights.shape == (nodes,)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    # What is left out beyond |z| = 9 is 2e-11 of E z^8, and less below.
    for k in range(9):
        assert weights @ points**k == pytest.approx(moment(k), rel=1e-10, abs=1e-10)
    assert weights @ np.abs(points) == pytest.approx(math.sqrt(2 / math.pi), abs=1e-14)
    assert weights @ np.sign(points) == pytest.approx(0, abs=1e-14)
    assert weights @ np.maximum(points, 0) ** 3 == pytest.approx(math.sqrt(2 / math.pi), abs=1e-12)


def test_the_finest_line_rule_integrates_a_steep_function():
    points, weights = line_rule(320)
    expected, error = quad(lambda z: 2 * np.tanh(5 * z) ** 2 * norm.pdf(z), 0, 12, epsabs=1e-12)
    assert error < 1e-11
    assert weights @ np.tanh(5 * points) ** 2 == pytest.approx(expected, abs=1e-11)


# E f(h) for a polynomial, a kink and a jump in every direction, and a smooth bounded function.
# Above rank 3 the nodes thin out: errors under 1e-3 are asked of every rule.
@pytest.mark.parametrize(
    ("rank", "tolerance"),
    [(1, 1e-11), (2, 1e-11), (3, 1e-11), (4, 1e-3), (5, 1e-3), (6, 1e-3), (7, 1e-3)],
)
def test_the_rule_in_several_directions(rank, tolerance):
    points, weights = rule(rank)
    assert points.shape == (len(weights), rank)
    assert weights.sum() == pytest.approx(1, abs=1e-12)

    def mean(values):
        return weights @ values

    second = np.einsum("n,ni,nj->ij", weights, points, points)
    np.testing.assert_allclose(second, np.eye(rank), atol=tolerance)
    np.testing.assert_allclose(mean(points**4), 3, rtol=tolerance)
    kink = mean(np.abs(points).prod(axis=1))
    assert kink == pytest.approx((2 / math.pi) ** (rank / 2), abs=tolerance)
    jump = mean(np.sign(points).prod(axis=1) * points.prod(axis=1))
    assert jump == pytest.approx((2 / math.pi) ** (rank / 2), abs=tolerance)
    assert mean((points > 0).all(axis=1)) == pytest.approx(0.5**rank, abs=tolerance)
    wave = mean(np.cos(points.sum(axis=1)))
    assert wave == pytest.approx(math.exp(-rank / 2), abs=tolerance)


def test_the_rule_without_a_direction_is_one_point():
    points, weights = rule(0)
    assert points.shape == (1, 0)
    assert weights.tolist() == [1]


@pytest.mark.parametrize("rank", [2, 3])
def test_exact_weights_integrate_polynomials_and_leave_the_rest_alone(rank):
    points, weights = scattered(rank, 2**12, seed=1)
    changed = exact_weights(points, weights, degree=8)
    means = [changed @ f for k in range(9) for f in hermite_functions(points, k)]
    np.testing.assert_allclose(means, [1.0, *[0.0] * (len(means) - 1)], atol=1e-12)
    smooth = lambda h: np.exp(0.3 * h.sum(axis=1))  # noqa: E731
    nodes, exact = gauss_hermite(rank, 20)
    assert changed @ smooth(points) == pytest.approx(exact @ smooth(nodes), rel=1e-6)
    few = exact_weights(points[:64], np.full(64, 1 / 64), degree=8)  # no more than a quarter
    assert few @ points[:64, 0] ** 2 == pytest.approx(1)


def test_the_error_of_a_belief_in_a_target_with_heavy_tails():
    """He4(h1) + sign(h1h2h3): with |M11|² = q and no idea of the others, 24(1 - q⁴) + 1 is left."""
    target, overlaps = GrandStaircase(), np.array([0.0, 0.5, 0.9, 1 - 1e-6])
    q = np.stack([np.diag([one, 1e-6, 1e-6]) for one in overlaps])
    belief = {"overlap": q, "gram": q, "covariance": np.eye(3) - q}
    error = bayes_error(channel_of(target), target, **belief)
    np.testing.assert_allclose(error, 24 * (1 - overlaps**4) + 1, rtol=2e-4)
