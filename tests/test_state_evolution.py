"""State evolution: fixed points against independent integrals, branches, jumps, thresholds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize
from scipy.stats import norm

from mirage.channels.labels import LabelTables
from mirage.channels.registry import channel_of
from mirage.channels.signs import SignProduct
from mirage.targets import (
    Expression,
    FlippedParity,
    Hermite,
    PhaseRetrieval,
    Poisson,
    SingleIndex,
    Staircase,
)
from mirage.theory.overlap_curves import curve, found_from
from mirage.theory.settling import cleaned, settled
from mirage.theory.state_evolution import (
    INFORMED,
    UNINFORMED,
    averages,
    fixed_point,
    growth,
    mapped,
    stability,
    start_of,
    threshold,
    trajectory,
    update,
)
from mirage.theory.weak_recovery import staircase

# Averages over many nodes, again and again: what is not optimised is slow.
pytestmark = pytest.mark.optimised

PARITY, TRIPLE = SignProduct(2), SignProduct(3)
# MATH.md: from two deterministic quadratures that agree.
PARITY_TABLE = {2.4: 0.0, 2.5: 0.01336, 2.6: 0.05605, 3.0: 0.24271, 4.0: 0.64384}
SQUARE_TABLE = {0.6: 0.05182, 0.8: 0.21623, 1.0: 0.4763, 1.2: 1.0}


@pytest.fixture
def square():
    return channel_of(PhaseRetrieval())


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def plain(channel, alpha, q, *, steps):
    """The overlap after so many steps of the bare map from q I."""
    with jax.enable_x64(True):
        overlap, at = jnp.asarray(q * np.eye(channel.rank)), jnp.asarray(alpha)
        for _ in range(steps):
            overlap, _ = mapped(channel, overlap, at)
    return np.asarray(overlap)


def probit_step(q, *, alpha, inner_noise):
    """The map for a label sign(h + √Δ ξ), by adaptive quadrature."""
    variance = 1 - q + inner_noise

    def integrand(x):
        z = np.sqrt(q / variance) * x
        log_ratio = 2 * norm.logpdf(z) - norm.logcdf(z) - norm.logcdf(-z)
        return norm.pdf(x) * np.exp(log_ratio) / variance

    value, _ = integrate.quad(integrand, -12, 12, epsabs=1e-13, epsrel=1e-12, limit=400)
    return alpha * value / (1 + alpha * value)


def probit(alpha, inner_noise):
    def excess(q):
        return probit_step(q, alpha=alpha, inner_noise=inner_noise) - q

    return optimize.brentq(excess, 0.0, 1 - 1e-9, xtol=1e-13)


@pytest.mark.parametrize("q", [0.01, 0.5, 0.95])
def test_parity_has_the_fixed_points_of_the_table(q):
    found = curve(PARITY, np.array(list(PARITY_TABLE)), start=q * np.eye(2))
    expected = np.array(list(PARITY_TABLE.values()))[:, None, None] * np.eye(2)
    np.testing.assert_allclose(found.overlap, expected, atol=1e-5)
    assert found.converged.all()


def test_phase_retrieval_has_the_fixed_points_of_the_table(square):
    found = curve(square, np.array(list(SQUARE_TABLE)))
    np.testing.assert_allclose(found.overlap[:, 0, 0], list(SQUARE_TABLE.values()), atol=5e-5)


@pytest.mark.parametrize(("alpha", "inner_noise"), [(0.3, 0.5), (2.0, 0.5), (20.0, 0.1)])
def test_probit_against_adaptive_quadrature(alpha, inner_noise):
    channel = SignProduct(1, inner_noise=inner_noise)
    for branch in ("uninformed", "informed"):
        found = settled(channel, alpha, start_of(branch, 1))
        assert found.converged
        np.testing.assert_allclose(found.overlap[0, 0], probit(alpha, inner_noise), atol=1e-8)


def test_a_rank_one_overlap_stays_one():
    for other in (1.0, -1.0):
        line = np.outer([1.0, other], [1.0, other])
        found = settled(PARITY, 3.0, 0.2 * line)
        np.testing.assert_allclose(found.overlap, 0.11328 * line, atol=1e-5)


def test_flips_lower_the_overlap():
    q = [settled(SignProduct(2, flip=f), 6.0, start_of("informed", 2)).overlap for f in (0.0, 0.1)]
    clean = settled(PARITY, 6.0, start_of("informed", 2)).overlap
    np.testing.assert_allclose(q[0], clean, atol=1e-9)
    assert (np.diag(q[1]) < np.diag(clean) - 0.1).all()
    assert (np.diag(q[1]) > 0.1).all()


def test_trajectory_is_the_map_step_by_step(x64):
    channel = SignProduct(1, inner_noise=0.5)
    start = jnp.asarray([[0.01]])
    path = np.asarray(trajectory(channel, alpha=1.5, start=start, steps=60))
    assert path.shape == (61, 1, 1)
    step, repeated = jax.jit(lambda q: update(channel, q, 1.5)), [start]
    for _ in range(60):
        repeated.append(step(repeated[-1]))
    np.testing.assert_allclose(path, np.stack(list(map(np.asarray, repeated))), rtol=1e-12)
    np.testing.assert_allclose(path[-1, 0, 0], probit(1.5, 0.5), atol=1e-6)
    np.testing.assert_allclose(path[1, 0, 0], probit_step(0.01, alpha=1.5, inner_noise=0.5))


@pytest.mark.slow
def test_derivatives_of_the_fixed_point(x64):
    def overlap(alpha, inner_noise):
        channel = SignProduct(1, inner_noise=inner_noise)
        return fixed_point(channel, alpha=alpha, start=jnp.asarray([[0.5]])).overlap[0, 0]

    value, slopes = jax.jit(jax.value_and_grad(overlap, argnums=(0, 1)))(2.0, 0.5)
    np.testing.assert_allclose(value, probit(2.0, 0.5), atol=1e-8)
    in_alpha = (probit(2.001, 0.5) - probit(1.999, 0.5)) / 0.002
    in_noise = (probit(2.0, 0.501) - probit(2.0, 0.499)) / 0.002
    np.testing.assert_allclose(slopes, (in_alpha, in_noise), rtol=1e-5)


@pytest.mark.slow
def test_derivatives_of_the_fixed_point_forwards(x64):
    def overlap(alpha):
        channel = SignProduct(1, inner_noise=0.5)
        return fixed_point(channel, alpha=alpha, start=jnp.asarray([[0.5]])).overlap[0, 0]

    slope = (probit(2.001, 0.5) - probit(1.999, 0.5)) / 0.002
    np.testing.assert_allclose(jax.jit(jax.jacfwd(overlap))(2.0), slope, rtol=1e-5)


@pytest.mark.slow
def test_label_noise_has_a_derivative_too(x64):
    def overlap(noise):
        channel = SignProduct(1, noisy=True, noise=noise)
        return fixed_point(channel, alpha=2.0, start=jnp.asarray([[0.5]])).overlap[0, 0]

    both = jax.jit(jax.value_and_grad(overlap))
    (above, _), (_, slope), (below, _) = both(0.301), both(0.3), both(0.299)
    np.testing.assert_allclose(slope, (above - below) / 0.002, rtol=1e-5)
    assert slope < 0


@pytest.mark.slow
def test_derivative_of_the_parity_fixed_point(x64):
    def overlap(alpha):
        return fixed_point(PARITY, alpha=alpha, start=0.3 * jnp.eye(2)).overlap[0, 0]

    value, slope = jax.jit(jax.value_and_grad(overlap))(3.0)
    ends = [settled(PARITY, a, 0.3 * np.eye(2)).overlap[0, 0] for a in (2.999, 3.001)]
    np.testing.assert_allclose(value, sum(ends) / 2, atol=1e-6)
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / 0.002, rtol=1e-4)


def test_the_fixed_point_is_that_of_the_bare_map():
    for channel, alpha, q in ((PARITY, 3.0, 0.3), (SignProduct(1, inner_noise=0.5), 2.0, 0.01)):
        bare = plain(channel, alpha, q, steps=150)
        found = settled(channel, alpha, q * np.eye(channel.rank)).overlap
        np.testing.assert_allclose(found, bare, atol=1e-6)


def test_settled_says_whether_it_settled_and_what_it_found():
    found = settled(PARITY, 3.0, start_of("uninformed", 2))
    square, evidence = averages(PARITY, found.overlap[None])
    np.testing.assert_allclose((found.square, found.log_evidence), (*square, *evidence), atol=1e-7)
    assert found.converged
    assert not settled(PARITY, 3.0, start_of("uninformed", 2), max_steps=3).converged


def test_averages_that_are_not_finite_are_said_not_to_converge():
    found = settled(SignProduct(1, inner_noise=np.nan), 3.0, start_of("uninformed", 1))
    assert not found.converged
    assert np.isfinite(found.overlap).all()


@pytest.mark.parametrize("branch", ["uninformed", "informed"])
def test_a_curve_is_its_points_one_by_one(branch):
    alphas = np.array([3.2, 2.2, 4.0, 2.7])
    found = curve(PARITY, alphas, start=branch)
    points = [settled(PARITY, alpha, start_of(branch, 2)) for alpha in alphas]
    np.testing.assert_allclose(found.overlap, [p.overlap for p in points], atol=1e-6)
    np.testing.assert_allclose(found.square, [p.square for p in points], atol=1e-6)
    np.testing.assert_allclose(found.log_evidence, [p.log_evidence for p in points], atol=1e-6)
    np.testing.assert_array_equal(found.alpha, alphas)
    assert found.jumps == []


def test_branches_are_ordered_and_rise(square):
    for channel, alphas in (
        (PARITY, np.linspace(2, 5, 7)),
        (square, np.linspace(0.42, 1.32, 10)),
        (SignProduct(1, inner_noise=0.5), np.linspace(0.1, 5, 6)),
    ):
        low, high = (
            curve(channel, alphas, start=s, jumps=False) for s in ("uninformed", "informed")
        )
        assert low.converged.all()
        assert high.converged.all()
        assert np.linalg.eigvalsh(high.overlap - low.overlap).min() > -1e-5
        for found in (low, high):
            assert np.linalg.eigvalsh(np.diff(found.overlap, axis=0)).min() > -1e-5


def test_the_jump_of_phase_retrieval_is_between_its_ends(square):
    found = curve(square, np.linspace(0.8, 1.3, 6), tolerance=2e-3)
    (jump,) = found.jumps
    assert 0 < jump.high - jump.low <= 2e-3
    assert jump.after == 1.0
    assert plain(square, jump.low, UNINFORMED, steps=800) < 0.9
    assert plain(square, jump.high, UNINFORMED, steps=800) > 1 - 1e-6


@pytest.mark.slow
def test_the_informed_jump_of_a_triple_product_is_between_its_ends():
    found = curve(TRIPLE, np.array([8.5, 9.0]), start="informed", tolerance=0.07)
    (jump,) = found.jumps
    assert 0 < jump.high - jump.low <= 0.07
    np.testing.assert_array_equal(jump.before, 0.0)
    assert np.diag(jump.after).min() > 0.7
    # Where the branch has just ended the bare map lingers there for hundreds of steps.
    assert np.diag(plain(TRIPLE, jump.low - 0.1, INFORMED, steps=150)).max() < 0.3
    assert np.diag(plain(TRIPLE, jump.high, INFORMED, steps=100)).min() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [8.75, 9.0])
def test_acceleration_stays_on_a_branch_that_is_about_to_end(alpha):
    found = settled(TRIPLE, alpha, start_of("informed", 3)).overlap
    bare = np.diag(plain(TRIPLE, alpha, INFORMED, steps=60))
    assert (np.diag(found) > 0.8).all()
    assert (np.diag(found) < bare + 1e-6).all()


def test_a_given_start_has_no_jumps(square):
    found = curve(square, np.array([0.9, 1.2]), start=np.array([[0.5]]))
    assert found.jumps == []
    np.testing.assert_allclose(found.overlap[:, 0, 0], [0.35952, 1.0], atol=0.05)


@pytest.mark.parametrize(
    ("channel", "alpha_c"),
    [
        (PARITY, np.pi**2 / 4),
        (SignProduct(2, flip=0.1), np.pi**2 / 4 / 0.64),
        (SignProduct(1), 0.0),
        (TRIPLE, np.inf),
    ],
    ids=["parity", "flipped", "sign", "triple"],
)
def test_weak_recovery_thresholds(channel, alpha_c):
    np.testing.assert_allclose(threshold(channel), alpha_c, rtol=1e-8)


def test_weak_recovery_threshold_of_phase_retrieval(square):
    np.testing.assert_allclose(threshold(square), 0.5, rtol=1e-5)
    assert threshold(channel_of(SingleIndex())) == 0.0


def test_zero_loses_its_stability_at_the_threshold():
    zero = np.zeros((2, 2))
    np.testing.assert_allclose(stability(PARITY, zero), 4 / np.pi**2, rtol=1e-8)
    below, above = (settled(PARITY, a, 0.01 * np.eye(2)).overlap for a in (2.46, 2.48))
    np.testing.assert_array_equal(below, zero)
    assert np.diag(above).min() > 1e-3


@pytest.mark.parametrize("q", [0.0, 0.3, 0.9])
def test_growth_of_a_congruence_is_the_square_of_its_radius(q):
    a = np.array([[0.4, 0.7, 0.0], [-0.2, 0.5, 0.3], [0.1, 0.0, -0.8]])
    radius = np.abs(np.linalg.eigvals(a)).max()
    overlap = np.diag([q, 0.0, q / 2])
    np.testing.assert_allclose(growth(lambda m: a @ m @ a.T, overlap), radius**2, rtol=1e-8)


def test_much_data_leaves_no_error():
    found = curve(PARITY, np.array([5.0, 20.0, 80.0, 320.0]), start="informed", jumps=False)
    error = 1 - found.square
    assert (np.diff(error) < 0).all()
    assert error[-1] < 0.01
    np.testing.assert_allclose(error[-1] / error[-2], 1 / 4, rtol=0.05)


def test_what_is_not_on_the_diagonal_counts_for_channels_of_any_overlap_alone():
    tilted = 0.4 * np.eye(3) + 0.2 * (np.ones((3, 3)) - np.eye(3))
    with jax.enable_x64(True):
        image, straight = (
            np.asarray(mapped(TRIPLE, jnp.asarray(q), jnp.asarray(5.0))[0])
            for q in (tilted, 0.4 * np.eye(3))
        )
    np.testing.assert_allclose(image, straight, atol=1e-12)
    np.testing.assert_array_equal(image, np.diag(np.diag(image)))


@pytest.mark.slow
def test_directions_are_found_from_the_threshold_on():
    found = found_from(PARITY, curve(PARITY, np.array([2.0, 2.3, 2.6]), tolerance=1e-3))
    np.testing.assert_allclose(found, np.pi**2 / 4, atol=2e-3)
    none = found_from(PARITY, curve(PARITY, np.array([2.0, 2.3])))
    np.testing.assert_array_equal(none, np.inf)
    at_once = found_from(PARITY, curve(PARITY, np.array([3.0, 4.0])))
    np.testing.assert_array_equal(at_once, 0.0)


@pytest.mark.slow
def test_a_staircase_is_climbed_step_by_step():
    channel = channel_of(Staircase())
    found = found_from(channel, curve(channel, np.array([1.0, 2.2, 2.7]), tolerance=5e-3))
    np.testing.assert_allclose(found, [0.0, np.pi**2 / 4, np.pi**2 / 4], atol=0.01)


@pytest.mark.slow
def test_directions_that_need_others_are_found_later_where_these_are_noisy():
    """h1 + sign(h1 h2 h3) with noise: not from π²/4, as with h1 known, but from 5.3 on."""
    channel = channel_of(Expression("h1 + sign(h1*h2*h3)", noise=0.5))
    with jax.enable_x64(True):
        for alpha, grows in ((5.1, False), (5.5, True)):
            q, at = np.diag([0.8, 0.0, 0.0]), jnp.asarray(alpha)
            for _ in range(8):
                q = np.asarray(mapped(channel, jnp.asarray(q), at)[0])
            little = q + np.diag([0.0, 1e-4, 1e-4])
            image = np.asarray(mapped(channel, jnp.asarray(little), at)[0])
            assert (np.diag(image)[1:] > 1e-4).all() == grows


@pytest.mark.parametrize(
    "target",
    [
        PhaseRetrieval(),
        *(
            pytest.param(target, marks=pytest.mark.slow)
            for target in (
                Poisson(),
                Hermite(terms=((1.0, (4,)),)),
                Staircase(),
                FlippedParity(k=2, flip=0.1),
                Expression("h**2*exp(-h**2/4)", noise=0.1),
            )
        ),
    ],
    ids=str,
)
def test_linear_stability_and_label_moments_agree_on_the_threshold(target):
    (first, *_) = staircase(LabelTables(target))
    np.testing.assert_allclose(threshold(channel_of(target)), first.alpha_c, rtol=0.01)


def test_cleaned_rounds_what_is_all_but_nothing_and_all_but_one():
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    rough = turn @ np.diag([1 - 1e-8, 1e-8]) @ turn.T
    np.testing.assert_allclose(cleaned(rough), np.outer(turn[:, 0], turn[:, 0]), atol=1e-12)
    np.testing.assert_array_equal(cleaned(np.diag([1e-9, -1e-9])), 0.0)
    np.testing.assert_allclose(cleaned(0.5 * np.eye(2)), 0.5 * np.eye(2), atol=1e-15)
