"""Theory: against closed forms, independent quadratures, invariances and published numbers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize
from scipy.stats import norm

from mirage.channels.labels import LabelTables, Sizes, label_bins, label_table, second_moments
from mirage.channels.optimal import best_matrices, optimal
from mirage.channels.preprocessing import (
    Law,
    best_direction,
    best_law,
    bounded_above,
    law,
    law_of,
    slope_of,
)
from mirage.gaussian import (
    contraction,
    expectation,
    hermite_coefficients,
    hermite_functions,
    multi_indices,
)
from mirage.losses import Huber, LogCosh, Mse, Preprocessed, PseudoHuber
from mirage.targets import Committee, Expression, GrandStaircase, Hermite, NoisySign, PhaseRetrieval
from mirage.theory.exponents import (
    exponent,
    generative_leaps,
    information_leaps,
    leap,
    polynomial_degree,
)
from mirage.theory.loss_design import best_delta, loss_threshold
from mirage.theory.loss_matrix import loss_matrix
from mirage.theory.moments import mean_and_square
from mirage.theory.spectral import bulk_density, predict, threshold
from mirage.theory.weak_recovery import staircase

QUARTER = np.pi**2 / 4
# Small tables, where a per cent does not matter.
SMALL = {
    (0, 1): Sizes(1, 2**15, 256),
    (0, 2): Sizes(1, 2**15, 128),
    (0, 3): Sizes(1, 2**15, 128),
    (1, 1): Sizes(32, 2**10, 32),
    (1, 2): Sizes(32, 2**11, 32),
    (2, 1): Sizes(64, 2**9, 32),
}


def formula(text, **settings):
    return Expression(text, **settings)


def climbed(target, sizes=None):
    return staircase(LabelTables(target, sizes))


def span(directions):
    return directions.T @ directions


# Gaussian expectations


@pytest.mark.parametrize(
    ("function", "rank", "value"),
    [
        (lambda h: np.abs(h[:, 0]), 1, np.sqrt(2 / np.pi)),
        (lambda h: (h[:, 0] > 0.7).astype(float), 1, norm.sf(0.7)),
        (lambda h: h[:, 0] ** 8, 1, 105.0),
        (lambda h: np.maximum(h[:, 0], h[:, 1]), 2, 1 / np.sqrt(np.pi)),
        (lambda h: (h.sum(axis=1) > 1).astype(float), 3, norm.sf(1 / np.sqrt(3))),
        (lambda h: (h**2).sum(axis=1) ** 2, 3, 15.0),
    ],
)
def test_an_expectation_is_its_closed_form_within_its_error(function, rank, value):
    found = expectation(function, rank, count=2**14)
    assert abs(found.value - value) < 6 * found.error + 1e-10
    assert found.error < 1e-3 * value


@pytest.mark.parametrize(("rank", "degree"), [(1, 5), (2, 3), (3, 2)])
def test_hermite_functions_are_orthonormal(rank, degree):
    def products(h):
        values = np.stack(list(hermite_functions(h, degree)), axis=-1)
        return values[:, :, None] * values[:, None]

    found = expectation(products, rank, count=2**15)
    identity = np.eye(len(multi_indices(rank, degree)))
    assert (np.abs(found.value - identity) < 6 * found.error + 1e-9).all()


def test_hermite_coefficients_of_a_product():
    found = hermite_coefficients(lambda h: h[:, 0] * (h[:, 1] ** 2 - 1), 2, 3)
    wanted = {(1, 2): np.sqrt(2)}
    for index, value, error in zip(multi_indices(2, 3), found.value, found.error, strict=True):
        assert abs(value - wanted.get(index, 0.0)) < 6 * error + 1e-9


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 10**6))
def test_a_contraction_turns_with_the_directions(rank, degree, seed):
    """The tensor of f(O h) is that of f with every index turned, so its contraction is O A Oᵀ."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(rank, rank)))[0]
    x, w = np.polynomial.hermite_e.hermegauss(12)
    points = np.stack(np.meshgrid(*[x] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
    weights = np.prod(np.stack(np.meshgrid(*[w / w.sum()] * rank, indexing="ij")), axis=0).ravel()
    coefficients = rng.normal(size=len(multi_indices(rank, degree)))

    def g(h):
        return sum(c * f for c, f in zip(coefficients, hermite_functions(h, degree), strict=True))

    turned = g(points @ turn.T)
    seen = np.array([weights @ (turned * f) for f in hermite_functions(points, degree)])
    first = contraction(coefficients, coefficients, rank, degree)
    second = contraction(seen, seen, rank, degree)
    np.testing.assert_allclose(turn.T @ first @ turn, second, atol=1e-9)
    assert np.trace(first) == pytest.approx(coefficients @ coefficients)


# Weak recovery and the staircase


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        (formula("h**2"), [("easy", 0.5, 1.0)]),
        (PhaseRetrieval(power=1.0), [("easy", 0.5)]),
        (formula("h**4"), [("easy", 0.5)]),
        (formula("sign(h1*h2)"), [("easy", QUARTER)]),
        (formula("h1**2 + h2**2"), [("easy", 1.0)]),
        (formula("He3(h)"), [("trivial", 0.0)]),
        (formula("tanh(h)"), [("trivial", 0.0)]),
        (formula("relu(h)"), [("trivial", 0.0)]),
        (formula("sign(h1*h2*h3)"), [("hard", np.inf)]),
        (formula("h**2*exp(-h**2)"), [("hard", np.inf)]),
        (formula("exp(h**2)"), [("easy", 0.5)]),
        (formula("(h1 + h2)**2"), [("easy", 0.5)]),
        (formula("h1**2 + 0.5*h2**2"), [("easy", None), ("easy", 0.5)]),
        pytest.param(
            formula("h1**2 + sign(h1*h2*h3)"),
            [("easy", 0.575, 1.0, 0, 0), ("easy", QUARTER, 0, 1.0, 1.0)],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            GrandStaircase(),
            [("easy", None, 1.0, 0, 0), ("easy", QUARTER, 0, 1.0, 1.0)],
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: getattr(value, "expr", None),
)
def test_the_staircase_of_a_target(target, steps):
    """The kind of each step, where it is, and the directions it finds, as far as they are said."""
    found = climbed(target)
    assert [step.kind for step in found] == [kind for kind, *_ in steps]
    for step, (_, alpha, *directions) in zip(found, steps, strict=True):
        if directions:
            np.testing.assert_allclose(span(step.directions), np.diag(directions), atol=1e-6)
        if alpha is not None and np.isfinite(alpha):
            assert step.alpha_c == pytest.approx(alpha, rel=0.01)
            assert abs(step.alpha_c - alpha) <= 6 * step.error + 1e-3 * alpha
        elif alpha is not None:
            assert np.isinf(step.alpha_c)
            assert step.least > 100
    assert [step.lower_bound for step in found] == [place > 0 for place in range(len(found))]


def branches_of_a_double_well():
    """1/alpha_c of h⁴ − h² by an adaptive rule, its level sets {±h1, ±h2} solved by hand."""

    def conditional(h):
        y = h**4 - h**2
        squares = [(1 + sign * np.sqrt(1 + 4 * y)) / 2 for sign in (1, -1)]
        roots = [np.sqrt(s) for s in squares if s > 0]
        weights = [norm.pdf(x) / abs(4 * x**3 - 2 * x) for x in roots]
        return sum(w * (x**2 - 1) for w, x in zip(weights, roots, strict=True)) / sum(weights)

    points = [1 / np.sqrt(2), 1.0]
    whole = integrate.quad(
        lambda h: 2 * norm.pdf(h) * conditional(h) ** 2, 0, 9, points=points, limit=400
    )
    return whole[0]


def noisy_square(noise):
    """1/alpha_c of h² + √Δ ξ by nested adaptive rules."""

    def moments(y):
        def weight(h):
            return 2 * norm.pdf(h) * norm.pdf(y - h**2, scale=np.sqrt(noise))

        centre = np.sqrt(max(y, 0))
        rule = {"points": [centre], "limit": 200, "epsabs": 1e-7, "epsrel": 1e-6}
        p = integrate.quad(weight, 0, 8, **rule)[0]
        g = integrate.quad(lambda h: (h**2 - 1) * weight(h), 0, 8, **rule)[0]
        return g**2 / p if p > 1e-12 else 0.0

    ends = -5 * np.sqrt(noise), 40
    return integrate.quad(moments, *ends, limit=200, points=[0, 1, 4], epsrel=1e-5)[0]


def slab():
    """1/alpha_c of sign(|h| − 1), in closed form."""
    inside = 2 * norm.cdf(1) - 1
    moment = -2 * norm.pdf(1)
    return moment**2 / inside + moment**2 / (1 - inside)


@pytest.mark.parametrize(
    ("target", "inverse"),
    [
        (formula("h**4 - h**2"), branches_of_a_double_well),
        pytest.param(formula("h**2", noise=0.3), lambda: noisy_square(0.3), marks=pytest.mark.slow),
        (formula("sign(abs(h) - 1)"), slab),
    ],
    ids=["double_well", "noise", "slab"],
)
def test_alpha_c_is_that_of_an_independent_rule(target, inverse):
    (step,) = climbed(target)
    assert step.alpha_c == pytest.approx(1 / inverse(), rel=0.004)
    assert step.error < 0.005 * step.alpha_c


@pytest.mark.slow
def test_turning_or_relabelling_directions_changes_nothing():
    plain = climbed(formula("He4(h1) + h2**2*h1**2"))
    swapped = climbed(formula("He4(h2) + h1**2*h2**2"))
    turned = climbed(formula("He4(0.6*h1 + 0.8*h2) + (0.8*h1 - 0.6*h2)**2*(0.6*h1 + 0.8*h2)**2"))
    for other in (swapped, turned):
        assert [s.kind for s in other] == [s.kind for s in plain]
        for a, b in zip(plain, other, strict=True):
            assert abs(a.alpha_c - b.alpha_c) < 6 * np.hypot(a.error, b.error) + 1e-9
    u = np.array([0.6, 0.8])
    if len(plain[0].directions) == 1:
        np.testing.assert_allclose(span(turned[0].directions), np.outer(u, u), atol=0.02)


@pytest.mark.slow
@pytest.mark.optimised
def test_noise_never_lowers_alpha_c():
    steps = [climbed(formula("h1**2 - 0.3*h2**2", noise=noise))[0] for noise in (0.0, 0.1, 1.0)]
    for less, more in itertools.pairwise(steps):
        assert more.alpha_c > less.alpha_c - 5 * np.hypot(less.error, more.error)
    assert steps[2].alpha_c > 1.2 * steps[0].alpha_c


def test_a_target_that_depends_on_nothing_has_no_steps():
    assert climbed(formula("3.0 + 0*h1*h2"), SMALL) == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (formula("1/relu(h)"), "not finite for 0.5 of all h"),
        (formula("h1*h2*h3*h4*h5"), "rank 5; label integrals go up to rank 4"),
    ],
)
def test_what_cannot_be_integrated_is_refused(target, message):
    with pytest.raises(ValueError, match=message):
        climbed(target)


