"""Losses, activations and the network's start: derivatives, closed forms, Gaussian averages."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jaxtyping import TypeCheckError
from jaxtyping import config as jaxtyping_config
from scipy.integrate import quad
from tables import ACTIVATIONS, LOSSES, label

from mirage.activations import Activation, Cos, Hermite, Quadratic, Relu, Tanh
from mirage.losses import (
    Absolute,
    Correlation,
    Huber,
    LogCosh,
    Loss,
    Mse,
    OneOf,
    Preprocessed,
    PseudoHuber,
)
from mirage.network import TwoLayer, output

EVERY_LOSS = [*LOSSES, Huber(delta=0.3), PseudoHuber(delta=2.0), Preprocessed(transform="tanh(y)")]
each_loss = pytest.mark.parametrize("loss", EVERY_LOSS, ids=label)
# The correlation loss is linear: there is no label that it fits.
with_a_minimum = pytest.mark.parametrize(
    "loss", [loss for loss in EVERY_LOSS if loss != Correlation()], ids=label
)
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=label)

# Central differences in float64 at step 1e-5: truncation h²/6 · |f'''| ≤ 3e-9 and rounding
# 1e-16 |f| / h ≤ 1e-9 for the functions and ranges here.
STEP, SLOPE_ERROR = 1e-5, 1e-8


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def central_difference(function, at):
    return (function(at + STEP) - function(at - STEP)) / (2 * STEP)


@each_loss
@pytest.mark.usefixtures("x64")
def test_the_slope_is_the_derivative_in_the_prediction(loss):
    t, y = np.random.default_rng(0).uniform(-3, 3, (2, 500))
    kinks = [0.0, getattr(loss, "delta", 0.0)]
    away = (np.abs(np.abs(t - y)[:, None] - kinks) > 10 * STEP).all(axis=1)
    t, y = jnp.asarray(t[away]), jnp.asarray(y[away])
    expected = central_difference(lambda prediction: loss(prediction, y), t)
    np.testing.assert_allclose(loss.slope(t, y), expected, atol=SLOPE_ERROR)


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        (Mse(), lambda y: -y),
        (Huber(), lambda y: -np.clip(y, -1, 1)),
        (Huber(delta=0.3), lambda y: -np.clip(y, -0.3, 0.3)),
        (PseudoHuber(), lambda y: -y / np.sqrt(1 + y**2)),
        (PseudoHuber(delta=2.0), lambda y: -y / np.sqrt(1 + (y / 2) ** 2)),
        (LogCosh(), lambda y: -np.tanh(y)),
        (Absolute(), lambda y: -np.sign(y)),
        (Correlation(), lambda y: -y),
        (Preprocessed(), lambda y: -y / (1 + np.abs(y))),
        (Preprocessed(transform="tanh(2*y)"), lambda y: -np.tanh(2 * y)),
    ],
    ids=lambda x: label(x) if isinstance(x, Loss) else "",
)
def test_what_a_network_at_zero_sees_of_the_label(loss, slope):
    y = np.asarray([-500.0, -2.5, -1.3, -0.2, 0.1, 0.7, 4.0, 500.0], np.float32)
    np.testing.assert_allclose(loss.slope(jnp.zeros(8), jnp.asarray(y)), slope(y), rtol=1e-5)


@with_a_minimum
@pytest.mark.usefixtures("x64")
def test_a_loss_is_convex_in_the_prediction(loss):
    t = jnp.linspace(-5, 5, 401)
    for y in (-2.2, 0.0, 0.4, 3.0):
        value = np.asarray(loss(t, jnp.full_like(t, y)))
        bends = np.diff(value, 2)
        assert (bends >= -1e-13).all()
        assert bends.max() > 1e-5


def test_the_correlation_loss_is_linear_in_both():
    t, y = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    np.testing.assert_array_equal(Correlation()(jnp.asarray(t), jnp.asarray(y)), -y * t)
    np.testing.assert_array_equal(Correlation().slope(jnp.asarray(t), jnp.asarray(y)), -y)


@with_a_minimum
def test_a_loss_is_zero_at_the_label_it_fits_and_positive_elsewhere(loss):
    y = jnp.asarray([-2.5, -0.3, 0.0, 0.8, 4.0])
    fitted = loss._parsed()(y=y) if isinstance(loss, Preprocessed) else y
    np.testing.assert_allclose(loss(fitted, y), 0, atol=1e-7)
    for shift in (-0.5, 0.01, 2.0):
        assert (loss(fitted + shift, y) > 0).all()


@each_loss
@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (3,), ()], ids=str)
@pytest.mark.parametrize("method", ["__call__", "slope"])
def test_predictions_and_labels_of_different_shapes_are_refused(loss, shape, method):
    t, y = jnp.zeros(shape), jnp.ones(4)
    with pytest.raises(TypeCheckError):
        getattr(loss, method)(t, y)
    jaxtyping_config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=re.escape(f"{loss.name()}: predictions {shape}")):
            getattr(loss, method)(t, y)
    finally:
        jaxtyping_config.update("jaxtyping_disable", False)


def test_one_of_several_losses_is_the_loss_of_its_index():
    losses = tuple(EVERY_LOSS)
    t, y = jnp.asarray(np.random.default_rng(1).normal(size=(2, 20)), jnp.float32)

    def one(index):
        loss = OneOf(index, losses)
        return loss(t, y), loss.slope(t, y)

    expected = [(loss(t, y), loss.slope(t, y)) for loss in losses]
    indices, alone = jnp.arange(len(losses)), jax.jit(one)
    together = zip(*jax.jit(jax.vmap(one))(indices), strict=True)
    for index, in_vmap, both in zip(indices, together, expected, strict=True):
        np.testing.assert_allclose(alone(index), both, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(in_vmap, both, rtol=1e-6, atol=1e-7)


def test_one_of_several_losses_is_no_option_of_a_config():
    assert set(Loss.options()) >= {loss.name() for loss in LOSSES}
    assert OneOf not in Loss.options().values()


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("loss", [Huber, PseudoHuber])
def test_a_delta_that_is_not_positive_is_refused(loss, delta):
    with pytest.raises(ValueError, match=re.escape(f"loss.delta={delta}: ")):
        loss(delta=delta)


@pytest.mark.parametrize("transform", ["h1", "y +", "clip(y)", "", "y/0*(1/0)"])
def test_a_bad_transform_is_refused(transform):
    with pytest.raises(ValueError, match=re.escape(f'loss.transform="{transform}": ')):
        Preprocessed(transform=transform)


FORMULAS = {
    "cos": np.cos,
    "erf": scipy.special.erf,
    "gelu": lambda z: z * scipy.special.ndtr(z),
    "quadratic": np.square,
    "relu": lambda z: np.maximum(z, 0.0),
    "softplus": lambda z: np.logaddexp(0.0, z),
    "exponential": lambda z: np.exp(z - 0.5),
    "tanh": np.tanh,
}


def in_numpy(activation):
    if isinstance(activation, Hermite):
        k = activation.degree
        return lambda z: scipy.special.eval_hermitenorm(k, z) / math.sqrt(math.factorial(k))
    return FORMULAS[activation.name()]


@each_activation
@pytest.mark.usefixtures("x64")
def test_an_activation_is_its_formula(activation):
    z = np.linspace(-4, 4, 81)
    np.testing.assert_allclose(activation(jnp.asarray(z)), in_numpy(activation)(z), atol=1e-12)


@each_activation
@pytest.mark.usefixtures("x64")
def test_the_derivative_of_an_activation_is_its_slope(activation):
    z = jnp.linspace(-3, 3, 60)  # an even number of points: none at the kink of relu
    expected = central_difference(activation, z)
    np.testing.assert_allclose(activation.derivative(z), expected, atol=SLOPE_ERROR)


def test_the_derivative_of_relu_at_zero_is_zero():
    assert float(Relu().derivative(jnp.asarray(0.0))) == 0


MEANS, VARIANCES = (-3.0, 0.0, 0.75, 5.0), (0.0, 0.25, 1.0, 4.0, 25.0)


@functools.cache
def average(activation, mean, variance):
    """E[σ(mean + √variance ξ)] by an adaptive rule that stops at a kink or a steep place."""
    mean, variance = float(mean), float(variance)  # the reference is in double precision
    sigma, scale = in_numpy(activation), math.sqrt(variance)
    if variance == 0:
        return float(sigma(mean))
    middle = min(max(-mean / scale, -11.0), 11.0)
    value, error = quad(
        lambda z: sigma(mean + scale * z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi),
        *(-12, 12),
        points=sorted({middle - 1 / scale, middle, middle + 1 / scale}),
        epsabs=1e-11,
        epsrel=1e-11,
        limit=200,
    )
    assert error < 1e-10 * (1 + abs(value))
    return value


@pytest.mark.parametrize("activation", [Cos(), Quadratic()], ids=label)
@pytest.mark.usefixtures("x64")
def test_products_in_closed_form_are_those_of_the_rule(activation):
    rng = np.random.default_rng(1)
    root = rng.standard_normal((5, 4))
    root[1] = root[0]  # neurons that coincide
    root[2] *= 1e-6
    mean, covariance = jnp.asarray(rng.standard_normal(5)), jnp.asarray(root @ root.T)
    by_rule = Activation.products(activation, mean, covariance)
    np.testing.assert_allclose(activation.products(mean, covariance), by_rule, rtol=1e-9)
    np.testing.assert_allclose(by_rule, by_rule.T, rtol=1e-9)


@each_activation
@pytest.mark.usefixtures("x64")
def test_the_smoothed_activation_is_the_gaussian_average(activation):
    # 1e-9 is what `mirage.activations` states for its quadrature; the reference has 1e-10.
    mean, variance = np.meshgrid(MEANS, VARIANCES)
    smoothed = activation.smoothed(jnp.asarray(mean), jnp.asarray(variance))
    expected = np.vectorize(functools.partial(average, activation))(mean, variance)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-9, atol=1e-9)


@each_activation
def test_smoothing_works_in_single_precision(activation):
    mean, variance = np.meshgrid(np.float32(MEANS), np.float32(VARIANCES[:3]))
    smoothed = activation.smoothed(jnp.asarray(mean), jnp.asarray(variance))
    expected = np.vectorize(functools.partial(average, activation))(mean, variance)
    assert smoothed.dtype == jnp.float32
    np.testing.assert_allclose(smoothed, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("degree", [-1, 21])
def test_a_degree_outside_the_table_is_refused(degree):
    with pytest.raises(ValueError, match=re.escape(f"activation.degree={degree}: ")):
        Activation.options()["hermite"](degree=degree)


@pytest.mark.parametrize("width", [2, 10])
def test_the_symmetric_start_is_made_of_twins_that_cancel(width):
    half, network = width // 2, TwoLayer(width=width, initial_norm=0.3)
    a, w = network.init(jax.random.key(0), jnp.eye(2, 50))
    assert (a.shape, w.shape) == ((width,), (width, 50))
    np.testing.assert_array_equal(jnp.abs(a), 1)
    np.testing.assert_array_equal(a[:half], -a[half:])
    np.testing.assert_array_equal(w[:half], w[half:])
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1), 0.3, rtol=1e-6)
    assert len(np.unique(w, axis=0)) == half


@each_activation
def test_the_symmetric_start_computes_zero(activation):
    a, w = TwoLayer(width=6, initial_norm=2.0).init(jax.random.key(1), jnp.eye(2, 50))
    z = w @ jax.random.normal(jax.random.key(2), (50, 200))
    first, second = output(activation, a[:3], z[:3]), output(activation, a[3:], z[3:])
    np.testing.assert_array_equal(first + second, 0)
    # Summed in any order, the pairs cancel up to the rounding of a sum of six terms.
    rounding = 6 * np.finfo(np.float32).eps * np.abs(activation(z)).sum(axis=0)
    assert (np.abs(output(activation, a, z)) <= rounding).all()


def test_a_start_without_symmetry_has_distinct_neurons():
    a, w = TwoLayer(width=5, symmetric=False, initial_norm=1.5).init(
        jax.random.key(0), jnp.eye(2, 50)
    )
    np.testing.assert_array_equal(jnp.abs(a), 1)
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1), 1.5, rtol=1e-6)
    assert len(np.unique(w, axis=0)) == 5


def test_first_weights_are_uniform_on_the_sphere_and_signs_fair():
    # On the sphere of radius 1 in d dimensions: E w = 0, E w_i² = 1/d, E w_i⁴ = 3/(d(d+2)).
    n, d = 40_000, 3
    a, w = TwoLayer(width=n, initial_norm=1.0, symmetric=False).init(
        jax.random.key(3), jnp.eye(2, d)
    )
    a, w = np.asarray(a, np.float64), np.asarray(w, np.float64)
    assert abs(a.mean()) <= 5 / math.sqrt(n)
    assert (np.abs(w.mean(axis=0)) <= 5 / math.sqrt(d * n)).all()
    fourth = 3 / (d * (d + 2))
    assert (np.abs((w**2).mean(axis=0) - 1 / d) <= 5 * math.sqrt((fourth - d**-2) / n)).all()
    assert (np.abs((w**4).mean(axis=0) - fourth) <= 5 / math.sqrt(n)).all()
    assert (np.abs((a[:, None] * w).mean(axis=0)) <= 5 / math.sqrt(d * n)).all()


def test_biases_are_gaussian_of_the_given_scale():
    n, scale = 40_000, 0.5
    b = np.asarray(TwoLayer(width=n, bias_scale=scale).draw_biases(jax.random.key(4)), np.float64)
    assert b.shape == (n,)
    assert abs(b.mean()) <= 5 * scale / math.sqrt(n)
    assert abs((b**2).mean() - scale**2) <= 5 * scale**2 * math.sqrt(2 / n)
    assert not TwoLayer(bias_scale=0.0).draw_biases(jax.random.key(4)).any()


def test_the_output_is_the_weighted_sum_of_neurons():
    a, z = np.random.default_rng(2).normal(size=(4,)), np.random.default_rng(3).normal(size=(4, 9))
    f = output(Tanh(), jnp.asarray(a, jnp.float32), jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(f, a @ np.tanh(z), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 0},
        {"width": -2},
        {"width": 3},
        {"width": 0, "symmetric": False},
        {"initial_norm": 0.0},
        {"initial_norm": math.inf},
        {"bias_scale": -1.0},
    ],
    ids=str,
)
def test_a_bad_network_is_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=re.escape(f"network.{name}={value}: ")):
        TwoLayer(**settings)
