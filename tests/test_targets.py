"""Targets: values against formulas, the law of a label given h, the split in parts, bad input."""

import dataclasses
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, ndtr
from tables import TARGETS, label

from mirage.gaussian import rule
from mirage.measures import target_square
from mirage.targets import (
    Committee,
    Expression,
    FlippedParity,
    GrandStaircase,
    Hermite,
    Hierarchical,
    Kernel,
    Logistic,
    NoisySign,
    Parity,
    PhaseRetrieval,
    Poisson,
    Polynomial,
    Quadratic,
    SingleIndex,
    Staircase,
    Target,
    Tree,
)

KERNELS = [target for target in TARGETS if isinstance(target, Kernel)]
NOISY = [
    (target, noise) for target in TARGETS for noise in ([0.0] if target in KERNELS else [0.0, 0.7])
]
each_target = pytest.mark.parametrize("target", TARGETS, ids=label)


def he4(h):
    return h**4 - 6 * h**2 + 3


# g in numpy; the argument is h transposed, so that h[0] is h1.
FORMULAS = [
    (Hermite(), lambda h: (he4(h[0]) + he4(h[1])) / math.sqrt(24)),
    (
        Hermite(terms=[[0.7, [2, 1, 0]], [-1.0, [0, 0, 3]], [2, [0, 0, 0]]]),
        lambda h: 0.7 * (h[0] ** 2 - 1) * h[1] / 2**0.5 - (h[2] ** 3 - 3 * h[2]) / 6**0.5 + 2,
    ),
    (Polynomial(), lambda h: math.sqrt(2.5) * (h[0] ** 2 + h[1] ** 2 / 2)),
    (
        Polynomial(terms=[[2.0, [0, 3]], [1.5, [1, 2]], [-1.0, [0, 0]]]),
        lambda h: 2 * h[1] ** 3 + 1.5 * h[0] * h[1] ** 2 - 1,
    ),
    (Quadratic(), lambda h: math.sqrt(2.5) * (h[0] ** 2 + h[1] ** 2 / 2)),
    (
        Quadratic(rank=3, condition_number=4.0, variance=2 * (1 + 1 / 4 + 1 / 16)),
        lambda h: h[0] ** 2 + h[1] ** 2 / 2 + h[2] ** 2 / 4,
    ),
    (Staircase(), lambda h: h[0] ** 2 + np.sign(h[0] * h[1] * h[2])),
    (GrandStaircase(), lambda h: he4(h[0]) + np.sign(h[0] * h[1] * h[2])),
    (
        Hierarchical(features=3, gamma=1.0, link="He2(h)"),
        lambda h: h[0] ** 2 - 1 + (h[1] ** 2 - 1) / 2 + (h[2] ** 2 - 1) / 3,
    ),
    (
        Hierarchical(features=2, strengths=[1.0, -0.5], link=["h", "abs(h)"]),
        lambda h: h[0] - np.abs(h[1]) / 2,
    ),
    (Parity(), lambda h: np.sign(h[0] * h[1])),
    (Parity(k=1), lambda h: np.sign(h[0])),
    (Parity(k=4), lambda h: np.sign(h[0] * h[1] * h[2] * h[3])),
    (PhaseRetrieval(), lambda h: h[0] ** 2),
    (PhaseRetrieval(power=1.0), lambda h: np.abs(h[0])),
    (PhaseRetrieval(power=3.0), lambda h: np.abs(h[0] ** 3)),
    (SingleIndex(), lambda h: np.tanh(h[0])),
    (SingleIndex(link="relu", gain=-2.0), lambda h: np.maximum(-2 * h[0], 0)),
    (Committee(), lambda h: (np.tanh(h[0]) + np.tanh(h[1])) / 2),
    (Committee(rank=3, link="erf"), lambda h: erf(h).mean(axis=0)),
    (NoisySign(), lambda h: 2 * ndtr(h[0] / math.sqrt(0.5)) - 1),
    (NoisySign(inner_noise=2.0), lambda h: 2 * ndtr(h[0] / math.sqrt(2)) - 1),
    (NoisySign(inner_noise=0.0), lambda h: np.sign(h[0])),
    (Expression(), lambda h: he4(h[0]) + np.sign(h[0] * h[1] * h[2])),
    (Logistic(), lambda h: 2 / (1 + np.exp(-h[0])) - 1),
    (Logistic(gain=-3.0), lambda h: 2 / (1 + np.exp(3 * h[0])) - 1),
    (Poisson(), lambda h: np.exp(h[0])),
    (Poisson(rate=2.0, gain=0.5), lambda h: 2 * np.exp(h[0] / 2)),
    (FlippedParity(), lambda h: 0.8 * np.sign(h[0] * h[1])),
    (FlippedParity(k=3, flip=0.0), lambda h: np.sign(h[0] * h[1] * h[2])),
    (Tree(width=1), lambda h: np.tanh((h[0] ** 2 - 1 + h[0] ** 3 - 3 * h[0]) / math.sqrt(8))),
    (
        Tree(polynomial="z**2", link="h + 1", branches=2, width=2),
        lambda h: 2 + (h[0] ** 2 - h[1] ** 2 + h[2] ** 2 - h[3] ** 2) / 2,
    ),
]