# Exponents


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("target", "information", "generative"),
    [
        (formula("h**2"), [2], [2]),
        (formula("He3(h)"), [3], [1]),
        (formula("tanh(h)"), [1], [1]),
        (formula("h**2*exp(-h**2)"), [4], [4]),
        (formula("sign(h1*h2)"), [2], [2]),
        (Hermite(), [4], [2]),
        (formula("h1 + h1*h2"), [1, 1], [1, 1]),
        (formula("h1*h2*h3"), [3], [2]),
        pytest.param(formula("sign(h1*h2*h3)"), [3], [3], marks=pytest.mark.slow),
        pytest.param(GrandStaircase(), [3], [2, 2], marks=pytest.mark.slow),
        pytest.param(formula("h1**2 + sign(h1*h2*h3)"), [2, 2], [2, 2], marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "expr", None),
)
def test_exponents_of_a_target(target, information, generative):
    leaps = information_leaps(target)
    assert [step.degree for step in leaps] == information
    assert exponent(leaps) == information[0]
    assert leap(leaps) == max(information)
    if generative == [1, 1]:  # all directions at once, or one after the other
        assert exponent(generative_leaps(LabelTables(target, SMALL))) == 1
    else:
        steps = generative_leaps(LabelTables(target))
        assert [step.degree for step in steps] == generative


