"""Averages over h, z and y: moments, kinks, labels, edges of what is positive semi-definite."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from tables import TARGETS, label

from mirage.targets import (
    Expression,
    FlippedParity,
    Kernel,
    Logistic,
    NoisySign,
    Poisson,
    SingleIndex,
    Target,
)
from mirage.targets.evaluation import values
from mirage.theory.joint_quadrature import (
    ScatteredRule,
    TensorRule,
    labels_given,
    rule,
    split_normal,
)

pytestmark = pytest.mark.optimised


def target_of(rank):
    return Expression("h1", rank=rank)


def random_state(seed, m, r, *, lost=0):
    """M and Q of a W of m neurons, of which `lost` directions outside U are missing."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((m, r + max(m - lost, 0))) / np.sqrt(r + m)
    return w[:, :r], w @ w.T


@eqx.filter_jit
def points_of(rule, overlap, gram):
    return rule(overlap, gram)


@eqx.filter_jit
def slopes(rule, overlap, gram):
    def average(overlap, gram):
        at = rule(overlap, gram)
        return at.weights @ (at.y * jax.nn.relu(at.z[-1]))

    return jax.grad(average, argnums=(0, 1))(overlap, gram)


def moments(points):
    both = np.concatenate([np.asarray(points.h), np.asarray(points.z)])
    return np.asarray(points.weights).sum(), both * np.asarray(points.weights) @ both.T


def covariance(overlap, gram):
    return np.block([[np.eye(overlap.shape[1]), overlap.T], [overlap, gram]])


@pytest.mark.parametrize(
    ("m", "r", "kind", "error"),
    [
        (1, 1, TensorRule, 1e-8),
        (1, 2, TensorRule, 1e-8),
        (2, 1, TensorRule, 1e-8),
        (2, 2, TensorRule, 5e-4),
        (1, 3, TensorRule, 5e-4),
        (3, 2, ScatteredRule, 1e-4),
        (2, 4, ScatteredRule, 1e-4),
    ],
)
def test_the_first_moments_are_m_and_q(m, r, kind, error):
    overlap, gram = random_state(m + 10 * r, m, r)
    found = rule(target_of(r), m)
    assert isinstance(found, kind)
    with jax.enable_x64(True):
        points = points_of(found, jnp.asarray(overlap), jnp.asarray(gram))
    assert points.weights.size <= 400_000
    mass, second = moments(points)
    assert abs(mass - 1) < error
    np.testing.assert_allclose(second, covariance(overlap, gram), atol=error)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), lost=st.integers(0, 2))
def test_any_possible_state_has_its_moments_and_finite_derivatives(seed, lost):
    """Down to W in the span of U (all lost), where the variance of z given h is 0."""
    overlap, gram = random_state(seed, 2, 1, lost=lost)
    chosen = rule(target_of(1), 2, points=30_000)
    with jax.enable_x64(True):
        args = jnp.asarray(overlap), jnp.asarray(gram)
        _, second = moments(points_of(chosen, *args))
        gradients = slopes(chosen, *args)
    np.testing.assert_allclose(second, covariance(overlap, gram), atol=1e-3)
    assert all(np.isfinite(g).all() for g in gradients)


def test_twin_neurons_and_neurons_that_are_directions():
    overlap = np.array([[0.6, 0.0], [0.6, 0.0], [0.0, 1.0]])
    gram = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with jax.enable_x64(True):
        at = points_of(rule(target_of(2), 3), jnp.asarray(overlap), jnp.asarray(gram))
    np.testing.assert_allclose(at.z[0], at.z[1], atol=1e-5)
    np.testing.assert_allclose(at.z[2], at.h[1], atol=1e-5)


@pytest.mark.parametrize("edge", [-20.0, -3.0, -0.4, 0.0, 1.7, 6.0])
def test_what_jumps_at_the_edge_is_integrated_as_if_it_did_not(edge):
    with jax.enable_x64(True):
        x, w = map(np.asarray, split_normal(jnp.asarray(edge), 32))
    assert w.sum() == pytest.approx(1)
    assert w @ (x > edge) == pytest.approx(norm.sf(edge), abs=1e-8)
    assert w @ (x * (x > edge)) == pytest.approx(norm.pdf(edge), abs=1e-7)
    assert w @ x**6 == pytest.approx(15, abs=1e-3)


