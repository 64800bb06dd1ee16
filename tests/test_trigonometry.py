"""cos and sin in single precision: accuracy, derivatives, what is left to jax.numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage.activations import Cos
from mirage.trigonometry import cos, sin

EACH = pytest.mark.parametrize(
    ("function", "exact"), [(cos, np.cos), (sin, np.sin)], ids=["cos", "sin"]
)


def arguments(bound, count=400_000):
    """Uniform in (−bound, bound), and every multiple of π/2 there, where k or the sign changes."""
    z = np.random.default_rng(0).uniform(-bound, bound, count)
    corners = np.arange(-int(bound / 1.58), int(bound / 1.58) + 1) * np.pi / 2
    corners = corners.astype(np.float32)
    around = [np.nextafter(corners, np.float32(side)) for side in (-np.inf, np.inf)]
    return np.concatenate([z.astype(np.float32), corners, *around])


@EACH
@pytest.mark.parametrize("bound", [1e-3, 2.0, 50.0, 8192.0, 25_000.0])
def test_the_absolute_error_is_that_of_single_precision(function, exact, bound):
    z = arguments(bound)
    value = jax.jit(function)(z)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact(z.astype(np.float64)), rtol=0, atol=3e-7)


def test_sin_is_accurate_relative_to_small_arguments():
    """At small norm the gradient of the cosine is −sin of a small number."""
    z = np.geomspace(1e-30, 1.0, 10_000).astype(np.float32)
    np.testing.assert_allclose(sin(jnp.asarray(z)), np.sin(z.astype(np.float64)), rtol=2e-7)


@pytest.mark.parametrize("function", [cos, sin], ids=["cos", "sin"])
def test_beyond_the_range_values_stay_bounded_and_infinities_give_nan(function):
    far = jnp.geomspace(2.5e4, 3e38, 100_000)
    assert jnp.abs(function(jnp.concatenate([far, -far]))).max() <= 1 + 2e-7
    assert np.isnan(function(jnp.asarray([jnp.nan, jnp.inf, -jnp.inf]))).all()


@EACH
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types_go_to_jax_numpy(function, exact, dtype):
    with jax.enable_x64(True):
        z = jnp.linspace(-9, 9, 101, dtype=dtype)
        np.testing.assert_array_equal(function(z), getattr(jnp, exact.__name__)(z))
        assert function(z).dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_derivatives_of_every_order_in_both_modes_and_under_vmap(dtype):
    with jax.enable_x64(True):
        z = jnp.linspace(-20, 20, 201, dtype=dtype)
        error = 3e-7 if dtype == "float32" else 2e-15
        slopes = [cos, sin]
        for turn in range(1, 4):
            slopes = [jax.grad(slope) for slope in slopes]
            for slope, shift in zip(slopes, (1, 0), strict=True):
                expected = np.sin(np.asarray(z, np.float64) + (turn + shift) * np.pi / 2)
                got = jax.vmap(slope)(z)
                assert got.dtype == dtype
                np.testing.assert_allclose(got, expected, rtol=0, atol=error)
        primal, tangent = jax.jvp(cos, (z,), (jnp.full_like(z, 2.0),))
        np.testing.assert_array_equal(primal, cos(z))
        np.testing.assert_allclose(tangent, -2 * sin(z), rtol=1e-7)


def test_the_cosine_activation_is_this_one():
    z = jnp.linspace(-9, 9, 1001).reshape(7, 143)
    np.testing.assert_array_equal(Cos()(z), cos(z))
    np.testing.assert_array_equal(Cos().derivative(z), -sin(z))
    np.testing.assert_allclose(Cos().smoothed(z, jnp.zeros_like(z)), cos(z), atol=1e-7)