@pytest.mark.parametrize(
    ("text", "degree"),
    [
        ("h**20", 20),
        ("h**21", None),
        ("He2(h2) - 3*h1**5*h3**2 + h1", 7),  # no two directions alike
        ("h1*h2**3*h4**2 + h3", 6),
        ("sign(h1*h2*h3)", None),
        ("h1**2*h2 + 1e-3*tanh(h3)", None),
    ],
)
def test_the_degree_of_a_polynomial_is_its_own(text, degree):
    assert polynomial_degree(formula(text)) == degree


def test_exponents_of_polynomials_are_exact_and_others_state_a_tolerance():
    assert all(step.tolerance == 0 for step in information_leaps(formula("He3(h1)*He2(h2)")))
    assert information_leaps(formula("He3(h1)*He2(h2)"))[0].degree == 5
    assert 0 < information_leaps(formula("sign(h1 + 0.3)"))[0].tolerance < 1e-4


def test_a_degree_above_all_that_are_looked_at_is_undecided():
    """E[cos(40 h) He_k(h)] is of order e^{−800}, and all else vanishes by symmetry."""
    (step,) = information_leaps(formula("cos(40*h)"))
    assert step.degree is None
    assert exponent([step]) is None
    assert leap([step]) is None


# Losses


def test_the_loss_matrix_of_the_square_loss_is_minus_the_hessian():
    bins = label_bins(label_table(formula("h1**2 + 0.5*h2**2 + 0.3*h1*h2")))
    found = loss_matrix(law_of(Mse(), bins))
    np.testing.assert_allclose(found.matrix, -np.array([[2, 0.3], [0.3, 1]]), atol=0.01)
    assert found.rank == 2
    values = np.abs(np.linalg.eigvalsh([[2, 0.3], [0.3, 1]]))
    assert found.condition_number == pytest.approx(values.max() / values.min(), rel=0.01)


