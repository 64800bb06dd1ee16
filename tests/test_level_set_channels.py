"""Channels of noiseless targets: closed forms, independent integrals, derivatives, information."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from scipy.special import i0e, ive, ndtr
from scipy.stats import norm

from mirage.channels.channel import posterior
from mirage.channels.intervals import interval_output
from mirage.channels.level_curves import level_curves
from mirage.channels.line_level_set import line_level_set
from mirage.channels.plane_level_set import plane_level_set
from mirage.targets import Committee, Expression, NoisySign, Parity, PhaseRetrieval, SingleIndex
from mirage.theory.bayes_optimal import value_of
from mirage.theory.settling import settled

# Compilations of many channels: with the long checks.
pytestmark = pytest.mark.slow

COUNT = 100
LINES = [
    PhaseRetrieval(),
    PhaseRetrieval(power=1.0),
    SingleIndex(),
    SingleIndex(gain=3.0),
    SingleIndex(link="relu"),
    Expression("He4(h)"),
    Expression("He3(h)"),
    Parity(k=1),
    Expression("sign(abs(h) - 1)"),
    Expression("minimum(maximum(h, -1), 1)"),
    Expression("h + sign(h)"),
    Expression("relu(h) - 0.3 + sign(h - 1)"),
]
PLANES = {
    "circle": Expression("h1**2 + h2**2"),
    "product": Expression("h1*h2"),
    "cubic": Expression("h1 + He3(h2)"),
}
V2 = np.array([[0.5, 0.1], [0.1, 0.3]])


def name(target):
    return f"{target.name()} {getattr(target, 'expr', getattr(target, 'link', ''))}"


each_line = pytest.mark.parametrize("target", LINES, ids=name)
# Where each test compiles much: a polynomial, an atom with a line, atoms alone; the rest are slow.
FEW = ("He4(h)", "relu", "sign(abs(h) - 1)")
few_lines = pytest.mark.parametrize(
    "target",
    [
        pytest.param(t, marks=[] if name(t).endswith(FEW) else pytest.mark.slow, id=name(t))
        for t in LINES
    ],
)
each_plane = pytest.mark.parametrize("shape", PLANES)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


line = functools.cache(line_level_set)
plane = functools.cache(plane_level_set)
# One compilation for each channel and shape, whatever the test.
call = eqx.filter_jit(lambda channel, *belief: channel(*belief))
predict = eqx.filter_jit(lambda channel, *belief: channel.predict(*belief))
information = eqx.filter_jit(lambda channel, overlap: channel.information(overlap))


def line_output(target, y, omega, variance, dtype="float64"):
    """log Z, score, curvature and E[h|y] (n,) of a line channel, for n ≤ COUNT."""
    with jax.enable_x64(dtype == "float64"):
        y, omega = (np.resize(np.asarray(x, dtype), COUNT) for x in (y, omega))
        v = jnp.full((1, 1), variance, dtype)
        out = call(line(target), jnp.asarray(y), jnp.asarray(omega)[None], v)
        assert all(x.dtype == dtype for x in out)
        log_z, score, curvature = (np.asarray(x, float).reshape(COUNT) for x in out)
    return log_z, score, curvature, omega + variance * score


def sample_line(*, variance):
    rng = np.random.default_rng(0)
    omega = np.sqrt(1 - variance) * rng.standard_normal(COUNT)
    return omega, omega + np.sqrt(variance) * rng.standard_normal(COUNT)


@each_dtype
@pytest.mark.parametrize("variance", [1e-3, 0.3, 1.0])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_phase_retrieval_has_two_roots_weighed_against_each_other(dtype, variance, power):
    omega, h = sample_line(variance=variance)
    root = np.abs(h)
    log_z, _, curvature, mean = line_output(
        PhaseRetrieval(power=power), root**power, omega, variance, dtype
    )
    t = np.tanh(root * omega / variance)
    rtol = 1e-9 if dtype == "float64" else 2e-4
    np.testing.assert_allclose(mean, root * t, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(
        curvature * variance**2, root**2 * (1 - t**2) - variance, rtol=10 * rtol, atol=rtol
    )
    s = np.sqrt(variance)
    z = norm.pdf(root, omega, s) + norm.pdf(-root, omega, s)
    expected = np.log(z / (power * root ** (power - 1)))
    np.testing.assert_allclose(log_z, expected, rtol=10 * rtol, atol=10 * rtol)


@each_dtype
def test_a_monotone_target_gives_h_away(dtype):
    omega, h = sample_line(variance=0.4)
    log_z, _, curvature, mean = line_output(SingleIndex(), np.tanh(h), omega, 0.4, dtype)
    tol = 1e-9 if dtype == "float64" else 1e-3
    np.testing.assert_allclose(mean, h, atol=tol)
    np.testing.assert_allclose(curvature, -1 / 0.4, rtol=tol)
    expected = norm.logpdf(h, omega, np.sqrt(0.4)) + 2 * np.log(np.cosh(h))
    np.testing.assert_allclose(log_z, expected, atol=5 * tol)


@each_dtype
@pytest.mark.parametrize("variance", [1e-4, 0.3])
def test_sign_is_probit(dtype, variance):
    omega = np.linspace(-8, 8, COUNT) * np.sqrt(variance)
    for y in (-1.0, 1.0):
        log_z, score, curvature, _ = line_output(
            Parity(k=1), np.full(COUNT, y), omega, variance, dtype
        )
        a = y * omega / np.sqrt(variance)
        hazard = np.exp(norm.logpdf(a) - norm.logcdf(a))
        rtol = 1e-9 if dtype == "float64" else 1e-4
        np.testing.assert_allclose(log_z, norm.logcdf(a), rtol=rtol, atol=rtol / 100)
        np.testing.assert_allclose(score, y * hazard / np.sqrt(variance), rtol=rtol)
        np.testing.assert_allclose(
            curvature * variance, -hazard * (a + hazard), rtol=100 * rtol, atol=rtol
        )


def test_relu_is_an_atom_and_a_line():
    omega, h = sample_line(variance=0.5)
    log_z, score, *_ = line_output(SingleIndex(link="relu"), np.maximum(h, 0), omega, 0.5)
    a = -omega / np.sqrt(0.5)
    positive = h > 0
    hazard = np.exp(norm.logpdf(a) - norm.logcdf(a))
    density = norm.logpdf(h, omega, np.sqrt(0.5))
    np.testing.assert_allclose(log_z, np.where(positive, density, norm.logcdf(a)), atol=1e-9)
    np.testing.assert_allclose(
        score, np.where(positive, (h - omega) / 0.5, -hazard / np.sqrt(0.5)), rtol=1e-8
    )


@pytest.mark.parametrize("expr", ["sign(abs(h) - 1)", "maximum(abs(h), 1) - 1"])
def test_an_atom_of_several_intervals_is_their_sum(expr):
    omega = np.linspace(-3, 3, COUNT)
    s = np.sqrt(0.3)
    inner = ndtr((1 - omega) / s) - ndtr((-1 - omega) / s)
    value = {"s": -1.0, "m": 0.0}[expr[0]]
    log_z, *_ = line_output(Expression(expr), np.full(COUNT, value), omega, 0.3)
    np.testing.assert_allclose(log_z, np.log(inner), atol=1e-9)
    if expr[0] == "s":
        log_z, *_ = line_output(Expression(expr), np.ones(COUNT), omega, 0.3)
        np.testing.assert_allclose(log_z, np.log1p(-inner), atol=1e-9)


def test_four_roots_of_he4_against_another_root_finder():
    labels = np.random.default_rng(1).uniform(-5.9, 2.9, COUNT)
    log_z, _, _, mean = line_output(Expression("He4(h)"), labels, np.full(COUNT, 0.3), 0.8)
    ends = [-4, -np.sqrt(3), 0, np.sqrt(3), 4]
    for i, y in enumerate(labels):
        f = np.polynomial.Polynomial([3 - y, 0, -6, 0, 1])
        roots = np.array(
            [optimize.brentq(f, *pair, xtol=1e-14) for pair in itertools.pairwise(ends)]
        )
        weights = norm.pdf(roots, 0.3, np.sqrt(0.8)) / np.abs(f.deriv()(roots))
        assert log_z[i] == pytest.approx(np.log(weights.sum()), abs=1e-8)
        assert mean[i] == pytest.approx(weights @ roots / weights.sum(), abs=1e-8)


@each_dtype
def test_labels_beside_an_extremum_or_an_atom_count_as_the_nearest(dtype):
    log_z, _, _, mean = line_output(
        Expression("He4(h)"), [-6.0 - 1e-6, -6.0], [0.5, 0.5], 0.5, dtype
    )
    assert np.isfinite(log_z).all()
    # Two roots at ±√3, with weights of the belief alone.
    root = np.sqrt(3)
    np.testing.assert_allclose(mean, root * np.tanh(root), atol=5e-3)
    near, *_ = line_output(Parity(k=1), [0.9, 1.0], [0.2, 0.2], 0.5, dtype)
    assert near[0] == near[1]


def test_jumps_are_no_roots():
    *_, mean = line_output(Expression("h + 3*sign(h)"), [3.5, -4.0], [0.0, 0.0], 0.9)
    np.testing.assert_allclose(mean[:2], [0.5, -1.0], atol=1e-9)


@pytest.mark.parametrize(
    ("lower", "upper"), [(-np.inf, 0.2), (0.2, np.inf), (-0.5, 0.7), (0.1, 0.11), (2.0, 3.0)]
)
def test_intervals_near_and_far(lower, upper):
    omega = np.linspace(-30, 30, 25)
    with jax.enable_x64(True):
        arguments = [jnp.asarray(x) for x in np.broadcast_arrays(lower, upper, omega)]
        log_p, first, second = interval_output(*arguments, jnp.asarray(0.5))
    a, b = (lower - omega) / np.sqrt(0.5), (upper - omega) / np.sqrt(0.5)
    a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)
    expected = norm.logcdf(b) + np.log1p(-np.exp(norm.logcdf(a) - norm.logcdf(b)))
    np.testing.assert_allclose(log_p, expected, rtol=1e-6, atol=1e-12)
    # The truncated mean lies inside, and its variance is positive.
    mean = omega + 0.5 * np.asarray(first)
    assert (mean >= lower - 1e-9).all()
    assert (mean <= upper + 1e-9).all()
    assert (0.5 + 0.25 * np.asarray(second) > -1e-7).all()


@few_lines
def test_score_and_curvature_are_derivatives_on_the_line(target):
    for variance in (1e-2, 0.6):
        omega, h = sample_line(variance=variance)
        step = 1e-4 * np.sqrt(variance)
        with jax.enable_x64(True):
            y = np.asarray(target(jnp.asarray(h)[:, None]))
        (low, at, high) = (
            line_output(target, y, x, variance) for x in (omega - step, omega, omega + step)
        )
        score, curvature = ((b - a) / (2 * step) for a, b in zip(low[:2], high[:2], strict=True))
        # In units of the belief.
        np.testing.assert_allclose(at[1] * np.sqrt(variance), score * np.sqrt(variance), atol=1e-6)
        np.testing.assert_allclose(at[2] * variance, curvature * variance, atol=1e-6)


@each_line
def test_predictions_against_a_fine_rule(target):
    omega = np.linspace(-2, 2, 5)
    z = np.linspace(-9, 9, 400_001)
    for variance in (1e-3, 0.6):
        h = omega[:, None] + np.sqrt(variance) * z
        with jax.enable_x64(True):
            g = np.asarray(target(jnp.asarray(h)[..., None]))
            v = jnp.full((1, 1), variance)
            predicted = predict(line(target), jnp.asarray(omega)[None], v)
        expected = (g * norm.pdf(z)).sum(axis=1) * (z[1] - z[0])
        np.testing.assert_allclose(predicted, expected, atol=1e-4)


@each_dtype
def test_phase_retrieval_has_the_fixed_points_of_state_evolution(dtype):
    for alpha, q in ((0.6, 0.05182), (0.8, 0.21623), (1.0, 0.4763)):
        with jax.enable_x64(dtype == "float64"):
            found = information(line(PhaseRetrieval()), jnp.full((1, 1), q, dtype))
        assert all(x.dtype == dtype for x in found)
        j = alpha * float(found.score[0, 0])
        assert j / (1 + j) == pytest.approx(q, abs=2e-5)


@few_lines
def test_information_is_twice_the_derivative_of_the_evidence(target):
    # ∂Ψ/∂Q = ½ E[g gᵀ]: a rule that mislabels, or loses a root, breaks it.
    with jax.enable_x64(True):
        for q in (0.1, 0.7):
            low, at, high = (
                information(line(target), jnp.full((1, 1), x)) for x in (q - 1e-4, q, q + 1e-4)
            )
            slope = float(high.log_evidence - low.log_evidence) / 2e-4
            assert 2 * slope == pytest.approx(float(at.score[0, 0]), rel=2e-4)


@pytest.mark.slow
@each_line
def test_information_can_be_differentiated(target):
    channel = line(target)
    with jax.enable_x64(True):
        q = jnp.full((1, 1), 0.4)
        slope = jax.jit(jax.grad(lambda q: channel.information(q).log_evidence))(q)
        score = information(channel, q).score
    assert 2 * float(slope[0, 0]) == pytest.approx(float(score[0, 0]), rel=1e-4)


def test_information_of_relu_and_sign_against_integrals_over_the_belief():
    q, s = 0.4, np.sqrt(0.6)
    omega = np.linspace(-6, 6, 4001)
    weights = norm.pdf(omega, 0, np.sqrt(q)) * (omega[1] - omega[0])
    a = omega / s

    def atom(a):  # P(h > 0) g_out², h ~ N(a s, s²)
        return norm.pdf(a) ** 2 / norm.cdf(a) / 0.6

    above = (norm.cdf(a) - a * norm.pdf(a)) / 0.6  # E[g_out²; h > 0] where h is seen
    sign, relu = weights @ (atom(a) + atom(-a)), weights @ (above + atom(-a))
    at = jnp.full((1, 1), q)
    for target, expected in ((Parity(k=1), sign), (SingleIndex(link="relu"), relu)):
        found = information(line(target), at)
        assert float(found.score[0, 0]) == pytest.approx(expected, rel=1e-4)
    # E[E[y|ω]²] of the sign: (2/π) asin q.
    square = information(line(Parity(k=1)), at).square
    assert float(square) == pytest.approx(2 / np.pi * np.arcsin(q), abs=1e-4)


# Two directions


def sample_plane(*, v):
    rng = np.random.default_rng(0)
    omega = np.linalg.cholesky(np.eye(2) - v) @ rng.standard_normal((2, COUNT))
    return omega, omega + np.linalg.cholesky(v) @ rng.standard_normal((2, COUNT))


def curve(shape, y):
    """Points (2, k) along {g = y}, and weights dt/|∇g| for a parameter t."""
    if shape == "circle":
        t = np.linspace(0, 2 * np.pi, 4001)[:-1]
        return np.sqrt(y) * np.stack([np.cos(t), np.sin(t)]), np.full(t.shape, 0.5 * (t[1] - t[0]))
    if shape == "product":
        t = np.linspace(-25, 25, 10_001)
        h1 = np.concatenate([np.exp(t), -np.exp(t)])
        return np.stack([h1, y / h1]), np.full(h1.shape, t[1] - t[0])
    t = np.linspace(-8, 8, 20_001)
    return np.stack([y - t**3 + 3 * t, t]), np.full(t.shape, t[1] - t[0])


def along_curve(shape, y, omega, v):
    """log Z, E[h|y] and Cov[h|y] by a fine rule along the curve."""
    h, weights = curve(shape, y)
    difference = h - omega[:, None]
    exponent = -(difference * np.linalg.solve(v, difference)).sum(axis=0) / 2
    w = weights * np.exp(exponent - exponent.max())
    log_z = np.log(w.sum()) + exponent.max() - np.log(2 * np.pi) - np.linalg.slogdet(v)[1] / 2
    share = w / w.sum()
    mean = h @ share
    return log_z, mean, (share * h) @ h.T - np.outer(mean, mean)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "shape", [pytest.param("circle", marks=pytest.mark.slow), "product", "cubic"]
)
@pytest.mark.parametrize("scale", [0.02, 1.0])
def test_the_curve_is_integrated(dtype, shape, scale):
    target, v = PLANES[shape], scale * V2
    omega, h = sample_plane(v=v)
    with jax.enable_x64(dtype == "float64"):
        y = np.asarray(target(jnp.asarray(h.T, dtype)))
        w, covariance = jnp.asarray(omega, dtype), jnp.asarray(v, dtype)
        out = call(plane(target), jnp.asarray(y), w, covariance)
        assert all(x.dtype == dtype for x in out)
        mean, cov = (np.asarray(x) for x in posterior(out, w, covariance))
    exact = [along_curve(shape, *each, v) for each in zip(y.astype(float), omega.T, strict=True)]
    size = np.sqrt(scale)
    errors = np.array(
        [
            np.abs(np.asarray(out.log_evidence) - [e[0] for e in exact]),
            np.abs(mean.T - [e[1] for e in exact]).max(axis=1) / size,
            np.abs(np.moveaxis(cov, -1, 0) - [e[2] for e in exact]).max(axis=(1, 2)) / scale,
        ]
    )
    assert (np.median(errors, axis=1) < 2e-3).all()
    assert (errors.mean(axis=1) < 5e-3).all()


def test_the_circle_has_bessel_functions():
    omega, h = sample_plane(v=0.3 * np.eye(2))
    y = (h**2).sum(axis=0)
    with jax.enable_x64(True):
        v = 0.3 * jnp.eye(2, dtype=jnp.float64)
        out = call(plane(PLANES["circle"]), jnp.asarray(y), jnp.asarray(omega), v)
        out = jax.tree.map(np.asarray, out)
    length = np.linalg.norm(omega, axis=0)
    k = np.sqrt(y) * length / 0.3
    radial = np.sqrt(y) * ive(1, k) / i0e(k) / length
    expected = (radial - 1) * omega / 0.3
    log_z = np.log(i0e(k)) + k - (y + length**2) / 0.6 - np.log(2 * 0.3)
    assert np.median(np.abs(out.score - expected)) < 1e-3
    assert np.median(np.abs(out.log_evidence - log_z)) < 1e-3
    assert np.abs(out.log_evidence - log_z).mean() < 5e-3


@pytest.mark.slow
@each_plane
def test_score_and_curvature_are_derivatives_in_the_plane(shape):
    target, v, step = PLANES[shape], 0.2 * V2, 0.02
    omega, h = sample_plane(v=v)
    with jax.enable_x64(True):
        y = target(jnp.asarray(h.T))
        f = functools.partial(call, plane(target), y)
        at = f(jnp.asarray(omega), jnp.asarray(v))
        for i in range(2):
            move = step * np.eye(2)[:, [i]]
            low, high = (f(jnp.asarray(w), jnp.asarray(v)) for w in (omega - move, omega + move))
            score = (high.log_evidence - low.log_evidence) / (2 * step)
            curvature = (high.score - low.score) / (2 * step)
            # In units of the belief, whose widths are 0.3 and 0.25.
            assert np.median(np.abs(at.score[i] - score)) * 0.3 < 5e-3
            assert np.median(np.abs(at.curvature[:, i] - curvature)) * 0.09 < 1e-2


def test_a_label_out_of_reach_is_taken_at_its_nearest_point():
    with jax.enable_x64(True):
        channel = plane(Expression("h1 + 2*h2"))
        v = 0.01 * jnp.eye(2)
        out = call(channel, jnp.asarray([10.0]), jnp.zeros((2, 1)), v)
        mean, cov = posterior(out, jnp.zeros((2, 1)), v)
    n = np.array([1, 2]) / np.sqrt(5)
    np.testing.assert_allclose(np.asarray(mean)[:, 0], 10 / np.sqrt(5) * n, atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(cov)[..., 0], 0.01 * (np.eye(2) - np.outer(n, n)), atol=1e-8
    )


CURVES = {**PLANES, "quartic": Expression("(He4(h1) + He4(h2))/sqrt(24)")}


@functools.cache
def curves_of(target):
    return level_curves(target)


@pytest.mark.parametrize("shape", CURVES)
def test_level_curves_stand_for_the_whole_plane(shape):
    weight, points, density, *_ = curves_of(CURVES[shape])
    measure = weight[:, None] * density * np.exp(-(points**2).sum(axis=-1) / 2) / (2 * np.pi)
    h1, h2 = points[..., 0], points[..., 1]
    assert measure.sum() == pytest.approx(1, abs=1e-12)
    for f, expected in (
        (h1**2, 1),
        (h2**2, 1),
        (h1**4, 3),
        ((h1 * h2) ** 2, 1),
        (np.cos(h1 - h2), np.exp(-1)),
    ):
        assert (measure * f).sum() == pytest.approx(expected, rel=1.5e-3)


def test_level_curves_take_no_notice_of_how_labels_are_scaled():
    plain, stretched = (curves_of(Expression(f"{f}(h1**2 + h2)")) for f in ("", "exp"))
    one, other = (
        c.weight @ (c.density * np.exp(-(c.points**2).sum(-1) / 2) * abs(c.points[..., 0])).sum(-1)
        for c in (plain, stretched)
    )
    assert one == pytest.approx(other, rel=2e-4)
    assert one == pytest.approx(2 * np.pi * np.sqrt(2 / np.pi), rel=5e-4)


def test_curves_that_cannot_be_followed_are_refused():
    with pytest.raises(ValueError, match="level sets are too fine to follow"):
        level_curves(Expression("sin(150*h1)*cos(140*h2)"))


@pytest.mark.optimised
def test_information_of_a_circle_is_a_double_integral_of_bessel_functions():
    # Q = q I stays isotropic; ρ = |h| and |ω| have the density of a Rice distribution.
    channel = plane(PLANES["circle"])
    x, w = np.polynomial.legendre.leggauss(600)
    for q in (0.1, 0.5, 0.9):
        with jax.enable_x64(True):
            found = information(channel, q * jnp.eye(2))
        v = 1 - q
        rho, length = 4 * (x[:, None] + 1), 4 * np.sqrt(q) * (x[None] + 1)
        k = rho * length / v
        density = i0e(k) * rho * length / (q * v) * np.exp(-(length**2) / (2 * q))
        density *= np.exp(-((rho - length) ** 2) / (2 * v)) * 16 * np.sqrt(q) * np.outer(w, w)
        score = (rho * ive(1, k) / i0e(k) - length) ** 2 / v**2 / 2
        log_z = np.log(i0e(k)) - (rho - length) ** 2 / (2 * v) - np.log(2 * v)
        assert density.sum() == pytest.approx(1, abs=1e-6)
        expected = (density * score).sum()
        np.testing.assert_allclose(found.score, expected * np.eye(2), atol=2e-4 * expected)
        assert float(found.log_evidence) == pytest.approx((density * log_z).sum(), abs=5e-4)
        # E[y|ω] = |ω|² + 2 (1 − q).
        square = 8 * q**2 + 2 * (2 * q) * 2 * (1 - q) + 4 * (1 - q) ** 2
        assert float(found.square) == pytest.approx(square, rel=1e-9)


QS = {
    "wide": [[0.2, 0.1], [0.1, 0.3]],
    "mixed": [[0.85, 0.0], [0.0, 0.1]],
    "narrow": [[0.9, 0.05], [0.05, 0.85]],
    "extrapolated": [[0.99, 0.004], [0.004, 0.98]],
    "nearly exact": [[1 - 1e-7, 0.0], [0.0, 1 - 3e-7]],
}


@pytest.mark.optimised
@pytest.mark.parametrize("q", QS)
def test_information_of_a_straight_line_is_exact(q):
    # y = a·h: g_out = a (y − a·ω)/(aᵀVa), E[y|ω]² = aᵀQa.
    a, overlap = np.array([1.0, 2.0]), np.array(QS[q])
    with jax.enable_x64(True):
        found = information(plane(Expression("h1 + 2*h2")), jnp.asarray(overlap))
    variance = a @ (np.eye(2) - overlap) @ a
    np.testing.assert_allclose(found.score, np.outer(a, a) / variance, rtol=2e-4)
    expected = -np.log(2 * np.pi * np.e * variance) / 2
    assert float(found.log_evidence) == pytest.approx(expected, abs=2e-4)
    assert float(found.square) == pytest.approx(a @ overlap @ a, rel=1e-9)


@pytest.mark.optimised
@pytest.mark.parametrize("shape", ["product", "cubic"])
@pytest.mark.parametrize("q", ["wide", "narrow", "extrapolated"])
def test_information_against_draws(shape, q):
    overlap = np.array(QS[q])
    v = np.eye(2) - overlap
    with jax.enable_x64(True):
        found = information(plane(PLANES[shape]), jnp.asarray(overlap))
    rng = np.random.default_rng(1)
    omega = np.linalg.cholesky(overlap) @ rng.standard_normal((2, 1500))
    h = omega + np.linalg.cholesky(v) @ rng.standard_normal((2, 1500))
    y = h[0] * h[1] if shape == "product" else h[0] + h[1] ** 3 - 3 * h[1]
    exact = [along_curve(shape, *one, v) for one in zip(y, omega.T, strict=True)]
    root = np.linalg.inv(np.linalg.cholesky(v))
    m = (np.array([mean for _, mean, _ in exact]) - omega.T) @ root.T
    # E[z mᵀ] = E[m mᵀ]: the difference has mean 0 and takes half of the noise away.
    z = (h - omega).T @ root.T
    draws = m[:, :, None] * (2 * z - m)[:, None]
    draws = (draws + np.swapaxes(draws, 1, 2)) / 2
    sigma = draws.std(axis=0) / np.sqrt(len(draws))
    found_moment = np.linalg.cholesky(v).T @ np.asarray(found.score) @ np.linalg.cholesky(v)
    assert (np.abs(found_moment - draws.mean(axis=0)) < 4 * sigma + 1e-3).all()
    log_z = np.array([one[0] for one in exact])
    error = abs(float(found.log_evidence) - log_z.mean())
    assert error < 4 * log_z.std() / np.sqrt(len(log_z))


@pytest.mark.optimised
@pytest.mark.parametrize("shape", CURVES)
@pytest.mark.parametrize("q", ["wide", "mixed", "narrow", "extrapolated"])
def test_information_in_the_plane_is_twice_the_derivative_of_the_evidence(shape, q):
    channel, overlap = plane(CURVES[shape]), np.array(QS[q])
    error = 5e-3 if q == "extrapolated" else 1e-3
    step = 1e-3 * (1 - np.linalg.eigvalsh(overlap)[-1])
    with jax.enable_x64(True):
        at = np.asarray(information(channel, jnp.asarray(overlap)).score)
        for b in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]):
            move = step * np.outer(b, b)
            low, high = (
                information(channel, jnp.asarray(overlap + sign * move)) for sign in (-1, 1)
            )
            slope = float(high.log_evidence - low.log_evidence) / (2 * step)
            assert 2 * slope == pytest.approx(b @ at @ b, abs=error * abs(at).max())


@pytest.mark.optimised
def test_two_quartics_have_the_thresholds_of_their_level_curves():
    channel = plane(CURVES["quartic"])
    for start in (1e-2, 0.3):
        found = settled(channel, 2.0, start * np.eye(2))
        assert found.converged
        np.testing.assert_allclose(found.overlap, 0.2036 * np.eye(2), atol=5e-4)
    # Recovery is exact above 2.306, and from full knowledge above 2, where f jumps to infinity.
    np.testing.assert_array_equal(settled(channel, 2.35, 0.3 * np.eye(2)).overlap, np.eye(2))
    np.testing.assert_array_equal(settled(channel, 2.1, 0.999 * np.eye(2)).overlap, np.eye(2))
    assert value_of(channel, np.eye(2), 2.01) == np.inf
    assert value_of(channel, np.eye(2), 1.99) == -np.inf


def test_what_there_is_no_channel_for():
    with pytest.raises(ValueError, match=r"rank 2; expected a target of rank 1"):
        line_level_set(Committee())
    with pytest.raises(ValueError, match=r"rank 1; expected a target of rank 2"):
        plane_level_set(SingleIndex())
    with pytest.raises(ValueError, match=r"expected target\.noise = 0"):
        line_level_set(SingleIndex(noise=0.1))
    with pytest.raises(ValueError, match="random given h"):
        line_level_set(NoisySign())
    with pytest.raises(
        ValueError, match="labels that repeat, noiseless, at rank 2 have no channel"
    ):
        plane_level_set(Parity())
