"""Channels of signs and staircases against Monte Carlo, differences and known fixed points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf
from scipy.stats import multivariate_normal

from mirage.channels.channel import posterior
from mirage.channels.registry import channel_of, make_channel
from mirage.channels.sign_pairs import same_sign
from mirage.channels.signs import SignProduct, independent_signs
from mirage.targets import (
    Expression,
    FlippedParity,
    GrandStaircase,
    NoisySign,
    Parity,
    Staircase,
    Target,
)


def late(target):
    """Three directions compile for long: among the slow tests."""
    return pytest.param(target, marks=pytest.mark.slow)


TARGETS = [
    Parity(),
    Parity(noise=0.3),
    Parity(k=1),
    late(Parity(k=3)),
    FlippedParity(k=2, flip=0.1),
    NoisySign(inner_noise=0.4),
    late(Staircase()),
    late(GrandStaircase()),
    Expression("2*sign(h1*h2)"),
    late(Expression("h2 - 0.5*sign(h1*h2*h3)", noise=0.6)),
]


def name(target):
    return repr(target).replace(" ", "")[:60]


def belief(rank, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rank, rank)) * 0.4
    return rng.normal(size=rank) * 0.5, a @ a.T + 0.3 * np.eye(rank)


def drawn(target, omega, v, count, seed):
    """h from the belief, and a label for each."""
    rng = np.random.default_rng(seed)
    h = rng.multivariate_normal(omega, v, count)
    with jax.enable_x64(True):
        y = jax.jit(target.draw)(jax.random.key(seed), jnp.asarray(h))
    return h, np.asarray(y)


@pytest.mark.parametrize("rho", [-0.95, -0.4, 0.0, 0.6, 0.97])
def test_same_sign_is_the_bivariate_normal_distribution(rho):
    rng, compiled = np.random.default_rng(1), jax.jit(same_sign)
    for a, b in rng.normal(size=(12, 2)) * 2.5:
        law = multivariate_normal([0, 0], [[1, rho], [rho, 1]])
        exact = law.cdf([a, b]) + law.cdf([-a, -b])
        with jax.enable_x64(True):
            out = compiled(*(np.float64(x) for x in (a, b, rho)))
        assert float(out.log_probability) == pytest.approx(np.log(exact), abs=1e-7, rel=1e-9)
        single = compiled(*(np.float32(x) for x in (a, b, rho)))
        assert float(single.log_probability) == pytest.approx(np.log(exact), abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("far", [10.0, 40.0, 1000.0])
def test_far_out_nothing_overflows(far):
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            out = jax.jit(same_sign)(*(dtype(x) for x in (far, -far, 0.3)))
            values = [out.log_probability, *out.first, *out.second]
        assert np.isfinite(np.asarray(values)).all()


def test_the_law_of_independent_signs_on_lines_is_that_on_a_grid():
    """P(s) = (1 + s Π erf(z_i/√2))/2, slopes by differentiation, and finite where P vanishes."""
    rng = np.random.default_rng(3)
    lines, scale = [rng.normal(size=n) for n in (4, 5, 6)], np.array([0.5, 1.0, 2.0])
    grid = np.stack(np.meshgrid(*lines, indexing="ij"))

    def expected(omega, sign):
        z = omega / scale.reshape(3, 1, 1, 1)
        return jnp.log1p(sign * erf(z / np.sqrt(2)).prod(axis=0)) - np.log(2)

    with jax.enable_x64(True):
        omega = [jnp.asarray(x).reshape(np.roll((-1, 1, 1), i)) for i, x in enumerate(lines)]
        signs = jax.jit(independent_signs)
        law = signs(omega, jnp.asarray(scale))
        for place, sign in enumerate((1.0, -1.0)):
            value = jax.jit(expected)(grid, sign)
            slopes = jax.jit(jax.grad(lambda o, s: expected(o, s).sum()))(grid, sign)
            np.testing.assert_allclose(law.log_probability[place], value, rtol=1e-9)
            np.testing.assert_allclose(law.slopes[:, place], slopes, rtol=1e-7)
        far = signs([1e4 * o for o in omega], jnp.asarray(scale))
        assert all(np.isfinite(np.asarray(a)).all() for a in far)


@pytest.mark.parametrize("target", TARGETS, ids=name)
def test_score_and_curvature_are_derivatives_of_the_evidence(target):
    channel, r = channel_of(target), target.rank
    omega, v = belief(r)
    _, labels = drawn(target, omega, v, 6, seed=3)
    with jax.enable_x64(True):
        y, v = jnp.asarray(labels), jnp.asarray(v)

        @jax.jit
        def value(o):
            return channel(y, jnp.broadcast_to(o[:, None], (r, 6)), v)

        out = value(jnp.asarray(omega))
        assert np.isfinite(out.log_evidence).all()
        for i in range(r):
            step = jnp.zeros(r).at[i].set(1e-4)
            up, down = value(omega + step), value(omega - step)
            slope = (up.log_evidence - down.log_evidence) / 2e-4
            np.testing.assert_allclose(out.score[i], slope, rtol=2e-5, atol=2e-6)
            bend = (up.score - down.score) / 2e-4
            np.testing.assert_allclose(out.curvature[:, i], bend, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("target", TARGETS, ids=name)
def test_the_posterior_mean_is_that_of_drawn_pairs(target):
    """E[h s] for functions s of the label: E[E[h|y] s(y)] = E[h s(y)] within five sigma."""
    channel = channel_of(target)
    omega, v = belief(target.rank, seed=2)
    count = 20_000
    h, y = drawn(target, omega, v, count, seed=5)
    with jax.enable_x64(True):
        o = jnp.broadcast_to(jnp.asarray(omega)[:, None], (target.rank, count))
        out = jax.jit(channel)(jnp.asarray(y), o, jnp.asarray(v))
        mean, cov = posterior(out, o, jnp.asarray(v))
    mean, cov = np.asarray(mean), np.asarray(cov)
    for s in (np.ones(count), np.sign(y), np.tanh(y - y.mean())):
        rest = (h.T - mean) * s
        sigma = rest.std(axis=1) / np.sqrt(count)
        assert (np.abs(rest.mean(axis=1)) < 5 * sigma).all()
        square = ((h.T - mean)[:, None] * (h.T - mean)[None] - cov) * s
        sigma = square.std(axis=2) / np.sqrt(count) + 1e-12
        assert (np.abs(square.mean(axis=2)) < 5 * sigma).all()


@pytest.mark.parametrize("target", [Parity(k=1), Parity(), late(Parity(k=3))], ids=name)
def test_probabilities_of_both_signs_add_up(target):
    channel, r = channel_of(target), target.rank
    omega, v = belief(r, seed=7)
    with jax.enable_x64(True):
        y = jnp.asarray([1.0, -1.0])
        o = jnp.broadcast_to(jnp.asarray(omega)[:, None], (r, 2))
        probability = np.exp(jax.jit(channel)(y, o, jnp.asarray(v)).log_evidence)
        predicted = jax.jit(channel.predict)(o, jnp.asarray(v))
    assert probability.sum() == pytest.approx(1, abs=2e-6 if r == 3 else 1e-12)
    assert float(predicted[0]) == pytest.approx(probability[0] - probability[1], abs=2e-6)


@pytest.mark.parametrize(
    ("target", "alpha", "overlap"),
    [
        (Parity(), 2.5, [0.01336, 0.01336]),
        (Parity(), 4.0, [0.64384, 0.64384]),
        pytest.param(Staircase(), 1.0, [0.2794, 0, 0], marks=pytest.mark.slow),
        pytest.param(Staircase(), 1.2, [0.4934, 0, 0], marks=pytest.mark.slow),
        pytest.param(Staircase(), 3.0, [1, 0.2427, 0.2427], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_known_fixed_points_stay_where_they_are(target, alpha, overlap):
    channel = channel_of(target)
    with jax.enable_x64(True):
        q = jnp.diag(jnp.asarray(overlap, np.float64))
        information = jax.jit(channel.information)(q)
        hat = alpha * np.asarray(information.score)
    np.testing.assert_allclose(np.diag(hat) / (1 + np.diag(hat)), overlap, atol=2e-4)


@pytest.mark.parametrize(
    "target",
    [
        Parity(),
        *map(late, (FlippedParity(k=2, flip=0.2), Parity(k=3), Staircase(), GrandStaircase())),
    ],
    ids=name,
)
def test_evidence_and_score_belong_together(target):
    """∂E[log P(y|ω)]/∂Q = ½ E[g gᵀ], both by the same rules."""
    channel, r = channel_of(target), target.rank
    with jax.enable_x64(True):
        q = jnp.asarray([0.3, 0.15, 0.2][:r])

        def evidence(q):
            return channel.information(jnp.diag(q)).log_evidence

        slope = np.asarray(jax.jit(jax.grad(evidence))(q))
        score = np.diag(jax.jit(channel.information)(jnp.diag(q)).score)
    np.testing.assert_allclose(slope, score / 2, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("target", [Parity(k=3), Staircase(), GrandStaircase()], ids=name)
def test_averages_agree_with_scattered_points(target):
    channel = channel_of(target)
    full = channel.for_any_overlap()
    assert channel.diagonal_only
    assert not full.diagonal_only
    with jax.enable_x64(True):
        q = jnp.diag(jnp.asarray([0.4, 0.3, 0.2]))
        one, other = jax.jit(channel.information)(q), jax.jit(full.information)(q)
    np.testing.assert_allclose(np.diag(one.score), np.diag(other.score), rtol=0.05)
    assert float(one.log_evidence) == pytest.approx(float(other.log_evidence), abs=0.02)
    assert float(one.square) == pytest.approx(float(other.square), rel=0.02)


@pytest.mark.slow
def test_formulas_find_the_channel_of_what_they_are():
    typed = channel_of(Expression("sign(h1*h2)"))
    assert typed == channel_of(Parity())
    staircase = channel_of(Expression("h1**2 + sign(h1*h2*h3)"))
    known = channel_of(Staircase())
    omega, v = belief(3)
    _, y = drawn(Staircase(), omega, v, 5, seed=1)
    with jax.enable_x64(True):
        o = jnp.broadcast_to(jnp.asarray(omega)[:, None], (3, 5))
        both = jax.jit(lambda *a: (staircase(*a).score, known(*a).score))
        outs = both(jnp.asarray(y), o, jnp.asarray(v))
    np.testing.assert_allclose(outs[0], outs[1], rtol=1e-9)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Parity(k=4), "target.k=4"),
        (Expression("h1*h2*h3"), "target.noise"),
        (Expression("h1*h2*h3*h4", noise=0.5), "rank 4"),
        (Expression("sign(h1) + sign(h2)"), "target.noise > 0"),
        (Staircase(noise=1e-4), "target.noise=0.0001"),
    ],
    ids=str,
)
def test_what_has_no_channel_says_what_would(target, words):
    with pytest.raises(ValueError, match=r"expected|goes up to") as error:
        channel_of(target)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_channel_can_be_registered():
    class OwnSign(Target):
        @property
        def rank(self):
            return 1

        def __call__(self, h):
            return jnp.sign(h[..., 0])

    @make_channel.register
    def _(target: OwnSign):
        return SignProduct(1, flip=0.25)

    assert channel_of(OwnSign()) == SignProduct(1, flip=0.25)