def test_the_loss_matrix_of_huber_is_an_integral():
    bins = label_bins(label_table(formula("h**2 - 1")))
    found = loss_matrix(law_of(Huber(delta=0.7), bins))
    wanted = integrate.quad(
        lambda h: -2 * np.clip(h**2 - 1, -0.7, 0.7) * (h**2 - 1) * norm.pdf(h),
        0,
        9,
        points=[np.sqrt(0.3), np.sqrt(1.7)],
    )[0]
    assert found.matrix[0, 0] == pytest.approx(wanted, abs=1e-4)


def test_a_loss_that_sees_nothing_has_rank_zero():
    found = loss_matrix(law_of(Mse(), label_bins(label_table(Hermite()))))
    assert found.rank == 0
    assert np.isinf(found.condition_number)


@pytest.mark.parametrize(
    ("text", "loss", "bounded"),
    [
        ("h**2", Mse(), False),
        ("h**2", Huber(), True),
        ("1 - h**2", Mse(), True),
        ("tanh(h)", Mse(), True),
        ("1/h", Mse(), False),
        ("log(abs(h))", Mse(), False),
        ("h", Preprocessed(transform="y/(1+abs(y))"), True),
        ("h**2*exp(-h**2)", Mse(), True),
    ],
)
def test_whether_a_preprocessing_is_bounded_above(text, loss, bounded):
    assert bounded_above(formula(text), slope_of(loss)) is bounded