@pytest.mark.parametrize(("points", "error"), [(20_000, 1e-5), (400_000, 1e-9)])
def test_relu_is_seen_exactly_at_few_nodes(points, error):
    """E[relu'(z) h²], E[relu(z1) relu(z2)]: arc-cosine kernels."""
    overlap, gram = np.array([[0.5], [0.7]]), np.array([[1.0, 0.3], [0.3, 1.0]])
    with jax.enable_x64(True):
        chosen = rule(target_of(1), 2, points=points)
        at = points_of(chosen, jnp.asarray(overlap), jnp.asarray(gram))
    h, z, w = (np.asarray(a) for a in (at.h, at.z, at.weights))
    angle = np.arccos(0.3)
    arc = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    assert w @ np.prod(np.maximum(z, 0), axis=0) == pytest.approx(arc, abs=error)
    assert w @ ((z[0] > 0) * h[0] ** 2) == pytest.approx(0.5, abs=error)
    both = 0.25 + np.arcsin(0.3) / (2 * np.pi)
    assert w @ ((z[0] > 0) * (z[1] > 0)) == pytest.approx(both, abs=error)


@pytest.mark.parametrize("target", TARGETS, ids=label)
def test_labels_given_h_are_a_law_with_mean_g(target):
    h = np.random.default_rng(0).standard_normal((50, target.rank))
    y, p = labels_given(target, h)
    assert y.shape == p.shape == (len(y), 50)
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-9)
    np.testing.assert_allclose((p * y).sum(axis=0), values(target, h), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "target",
    [
        SingleIndex(),
        Logistic(gain=2.0),
        Poisson(),
        NoisySign(),
        FlippedParity(k=1),
    ],
    ids=label,
)
def test_labels_given_h_are_those_that_are_drawn(target):
    h, count = np.array([[0.7]]), 20_000
    drawn = np.asarray(target.draw(jax.random.key(0), jnp.full((count, 1), 0.7)), np.float64)
    y, p = labels_given(target, h)
    for power in (1, 2, 3):
        wanted = (p * y**power).sum()
        error = (drawn**power).std() / np.sqrt(count) + 1e-6
        assert abs((drawn**power).mean() - wanted) < 5 * error


@pytest.mark.parametrize(("m", "r"), [(1, 1), (2, 1), (2, 2)])
def test_label_noise_has_its_variance(m, r):
    """By a rule with few nodes, and as one more number of a sequence."""
    chosen = rule(Expression("tanh(h1)", rank=r, noise=0.3), m)
    with jax.enable_x64(True):
        at = points_of(chosen, jnp.zeros((m, r)), jnp.eye(m))
    h, y, w = (np.asarray(a) for a in (at.h, at.y, at.weights))
    noise = y - np.tanh(h[0])
    for power, wanted in ((1, 0.0), (2, 0.3), (4, 0.27)):
        assert w @ noise**power == pytest.approx(wanted, abs=1e-4)
    assert w @ (noise**2 * h[0] ** 2) == pytest.approx(0.3, abs=1e-4)


class Unheard(Target, abc.ABC):
    @property
    def rank(self):
        return 1

    def __call__(self, h):
        return h[..., 0]

    def draw(self, key, h):
        return self(h) * jax.random.normal(key, h.shape[:-1], h.dtype)


class Countless(Kernel, abc.ABC):
    rank = 1

    def __call__(self, h):
        return h[..., 0]


class Thirds(Countless, abc.ABC):
    def label_values(self):
        return np.array([0.0, 1.0, 2.0])


def test_what_cannot_be_averaged_over_is_refused():
    for target in (Unheard(), Countless(), Poisson(rate=50.0, gain=3.0)):
        with pytest.raises(ValueError, match=r"cannot be averaged over; expected label noise"):
            rule(target, 1)
    with pytest.raises(ValueError, match=r"expected a Kernel with log_likelihood"):
        rule(Thirds(), 1)
    with pytest.raises(ValueError, match="not finite for some h"):
        rule(Expression("log(h)"), 1)