def gaussian(*shape, seed=0):
    h = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(h, jnp.float64 if jax.config.jax_enable_x64 else jnp.float32)


@pytest.mark.parametrize(("target", "formula"), FORMULAS, ids=[label(t) for t, _ in FORMULAS])
def test_values_are_those_of_the_formula(target, formula):
    with jax.enable_x64(True):
        h = gaussian(200, target.rank)
        expected = formula(np.asarray(h).T)
        found = jax.jit(lambda h: target(h))(h)  # what holds arrays has no hash
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_every_target_has_a_formula_here():
    assert {type(target) for target, _ in FORMULAS} == {
        option for option in Target.options().values() if option.__module__.startswith("mirage.")
    }


@each_target
def test_one_label_for_each_index_vector(target):
    rows = gaussian(6, target.rank)
    both = jax.jit(lambda key, h: (target(h), target.draw(key, h)))
    g = np.asarray(both(jax.random.key(0), rows)[0])
    for batch, expected in (((), g[0]), ((6,), g), ((2, 3), g.reshape(2, 3))):
        h = rows[0] if batch == () else rows.reshape(*batch, target.rank)
        value, y = both(jax.random.key(0), h)
        assert value.shape == y.shape == batch
        assert value.dtype == y.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)


@each_target
def test_parts_sum_to_the_target(target):
    with jax.enable_x64(True):
        h = gaussian(200, target.rank)
        g = target(h)
        total = sum(part(h[:, np.asarray(active)]) for part, active in target.parts())
    assert g.dtype == total.dtype == jnp.float64
    np.testing.assert_allclose(total, g, rtol=1e-12, atol=1e-12)