def test_noise_of_the_label_makes_a_bounded_target_unbounded_for_the_square_loss():
    assert not bounded_above(formula("tanh(h)", noise=0.1), slope_of(Mse()))


@pytest.mark.parametrize(
    ("text", "infinite"),
    [("exp(h**2)", True), ("1/h", True), ("exp(0.2*h**2)", False), ("h**6", False)],
)
def test_an_infinite_variance_is_seen(text, infinite):
    _, square = mean_and_square(formula(text))
    assert np.isinf(square) == infinite


def test_the_variance_of_what_has_one():
    mean, square = mean_and_square(formula("h**6 + abs(h)"))
    assert mean == pytest.approx(15 + np.sqrt(2 / np.pi), rel=1e-4)
    cross = 2 * integrate.quad(lambda h: abs(h) ** 7 * norm.pdf(h), -12, 12)[0]
    assert square == pytest.approx(10395 + 1 + cross, rel=1e-3)


# Spectra


def constant_law():
    """T = 1: D is the sample covariance."""
    return Law(np.ones((1, 2)), np.array([[0.5, 0.5]]), np.zeros((1, 2, 1, 1)))


@pytest.mark.parametrize("alpha", [0.5, 2.0, 10.0])
def test_the_spectrum_of_a_sample_covariance_is_that_of_marchenko_and_pastur(alpha):
    upper, lower = (1 + alpha**-0.5) ** 2, (1 - alpha**-0.5) ** 2
    assert predict(constant_law(), np.array([alpha])).edge[0] == pytest.approx(upper, rel=1e-6)
    if alpha > 1:
        edge = -predict(constant_law().negated(), np.array([alpha])).edge[0]
        assert edge == pytest.approx(lower, rel=1e-4)
    x = np.linspace(lower + 0.1 * (upper - lower), upper - 0.1 * (upper - lower), 41)
    wanted = alpha * np.sqrt((upper - x) * (x - lower)) / (2 * np.pi * x)
    found = bulk_density(constant_law(), alpha, x, smoothing=1e-4)
    np.testing.assert_allclose(found, wanted, rtol=2e-3)


@pytest.fixture(scope="module")
def poster():
    return label_bins(label_table(Hermite()))


def test_the_numbers_of_the_poster_for_huber(poster):
    slopes = law_of(Huber(), poster).negated()
    found = threshold(slopes)
    assert float(found.value) == pytest.approx(4.42, abs=0.02)
    ten, twenty = predict(slopes, np.array([10.0, 20.0])).overlap
    np.testing.assert_allclose(ten, 0.475, atol=0.003)
    np.testing.assert_allclose(twenty, 0.727, atol=0.003)
    at = predict(slopes, np.array([20.0]))
    assert at.outlier[0, 0] == pytest.approx(0.4175, abs=0.001)
    assert at.edge[0] == pytest.approx(0.3276, abs=0.001)


def test_above_the_threshold_there_is_an_outlier_and_below_there_is_none(poster):
    for loss in (Huber(), LogCosh(), PseudoHuber(delta=2.0)):
        slopes = law_of(loss, poster).negated()
        alpha = float(threshold(slopes).value)
        below, above = predict(slopes, np.array([0.98, 1.02]) * alpha).overlap
        assert (below == 0).all()
        assert above[0] > 0


