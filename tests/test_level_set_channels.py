"""Channels of noiseless targets: closed forms, independent integrals, derivatives, information."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize
from scipy.special import i0e, ive, ndtr
from scipy.stats import norm

from mirage.channels.channel import posterior
from mirage.channels.level_set import interval_output, line_level_set, plane_level_set
from mirage.targets import Committee, Expression, NoisySign, Parity, PhaseRetrieval, SingleIndex

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
each_plane = pytest.mark.parametrize("shape", PLANES)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def line_output(target, y, omega, variance, dtype="float64"):
    """Output of a line channel as numpy arrays (n,): log Z, score, curvature, E[h|y]."""
    with jax.enable_x64(dtype == "float64"):
        y, omega = jnp.asarray(y, dtype), jnp.asarray(omega, dtype)[None]
        v = jnp.full((1, 1), variance, dtype)
        out = jax.jit(line_level_set(target))(y, omega, v)
        assert all(x.dtype == dtype for x in out)
        mean = omega[0] + v[0, 0] * out.score[0]
        return tuple(
            np.asarray(x, np.float64)
            for x in (out.log_evidence, out.score[0], out.curvature[0, 0], mean)
        )


def sample_line(count, *, variance, seed=0):
    rng = np.random.default_rng(seed)
    omega = np.sqrt(1 - variance) * rng.standard_normal(count)
    return omega, omega + np.sqrt(variance) * rng.standard_normal(count)


@each_dtype
@pytest.mark.parametrize("variance", [1e-3, 0.3, 1.0])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_phase_retrieval_has_two_roots_weighed_against_each_other(dtype, variance, power):
    omega, h = sample_line(200, variance=variance)
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
    omega, h = sample_line(100, variance=0.4)
    log_z, _, curvature, mean = line_output(SingleIndex(), np.tanh(h), omega, 0.4, dtype)
    tol = 1e-9 if dtype == "float64" else 1e-3
    np.testing.assert_allclose(mean, h, atol=tol)
    np.testing.assert_allclose(curvature, -1 / 0.4, rtol=tol)
    expected = norm.logpdf(h, omega, np.sqrt(0.4)) + 2 * np.log(np.cosh(h))
    np.testing.assert_allclose(log_z, expected, atol=5 * tol)


@each_dtype
@pytest.mark.parametrize("variance", [1e-4, 0.3])
def test_sign_is_probit(dtype, variance):
    omega = np.linspace(-8, 8, 41) * np.sqrt(variance)
    for y in (-1.0, 1.0):
        log_z, score, curvature, _ = line_output(
            Parity(k=1), np.full(41, y), omega, variance, dtype
        )
        a = y * omega / np.sqrt(variance)
        hazard = np.exp(norm.logpdf(a) - norm.logcdf(a))
        rtol = 1e-9 if dtype == "float64" else 1e-4
        np.testing.assert_allclose(log_z, norm.logcdf(a), rtol=rtol, atol=1e-12)
        np.testing.assert_allclose(score, y * hazard / np.sqrt(variance), rtol=rtol)
        np.testing.assert_allclose(
            curvature * variance, -hazard * (a + hazard), rtol=100 * rtol, atol=1e-12
        )


def test_relu_is_an_atom_and_a_line():
    omega, h = sample_line(200, variance=0.5)
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
    omega = np.linspace(-3, 3, 13)
    s = np.sqrt(0.3)
    inner = ndtr((1 - omega) / s) - ndtr((-1 - omega) / s)
    value = {"s": -1.0, "m": 0.0}[expr[0]]
    log_z, *_ = line_output(Expression(expr), np.full(13, value), omega, 0.3)
    np.testing.assert_allclose(log_z, np.log(inner), atol=1e-9)
    if expr[0] == "s":
        log_z, *_ = line_output(Expression(expr), np.ones(13), omega, 0.3)
        np.testing.assert_allclose(log_z, np.log1p(-inner), atol=1e-9)


def test_four_roots_of_he4_against_another_root_finder():
    rng = np.random.default_rng(1)
    for y in rng.uniform(-5.9, 2.9, 20):
        f = lambda h, y=y: h**4 - 6 * h**2 + 3 - y  # noqa: E731
        ends = [-4, -np.sqrt(3), 0, np.sqrt(3), 4]
        roots = np.array(
            [optimize.brentq(f, a, b, xtol=1e-14) for a, b in itertools.pairwise(ends)]
        )
        weights = norm.pdf(roots, 0.3, np.sqrt(0.8)) / np.abs(4 * roots**3 - 12 * roots)
        log_z, _, _, mean = line_output(Expression("He4(h)"), [y], [0.3], 0.8)
        np.testing.assert_allclose(log_z, np.log(weights.sum()), atol=1e-8)
        np.testing.assert_allclose(mean, weights @ roots / weights.sum(), atol=1e-8)


@each_dtype
def test_labels_beside_an_extremum_or_an_atom_count_as_the_nearest(dtype):
    log_z, _, _, mean = line_output(
        Expression("He4(h)"), [-6.0 - 1e-6, -6.0], [0.5, 0.5], 0.5, dtype
    )
    assert np.isfinite(log_z).all()
    # Two roots at ±√3, with weights of the belief alone.
    root = np.sqrt(3)
    np.testing.assert_allclose(mean, root * np.tanh(root * 0.5 / 0.5), atol=5e-3)
    near, *_ = line_output(Parity(k=1), [0.9, 1.0], [0.2, 0.2], 0.5, dtype)
    assert near[0] == near[1]


def test_jumps_are_no_roots():
    *_, mean = line_output(Expression("h + 3*sign(h)"), [3.5, -4.0], [0.0, 0.0], 0.9)
    np.testing.assert_allclose(mean, [0.5, -1.0], atol=1e-9)


@pytest.mark.parametrize(
    ("lower", "upper"), [(-np.inf, 0.2), (0.2, np.inf), (-0.5, 0.7), (0.1, 0.100001), (2, 3)]
)
def test_intervals_near_and_far(lower, upper):
    omega = np.linspace(-30, 30, 25)
    with jax.enable_x64(True):
        arguments = [jnp.asarray(x) for x in np.broadcast_arrays(lower * 1.0, upper, omega)]
        log_p, first, second = interval_output(*arguments, jnp.asarray(0.5))
    a, b = (lower - omega) / np.sqrt(0.5), (upper - omega) / np.sqrt(0.5)
    a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)
    expected = norm.logcdf(b) + np.log1p(-np.exp(norm.logcdf(a) - norm.logcdf(b)))
    np.testing.assert_allclose(log_p, expected, rtol=1e-6, atol=1e-12)
    # The truncated mean lies inside, and its variance is positive.
    mean = omega + 0.5 * np.asarray(first)
    assert (mean >= lower - 1e-9).all()
    assert (mean <= upper + 1e-9).all()
    assert (0.5 + 0.25 * np.asarray(second) > -1e-9).all()


@each_line
@pytest.mark.parametrize("variance", [1e-2, 0.6])
def test_score_and_curvature_are_derivatives_on_the_line(target, variance):
    omega, h = sample_line(50, variance=variance)
    step = 1e-4 * np.sqrt(variance)
    with jax.enable_x64(True):
        y = np.asarray(target(jnp.asarray(h)[:, None]))
        channel = line_level_set(target)
        prepared = channel.prepare(jnp.asarray(y))
        v = jnp.full((1, 1), variance)
        low, at, high = (
            jax.tree.map(np.asarray, channel.output(prepared, jnp.asarray(x)[None], v))
            for x in (omega - step, omega, omega + step)
        )
    score = (high.log_evidence - low.log_evidence) / (2 * step)
    curvature = (high.score[0] - low.score[0]) / (2 * step)
    np.testing.assert_allclose(at.score[0], score, atol=1e-6 / step * 1e-3)
    scale = 1 / variance
    np.testing.assert_allclose(at.curvature[0, 0] / scale, curvature / scale, atol=1e-4)


@each_line
@pytest.mark.parametrize("variance", [1e-3, 0.6])
def test_predictions_against_an_adaptive_integral(target, variance):
    omega = np.linspace(-2, 2, 5)
    with jax.enable_x64(True):
        channel = line_level_set(target)
        v = jnp.full((1, 1), variance)
        predicted = channel.predict(jnp.asarray(omega)[None], v)
        fine = np.linspace(-9, 9, 400_001)
        g = np.asarray(target(jnp.asarray(omega[:, None] + np.sqrt(variance) * fine)[..., None]))
    expected = (g * norm.pdf(fine)).sum(axis=1) * (fine[1] - fine[0])
    np.testing.assert_allclose(predicted, expected, atol=1e-4)


@each_dtype
@pytest.mark.parametrize(("alpha", "q"), [(0.6, 0.05182), (0.8, 0.21623), (1.0, 0.4763)])
def test_phase_retrieval_has_the_fixed_points_of_state_evolution(dtype, alpha, q):
    with jax.enable_x64(dtype == "float64"):
        channel = line_level_set(PhaseRetrieval())
        information = jax.jit(channel.information)(jnp.full((1, 1), q, dtype))
        assert information.score.dtype == dtype
        j = alpha * float(information.score[0, 0])
    assert j / (1 + j) == pytest.approx(q, abs=2e-5)


@each_line
def test_information_is_twice_the_derivative_of_the_evidence(target):
    # ∂Ψ/∂Q = ½ E[g gᵀ]; a rule that mislabels, or loses a root, breaks it.
    with jax.enable_x64(True):
        channel = line_level_set(target)
        psi = jax.jit(lambda q: channel.information(q).log_evidence)
        for q in (0.1, 0.7):
            at = jnp.full((1, 1), q)
            slope = (psi(at + 1e-4) - psi(at - 1e-4)) / 2e-4
            score = channel.information(at).score[0, 0]
            assert 2 * float(slope) == pytest.approx(float(score), rel=2e-4)
        # By differentiation, through the labels and their roots.
        grad = jax.grad(psi)(at)[0, 0]
        assert float(grad) == pytest.approx(float(slope), rel=1e-4)


def test_information_of_relu_and_sign_against_nested_integrals():
    q, s = 0.4, np.sqrt(0.6)

    def over_omega(f):
        return integrate.quad(lambda w: norm.pdf(w, 0, np.sqrt(q)) * f(w), -6, 6)[0]

    def hazard(a):
        return np.exp(norm.logpdf(a) - norm.logcdf(a))

    sign = over_omega(lambda w: 2 * ndtr(w / s) * hazard(w / s) ** 2 / 0.6)

    def positive(w):  # E[(z/s)²; z > −w/s]
        a = w / s
        return (ndtr(a) - a * norm.pdf(a)) / 0.6

    relu = over_omega(lambda w: positive(w) + ndtr(-w / s) * hazard(-w / s) ** 2 / 0.6)
    at = jnp.full((1, 1), q)
    for target, expected in ((Parity(k=1), sign), (SingleIndex(link="relu"), relu)):
        information = line_level_set(target).information(at)
        assert float(information.score[0, 0]) == pytest.approx(expected, rel=1e-4)
    # E[E[y|ω]²] of the sign: (2/π) asin q.
    square = line_level_set(Parity(k=1)).information(at).square
    assert float(square) == pytest.approx(2 / np.pi * np.arcsin(q), abs=1e-4)


# Two directions


def sample_plane(count, *, v, seed=0):
    rng = np.random.default_rng(seed)
    omega = np.linalg.cholesky(np.eye(2) - v) @ rng.standard_normal((2, count))
    return omega, omega + np.linalg.cholesky(v) @ rng.standard_normal((2, count))


def curve(shape, y):
    """Points (2, k) along {g = y}, and weights dt/|∇g| for a parameter t."""
    if shape == "circle":
        t = np.linspace(0, 2 * np.pi, 20_001)[:-1]
        return np.sqrt(y) * np.stack([np.cos(t), np.sin(t)]), np.full(t.shape, 0.5 * (t[1] - t[0]))
    if shape == "product":
        t = np.linspace(-25, 25, 50_001)
        h1 = np.concatenate([np.exp(t), -np.exp(t)])
        return np.stack([h1, y / h1]), np.full(h1.shape, t[1] - t[0])
    t = np.linspace(-8, 8, 100_001)
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


@each_dtype
@each_plane
@pytest.mark.parametrize("scale", [0.02, 1.0])
def test_the_curve_is_integrated(dtype, shape, scale):
    target, v = PLANES[shape], scale * V2
    omega, h = sample_plane(150, v=v)
    with jax.enable_x64(dtype == "float64"):
        y = np.asarray(target(jnp.asarray(h.T, dtype)))
        w, covariance = jnp.asarray(omega, dtype), jnp.asarray(v, dtype)
        out = jax.jit(plane_level_set(target))(jnp.asarray(y), w, covariance)
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
    omega, h = sample_plane(100, v=0.3 * np.eye(2))
    y = (h**2).sum(axis=0)
    with jax.enable_x64(True):
        out = plane_level_set(PLANES["circle"])(
            jnp.asarray(y), jnp.asarray(omega), 0.3 * jnp.eye(2, dtype=jnp.float64)
        )
    length = np.linalg.norm(omega, axis=0)
    k = np.sqrt(y) * length / 0.3
    radial = np.sqrt(y) * ive(1, k) / i0e(k) / length
    expected = (radial - 1) * omega / 0.3
    log_z = np.log(i0e(k)) + k - (y + length**2) / 0.6 - np.log(2 * 0.3)
    assert np.median(np.abs(out.score - expected)) < 1e-3
    assert np.median(np.abs(out.log_evidence - log_z)) < 1e-3
    assert np.abs(out.log_evidence - log_z).mean() < 5e-3


@each_plane
def test_score_and_curvature_are_derivatives_in_the_plane(shape):
    target, v, step = PLANES[shape], 0.2 * V2, 0.02
    omega, h = sample_plane(100, v=v)
    with jax.enable_x64(True):
        y, channel = target(jnp.asarray(h.T)), plane_level_set(target)
        f = jax.jit(lambda w: channel(y, w, jnp.asarray(v)))
        at = f(jnp.asarray(omega))
        for i in range(2):
            move = step * np.eye(2)[:, [i]]
            low, high = f(jnp.asarray(omega - move)), f(jnp.asarray(omega + move))
            score = (high.log_evidence - low.log_evidence) / (2 * step)
            curvature = (high.score - low.score) / (2 * step)
            # In units of the belief, whose widths are 0.3 and 0.25.
            assert np.median(np.abs(at.score[i] - score)) * 0.3 < 5e-3
            assert np.median(np.abs(at.curvature[:, i] - curvature)) * 0.09 < 1e-2


def test_a_label_out_of_reach_is_taken_at_its_nearest_point():
    # h1 + h2³ = 40 from ω = 0, V = 1e-2: far out, g is as good as linear for the belief.
    with jax.enable_x64(True):
        channel = plane_level_set(Expression("h1 + 2*h2"))
        v = 0.01 * jnp.eye(2)
        out = channel(jnp.asarray([10.0]), jnp.zeros((2, 1)), v)
        mean, cov = posterior(out, jnp.zeros((2, 1)), v)
    n = np.array([1, 2]) / np.sqrt(5)
    np.testing.assert_allclose(np.asarray(mean)[:, 0], 10 / np.sqrt(5) * n, atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(cov)[..., 0], 0.01 * (np.eye(2) - np.outer(n, n)), atol=1e-8
    )


@pytest.mark.slow
def test_information_in_the_plane():
    # h1² + h2²: Q = q I stays isotropic, and the average is a double integral of Bessel functions.
    q = 0.3
    with jax.numpy_rank_promotion("allow"):
        information = plane_level_set(PLANES["circle"]).information(q * jnp.eye(2))
    rng = np.random.default_rng(0)
    omega = np.sqrt(q) * rng.standard_normal((2, 10**6))
    h = omega + np.sqrt(1 - q) * rng.standard_normal((2, 10**6))
    rho, length = np.linalg.norm(h, axis=0), np.linalg.norm(omega, axis=0)
    k = rho * length / (1 - q)
    draws = (rho * ive(1, k) / i0e(k) - length) ** 2 / (1 - q) ** 2 / 2
    expected, sigma = draws.mean(), draws.std() / 1e3
    score = np.asarray(information.score)
    assert abs(np.trace(score) / 2 - expected) < 5 * sigma + 5e-3
    assert abs(score[0, 1]) < 5e-3
    # E[E[y|ω]²], E[y|ω] = |ω|² + 2 (1 − q).
    square = 8 * q**2 + 2 * (2 * q) * 2 * (1 - q) + 4 * (1 - q) ** 2
    assert float(information.square) == pytest.approx(square, rel=1e-2)


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
