"""The quadrature channel and the targets made of a kernel, against independent integrators."""

import functools
import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from mirage.channels.averages import FLOATS, in_blocks
from mirage.channels.channel import posterior
from mirage.channels.quadrature import SPACING, Quadrature, ball, quadrature, smallest_noise
from mirage.targets import (
    Committee,
    Expression,
    FlippedParity,
    Hermite,
    Logistic,
    PhaseRetrieval,
    Poisson,
    Polynomial,
    SingleIndex,
)

# Compilations of many channels: with the long checks.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 30])
def test_blocks_of_samples_are_all_of_them_in_their_order(count):
    """Eight at once at most: one block, whole ones, and a last one that is filled up."""
    x, y = np.arange(count) + 0.5, np.arange(2 * count).reshape(count, 2) - 3.0
    one = lambda sample: (sample[0] * sample[1], sample[1].sum())  # noqa: E731
    product, total = in_blocks(one, (jnp.asarray(x), jnp.asarray(y)), floats=FLOATS // 8)
    np.testing.assert_allclose(product, x[:, None] * y, rtol=1e-6)
    np.testing.assert_allclose(total, y.sum(axis=1), rtol=1e-6)


# With g in numpy (None for a kernel) and labels that are neither likely nor out of reach, for a
# wide belief around 0.4 and for a narrow one.
LINES = [
    (SingleIndex(noise=0.1), np.tanh, 0.7, 0.9),
    (PhaseRetrieval(noise=0.01), np.square, 1.3, 0.4),
    (Hermite(terms=[[1.0, [3]]], noise=0.05), lambda h: (h**3 - 3 * h) / 6**0.5, -0.4, -0.9),
    (Logistic(gain=2.0), None, -1.0, -1.0),
    (Poisson(), None, 3.0, 2.0),
]
SMOOTH = [
    *((target, y) for target, _, y, _ in LINES),
    (Polynomial(noise=0.5), 2.5),
    (Committee(noise=0.05), 0.3),
    (Expression("h1**2 + h2*h3", noise=0.6), 0.8),
]


def named(pairs):
    return [f"{target.name()}-{target.rank}" for target, *_ in pairs]


def density(target, g=None):
    """P(y|h) in numpy, h of one direction for kernels."""
    if isinstance(target, Logistic):
        return lambda y, h: 1 / (1 + np.exp(-target.gain * y * h))
    if isinstance(target, Poisson):
        log_rate = math.log(target.rate)
        return lambda y, h: np.exp(
            y * (log_rate + target.gain * h)
            - np.exp(log_rate + target.gain * h)
            - special.gammaln(y + 1)
        )
    scale = math.sqrt(2 * math.pi * target.noise)
    return lambda y, h: np.exp(-((y - g(h)) ** 2) / (2 * target.noise)) / scale


def belief(rank):
    """A mean and a covariance with something everywhere."""
    omega = np.array([0.4, -0.3, 0.2])[:rank]
    root = np.array([[0.8, 0, 0], [0.3, 0.7, 0], [-0.1, 0.2, 0.6]])[:rank, :rank]
    return omega, root @ root.T


channel_of = functools.cache(quadrature)


@eqx.filter_jit
def informed(channel, overlap):
    return channel.information(overlap)


@eqx.filter_jit
def _run(channel, y, omega, covariance):
    return channel(y, omega, covariance)


@eqx.filter_jit
def _predicted(channel, omega, covariance):
    return channel.predict(omega, covariance)


def run(channel, y, omega, covariance):
    """The channel in float64, in numpy."""
    with jax.enable_x64(True):
        arrays = (jnp.asarray(a, jnp.float64) for a in (y, omega, covariance))
        return jax.tree.map(np.asarray, _run(channel, *arrays))


@pytest.mark.parametrize(("target", "g", "wide", "narrow"), LINES, ids=named(LINES))
@pytest.mark.parametrize("v", [0.64, 1e-3])
def test_on_a_line_it_is_the_integral(target, g, wide, narrow, v):
    p, omega, y = density(target, g), 0.4, wide if v > 0.1 else narrow

    def moment(k):
        def integrand(z):
            weight = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
            return z**k * p(y, omega + math.sqrt(v) * z) * weight

        points = np.linspace(-6, 6, 25)
        return integrate.quad(integrand, -8, 8, points=points, limit=400, epsabs=1e-15)[0]

    z0, z1, z2 = (moment(k) for k in range(3))
    mean, variance = z1 / z0, z2 / z0 - (z1 / z0) ** 2
    out = run(channel_of(target), y, [omega], [[v]])
    assert out.log_evidence == pytest.approx(math.log(z0), abs=1e-5)
    assert out.score[0] * math.sqrt(v) == pytest.approx(mean, abs=1e-5)
    assert out.curvature[0, 0] * v == pytest.approx(variance - 1, abs=1e-5)


PLANES = [
    (Polynomial(noise=0.5), lambda h: math.sqrt(2.5) * (h[..., 0] ** 2 + h[..., 1] ** 2 / 2)),
    (Committee(noise=0.05), lambda h: np.tanh(h).mean(axis=-1)),
]


@pytest.mark.parametrize(("target", "g"), PLANES, ids=named(PLANES))
def test_on_a_plane_it_is_the_integral(target, g):
    (omega, v), y = belief(2), 0.6
    x, w = np.polynomial.legendre.leggauss(400)
    z = np.stack(np.meshgrid(7 * x, 7 * x, indexing="ij"), axis=-1)
    h = omega + z @ np.linalg.cholesky(v).T
    mass = np.multiply.outer(w, w) * density(target, g)(y, h) * np.exp(-(z**2).sum(axis=-1) / 2)
    total = mass.sum()
    mean = np.einsum("ij,ijk->k", mass, h) / total
    covariance = np.einsum("ij,ijk,ijl->kl", mass, h, h) / total - np.outer(mean, mean)
    out = run(channel_of(target), y, omega, v)
    assert out.log_evidence == pytest.approx(math.log(total * 49 / (2 * math.pi)), abs=1e-4)
    found_mean, found_covariance = posterior(out, omega, v)
    np.testing.assert_allclose(found_mean, mean, atol=1e-4)
    np.testing.assert_allclose(found_covariance, covariance, atol=1e-4)


@pytest.mark.parametrize(("target", "y"), SMOOTH, ids=named(SMOOTH))
def test_score_and_curvature_are_derivatives_of_the_evidence(target, y):
    r, step = target.rank, 1e-3
    omega, v = belief(r)
    moved = omega[:, None] + step * np.concatenate([np.zeros((r, 1)), np.eye(r), -np.eye(r)], 1)
    out = run(channel_of(target), np.full(2 * r + 1, y), moved, v)
    up, down = slice(1, r + 1), slice(r + 1, None)
    slope = (out.log_evidence[up] - out.log_evidence[down]) / (2 * step)
    bend = (out.score[:, up] - out.score[:, down]) / (2 * step)
    np.testing.assert_allclose(out.score[:, 0], slope, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(out.curvature[..., 0], bend, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("target", [SingleIndex(), Polynomial()], ids=["line", "plane"])
def test_it_is_differentiable_in_the_noise(target):
    noise, step, (omega, v) = 0.4, 1e-4, belief(target.rank)

    @jax.jit
    @jax.value_and_grad
    def evidence(noise):
        channel = Quadrature(target, noise, SPACING[target.rank])
        return channel(jnp.asarray(0.5), jnp.asarray(omega), jnp.asarray(v)).log_evidence

    with jax.enable_x64(True):
        (down, _), (_, slope), (up, _) = (
            evidence(jnp.asarray(noise + s)) for s in (-step, 0.0, step)
        )
    assert float(slope) == pytest.approx(float(up - down) / (2 * step), rel=1e-6)


def test_the_information_is_differentiable_in_the_noise():
    noise, step = 0.4, 1e-3

    @jax.jit
    @jax.value_and_grad
    def evidence(noise):
        overlap = jnp.full((1, 1), 0.3)
        return Quadrature(SingleIndex(), noise, 0.2).information(overlap).log_evidence

    with jax.enable_x64(True):
        (down, _), (_, slope), (up, _) = (
            evidence(jnp.asarray(noise + s)) for s in (-step, 0.0, step)
        )
    assert float(slope) == pytest.approx(float(up - down) / (2 * step), rel=1e-4)


BATCHED = [SMOOTH[0], SMOOTH[4], SMOOTH[-1]]


@pytest.mark.parametrize(("target", "y"), BATCHED, ids=named(BATCHED))
def test_any_batch_in_float32(target, y):
    channel, (omega, v) = channel_of(target), belief(target.rank)
    many = omega[:, None, None] + np.linspace(-0.5, 0.5, 2 * 150).reshape(1, 2, 150)
    exact = run(channel, np.full((2, 150), y), many, v)
    single = _run(
        channel,
        jnp.full((2, 150), y, jnp.float32),
        jnp.asarray(many, jnp.float32),
        jnp.asarray(v, jnp.float32),
    )
    for found, expected in zip(single, exact, strict=True):
        assert found.dtype == jnp.float32
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)
    one = run(channel, y, many[:, 1, 7], v)
    np.testing.assert_allclose(one.curvature, exact.curvature[..., 1, 7], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("target", [SingleIndex(noise=0.1), Polynomial(noise=0.5), Poisson()])
def test_narrow_beliefs_keep_their_curvature_in_float32(target):
    r, v = target.rank, 1e-5
    out = _run(channel_of(target), jnp.asarray(1.0), jnp.full((r,), 0.8), v * jnp.eye(r))
    exact = run(channel_of(target), 1.0, np.full(r, 0.8), v * np.eye(r))
    np.testing.assert_allclose(out.score, exact.score, rtol=1e-3)
    np.testing.assert_allclose(out.curvature, exact.curvature, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("target", "y"), SMOOTH, ids=named(SMOOTH))
def test_the_prediction_is_the_mean_of_g(target, y):
    omega, v = belief(target.rank)
    n = 2**16
    z = np.random.default_rng(0).normal(size=(n, target.rank))
    with jax.enable_x64(True):
        g = np.asarray(target(jnp.asarray(omega + z @ np.linalg.cholesky(v).T)))
        found = _predicted(channel_of(target), jnp.asarray(omega), jnp.asarray(v))
    assert abs(float(found) - g.mean()) < 5 * g.std() / math.sqrt(n)


INFORMED = [
    (SingleIndex(noise=0.1), 0.005),
    (Logistic(gain=2.0), 0.002),
    pytest.param(Poisson(), 0.002, marks=pytest.mark.slow),
    pytest.param(Polynomial(noise=1.0), 0.02, marks=pytest.mark.slow),
    pytest.param(Expression("h1**2 + h2*h3", noise=0.6), 0.04, marks=pytest.mark.slow),
]


@pytest.mark.optimised
@pytest.mark.parametrize(("target", "tolerance"), INFORMED)
def test_the_information_is_that_of_sampled_labels(target, tolerance):
    r, n = target.rank, 2**14
    overlap = np.diag([0.5, 0.3, 0.2][:r])
    rng = np.random.default_rng(1)
    omega = np.sqrt(np.diag(overlap))[:, None] * rng.normal(size=(r, n))
    h = omega + np.sqrt(1 - np.diag(overlap))[:, None] * rng.normal(size=(r, n))
    channel = channel_of(target)
    with jax.enable_x64(True):
        y = np.asarray(target.draw(jax.random.key(0), jnp.asarray(h.T)))
        found = jax.tree.map(np.asarray, informed(channel, jnp.asarray(overlap)))
        mean = np.asarray(_predicted(channel, jnp.asarray(omega), jnp.asarray(np.eye(r) - overlap)))
    out = run(channel, y, omega, np.eye(r) - overlap)
    for value, samples in (
        (found.score, out.score[:, None] * out.score[None]),
        (found.log_evidence, out.log_evidence),
        (found.square, mean**2),
    ):
        error = 5 * samples.std(axis=-1) / math.sqrt(n)
        rule = tolerance * np.abs(value).max()
        assert (np.abs(value - samples.mean(axis=-1)) <= error + rule).all()


@pytest.mark.parametrize("target", [Logistic(gain=1.5), Poisson()], ids=["logistic", "poisson"])
def test_the_labels_that_are_summed_are_all_of_them(target):
    h = np.linspace(-4, 4, 9)
    total = sum(density(target)(y, h) for y in target.label_values())
    np.testing.assert_allclose(total, 1, rtol=1e-12)


class Counted(Poisson):
    """The same target, its labels not listed."""

    def label_values(self):
        return None


@pytest.mark.slow
def test_draws_stand_in_for_labels_that_are_too_many_to_list():
    assert Poisson(rate=0.5, gain=2.0).label_values() is None
    overlap = jnp.full((1, 1), 0.4)
    summed, drawn = (informed(channel_of(t), overlap) for t in (Poisson(), Counted()))
    assert float(drawn.score[0, 0]) == pytest.approx(float(summed.score[0, 0]), rel=0.05)
    assert float(drawn.log_evidence) == pytest.approx(float(summed.log_evidence), rel=0.05)


def test_the_evidence_grows_by_half_the_information():
    """∂/∂Q E log Z = ½ E[g_out²]."""
    channel = channel_of(Logistic(gain=2.0))

    @jax.jit
    def both(q):
        averages = channel.information(q)
        return averages.log_evidence.sum(), averages.score

    with jax.enable_x64(True):
        slope, score = jax.grad(both, has_aux=True)(jnp.full((1, 1), 0.4))
    assert float(slope[0, 0]) == pytest.approx(float(score[0, 0]) / 2, rel=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_nodes_have_the_moments_of_the_normal_law(rank):
    z, w = ball(rank, SPACING[rank])
    np.testing.assert_allclose(w @ z, 0, atol=1e-12)
    np.testing.assert_allclose((w * z.T) @ z, np.eye(rank), atol=2e-5)
    np.testing.assert_allclose(w @ z**4, 3, rtol=1e-3)


@pytest.mark.parametrize(
    "target",
    [
        PhaseRetrieval(),
        Hermite(terms=[[1.0, [3]]]),
        Polynomial(),
        pytest.param(Committee(rank=3), marks=pytest.mark.slow),
    ],
    ids=lambda t: f"{t.name()}-{t.rank}",
)
def test_at_the_smallest_noise_most_labels_are_resolved(target):
    noise, n = smallest_noise(target), 64
    fine = Quadrature(target, noise, SPACING[target.rank] / 1.5)
    coarse = Quadrature(target, noise, SPACING[target.rank])
    rng = np.random.default_rng(0)
    h = rng.normal(size=(n, target.rank))
    with jax.enable_x64(True):
        y = np.asarray(target(jnp.asarray(h))) + math.sqrt(noise) * rng.normal(size=n)
    arguments = y, 0.1 * h.T, np.eye(target.rank)
    found, expected = run(coarse, *arguments), run(fine, *arguments)
    error = np.abs(found.log_evidence - expected.log_evidence)
    assert np.quantile(error, 0.9) < 5e-3
    distance = np.linalg.norm(found.score - expected.score, axis=0)
    assert np.quantile(distance, 0.9) < 1e-2 * np.linalg.norm(expected.score, axis=0).max()


REFUSED = [
    (Committee(rank=4, noise=1.0), "target=committee: rank 4; the quadrature channel goes up to"),
    (Committee(), "target.noise=0.0: too little for the quadrature channel, and target=committee"),
    (Hermite(noise=1e-3), "target.noise=0.001: "),
    (FlippedParity(), "target=flipped_parity: the quadrature channel needs log P(y|h)"),
    (Poisson(rate=1e4, gain=2.0), "target=poisson: P(y|h) is too sharp in h"),
]


@pytest.mark.parametrize(("target", "message"), REFUSED, ids=named(REFUSED))
def test_what_it_cannot_do_is_refused(target, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        quadrature(target)
    assert "\n" not in str(error.value)


def test_the_noise_that_is_asked_for_is_enough():
    with pytest.raises(ValueError, match="at least") as error:
        quadrature(Polynomial())
    (asked,) = re.findall(r"at least ([0-9.e-]+)$", str(error.value))
    assert quadrature(Polynomial(noise=float(asked))).noise == float(asked)


@pytest.mark.parametrize("h", [-1.2, 0.0, 0.8])
@pytest.mark.parametrize("target", [Logistic(gain=2.0), Poisson(rate=2.0, gain=0.5)])
def test_drawn_labels_have_the_frequencies_of_the_kernel(target, h):
    n = 40_000
    y = np.asarray(target.draw(jax.random.key(0), jnp.full((n, 1), h)))
    values = target.label_values()
    log_p = target.log_likelihood(jnp.asarray(values, jnp.float32), jnp.full((len(values), 1), h))
    p = np.exp(np.asarray(log_p, np.float64))
    assert np.isin(y, values).all()
    assert p.sum() == pytest.approx(1, abs=1e-4)
    frequency = (y[:, None] == values).mean(axis=0)
    assert (np.abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / n) + 2 / n).all()


def test_flips_have_their_probability():
    n, target = 40_000, FlippedParity(k=3, flip=0.2)
    h = jax.random.normal(jax.random.key(1), (n, 3))
    flipped = float((target.draw(jax.random.key(0), h) != jnp.sign(h).prod(axis=-1)).mean())
    assert abs(flipped - 0.2) < 5 * math.sqrt(0.16 / n)