@each_target
def test_the_key_decides_the_label(target):
    own = target in KERNELS
    noisy = target if own else dataclasses.replace(target, noise=0.7)
    h = gaussian(64, target.rank)
    draw = jax.jit(noisy.draw)
    first, again, other = (draw(jax.random.key(k), h) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() if own else (first != other).all()


def own_moments(target, g):
    """Variance and fourth central moment of a label given h, without label noise."""
    if isinstance(target, Poisson):
        return g, g * (1 + 3 * g)
    if isinstance(target, NoisySign | Kernel):  # a sign of mean g
        return 1 - g**2, (1 - g**2) * (1 + 3 * g**2)
    return 0.0, 0.0


@pytest.mark.parametrize(("target", "noise"), NOISY, ids=[f"{label(t)}-{n}" for t, n in NOISY])
def test_a_label_given_h_has_mean_g_and_its_variance(target, noise):
    target = dataclasses.replace(target, noise=noise)
    n, sigmas = 40_000, 5
    for seed in range(3):
        h = gaussian(target.rank, seed=seed)
        g = float(target(h))
        y = np.asarray(target.draw(jax.random.key(seed), jnp.tile(h, (n, 1))), np.float64) - g
        # y − g = (the target's own deviation) + √Δ ξ: its second and fourth moments.
        own, own_fourth = own_moments(target, g)
        variance = own + noise
        fourth = own_fourth + 6 * own * noise + 3 * noise**2
        rounding = 1e-6 * (1 + abs(g))
        assert abs(y.mean()) <= sigmas * math.sqrt(variance / n) + rounding
        spread = math.sqrt(max(fourth - variance**2, 0) / n)
        assert abs((y**2).mean() - variance) <= sigmas * spread + rounding


@pytest.mark.parametrize("inner_noise", [0.3, 2.0])
@pytest.mark.parametrize("h", [-1.1, 0.0, 0.4])
def test_a_noisy_sign_is_positive_with_the_probit_probability(inner_noise, h):
    n, target = 40_000, NoisySign(inner_noise=inner_noise)
    y = target.draw(jax.random.key(3), jnp.full((n, 1), h))
    p = ndtr(h / math.sqrt(inner_noise))
    assert set(np.unique(y)) == {-1, 1}
    assert abs(float((y == 1).mean()) - p) <= 5 * math.sqrt(p * (1 - p) / n)
    assert float(target(jnp.asarray([h]))) == pytest.approx(2 * p - 1, abs=1e-6)


def test_a_noisy_sign_without_noise_is_a_sign():
    h = gaussian(100, 1)
    np.testing.assert_array_equal(
        NoisySign(inner_noise=0.0).draw(jax.random.key(0), h), jnp.sign(h[:, 0])
    )


@pytest.mark.parametrize(("j", "k"), list(itertools.combinations_with_replacement(range(6), 2)))
def test_hermite_terms_are_orthonormal(j, k):
    square = target_square(Hermite(terms=[[1.0, [j, 2]], [1.0, [k, 2]]]))
    assert square == pytest.approx(4 if j == k else 2, rel=1e-10)


@pytest.mark.parametrize("degree", [8, 12, 20])
def test_hermite_terms_of_a_high_degree_are_normalised(degree):
    assert target_square(Hermite(terms=[[1.0, [degree]]])) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("terms", [t.terms for t in TARGETS if isinstance(t, Hermite)], ids=str)
def test_the_variance_of_a_hermite_series_is_the_sum_of_squares(terms):
    assert target_square(Hermite(terms=terms)) == pytest.approx(sum(c**2 for c, _ in terms))


def test_the_default_polynomial_has_variance_6_25():
    points, weights = rule(2)
    with jax.enable_x64(True):
        mean = float(weights @ np.asarray(Polynomial()(jnp.asarray(points))))
    assert target_square(Polynomial()) - mean**2 == pytest.approx(6.25, rel=1e-10)


@each_target
@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_a_noise_that_is_no_variance_is_refused(target, noise):
    with pytest.raises(ValueError, match=re.escape(f"target.noise={noise}: ")):
        dataclasses.replace(target, noise=noise)


@pytest.mark.parametrize("target", KERNELS, ids=label)
def test_a_kernel_takes_no_noise_on_top(target):
    with pytest.raises(ValueError, match=re.escape("target.noise=0.5: expected 0: ")):
        dataclasses.replace(target, noise=0.5)


BAD_TERMS = [
    [],
    "h1**2",
    3,
    [1.0, [2]],
    [[1.0]],
    [[1.0, 2]],
    [[1.0, []]],
    [["a", [1]]],
    [[math.nan, [1]]],
    [[math.inf, [1]]],
    [[1.0, [-1]]],
    [[1.0, [21]]],
    [[1.0, [1.5]]],
    [[1.0, ["1"]]],
    [[1.0, [1]], [1.0, [1, 2]]],
]


@pytest.mark.parametrize("terms", BAD_TERMS, ids=str)
@pytest.mark.parametrize("series", [Hermite, Polynomial])
def test_terms_of_another_form_are_refused(series, terms):
    with pytest.raises(ValueError, match=re.escape(f"target.terms={terms!r}: ")):
        series(terms=terms)


BAD_SETTINGS = [
    (Parity, {"k": 0}),
    (Parity, {"k": 21}),
    (NoisySign, {"inner_noise": -0.5}),
    (NoisySign, {"inner_noise": math.nan}),
    (Logistic, {"gain": 0.0}),
    (Poisson, {"gain": 0.0}),
    (Poisson, {"rate": 0.0}),
    (Poisson, {"rate": -1.0}),
    (Poisson, {"rate": math.nan}),
    (FlippedParity, {"k": 0}),
    (FlippedParity, {"flip": 0.5}),
    (FlippedParity, {"flip": -0.1}),
    (PhaseRetrieval, {"power": 0.0}),
    (PhaseRetrieval, {"power": -1.0}),
    (PhaseRetrieval, {"power": math.inf}),
    (SingleIndex, {"link": "sinh"}),
    (SingleIndex, {"link": "hermite"}),
    (SingleIndex, {"gain": 0.0}),
    (SingleIndex, {"gain": math.nan}),
    (Committee, {"rank": 0}),
    (Committee, {"link": "sinh"}),
    (Expression, {"rank": 0}),
    (Expression, {"rank": 101}),
    (Tree, {"branches": 0}),
    (Tree, {"width": 0}),
    (Tree, {"width_exponent": 0.0}),
    (Tree, {"width_exponent": 1.5}),
    (Tree, {"polynomial": "3"}),
    (Tree, {"polynomial": "exp(z**3)"}),
    (Tree, {"link": "2"}),
]


@pytest.mark.parametrize(("target", "settings"), BAD_SETTINGS, ids=str)
def test_a_bad_setting_is_refused_by_name(target, settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=re.escape(f"target.{name}={value!r}: ")):
        target(**settings)


def test_an_unknown_link_is_answered_with_the_known_ones():
    with pytest.raises(
        ValueError, match="cos, erf, exponential, gelu, quadratic, relu, softplus, tanh"
    ):
        Committee(link="sinh")