@pytest.mark.parametrize("text", ["h**2", "He4(h)", "cos(h) + 0.3*h**2", "sign(abs(h) - 1)"])
def test_no_preprocessing_is_better_than_the_best_whose_threshold_is_alpha_c(text):
    target = formula(text)
    table = label_table(target)
    bins, second = label_bins(table), second_moments(table).mean(axis=0)
    (step,) = climbed(target)
    direction, seen = best_direction(second)
    assert 1 / seen == pytest.approx(step.alpha_c, rel=0.01)
    found = float(threshold(best_law(bins, direction)).value)
    assert found == pytest.approx(step.alpha_c, rel=0.02)
    assert float(threshold(law_of(optimal(target), bins)).value) == pytest.approx(found, rel=0.02)
    for loss in (Mse(), Huber(), LogCosh()):
        assert loss_threshold(target, loss, bins).best > 0.98 * step.alpha_c


def test_the_best_matrices_have_alpha_c_for_threshold(poster):
    """T (I − T)⁻¹ = G: the map M ↦ E[G M G] of the matrices is that of the target."""
    matrices = best_matrices(poster)
    met = poster.probability > 0
    eye = np.eye(2)
    g = matrices[met] @ np.linalg.inv(eye - matrices[met])
    weights = poster.probability[met] / len(poster.probability)
    operator = np.einsum("b,bij,bkl->ikjl", weights, g, g).reshape(4, 4)
    assert 1 / np.linalg.eigvalsh(operator)[-1] == pytest.approx(1.467, rel=0.02)


def test_the_best_delta_is_a_minimum(poster):
    delta, value = best_delta(poster)
    for other in (0.8 * delta, 1.25 * delta):
        assert loss_threshold(Hermite(), Huber(delta=other), poster).best >= value * (1 - 1e-3)
    assert value < loss_threshold(Hermite(), Huber(delta=1.0), poster).best


def test_a_loss_that_sees_nothing_has_no_threshold():
    """The label of parity of three says nothing at second order, whatever is done to it."""
    target = formula("sign(h1*h2*h3)")
    found = loss_threshold(target, Huber(), label_bins(label_table(target)))
    assert np.isinf(found.best)


def test_thresholds_of_two_losses_that_are_one():
    target = Committee(link="erf", rank=2)
    bins = label_bins(label_table(target))
    inside = loss_threshold(target, Huber(delta=50.0), bins)
    assert inside.best == pytest.approx(loss_threshold(target, Mse(), bins).best, rel=1e-6)


def test_a_label_with_noise_inside_its_sign_has_the_probit_posterior():
    """E[h | y = ±1] = ±√(2/π)/√(1 + Δ) for y = sign(h + √Δ ξ)."""
    bins = label_table(NoisySign(inner_noise=0.5))
    mean = bins.conditional(1)[..., 0].mean(axis=(0, 1))[0]
    weight = bins.weight().mean(axis=0)[0]
    seen = np.sort(mean[weight > 1e-3])
    wanted = np.sqrt(2 / np.pi) / np.sqrt(1.5)
    np.testing.assert_allclose(seen, [-wanted, wanted], atol=3e-3)


def test_centring_takes_the_mean_off():
    bins = label_bins(label_table(formula("h**2"), sizes=SMALL[0, 1]))
    slopes = law(bins, slope_of(Huber()))
    np.testing.assert_allclose((slopes.values * slopes.probability).sum(axis=1), 0, atol=1e-12)


def test_the_edge_of_the_bulk_is_the_least_value_of_psi(poster):
    """ψ'(τ̄) = 0, by a minimiser that knows nothing of derivatives."""
    pooled = law_of(LogCosh(), poster).pooled()
    t, p = pooled.values[0], pooled.probability[0]

    def psi(tau):
        return tau * (1 / 7.0 + p @ (t / (tau - t)))

    found = optimize.minimize_scalar(psi, bounds=(t.max() * 1.001, 50 * t.max()), method="bounded")
    edge = predict(law_of(LogCosh(), poster), np.array([7.0])).edge[0]
    assert edge == pytest.approx(found.fun, rel=1e-5)
