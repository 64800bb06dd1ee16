"""Both tails of a Gaussian number, against SciPy: near, far out, and differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr

from mirage.tails import inverse_mills_ratio, log_tails, scaled_log_tail

X = np.concatenate([np.linspace(-12, 12, 4801), np.geomspace(12, 1e4, 200)])
X = np.concatenate([X, -X, [0.0]])
# Relative to log Φ; that of float64 is the error of XLA's log1p about −0.41.
ERROR = {"float32": 3e-6, "float64": 3e-14}


@pytest.fixture(params=ERROR)
def dtype(request):
    with jax.enable_x64(True):
        yield request.param


def test_they_are_those_of_scipy_relative_to_their_size(dtype):
    x = X.astype(dtype)
    tails = jax.jit(log_tails)(x)
    for found, sign in zip(tails, (1, -1), strict=True):
        assert found.dtype == dtype
        expected = log_ndtr(sign * x.astype(float))
        # Where it is all but certain log Φ is of the size of exp(−x²/2): x²/2 roundings.
        lost = 1 + np.where(expected > -1, x.astype(float) ** 2 / 2, 0)
        error = np.abs(np.asarray(found, float) - expected)
        assert (error <= ERROR[dtype] * lost * np.abs(expected) + np.finfo(dtype).tiny).all()


def test_the_scaled_tail_neither_grows_nor_vanishes(dtype):
    z = np.abs(X).astype(dtype)
    found = np.asarray(jax.jit(scaled_log_tail)(z), float)
    near = np.abs(X) < 30
    expected = log_ndtr(-z.astype(float)) + z.astype(float) ** 2 / 2
    np.testing.assert_allclose(found[near], expected[near], atol=300 * np.finfo(dtype).eps)
    # Φ(−z) = φ(z)/z (1 − 1/z² + ...)
    z = z[~near].astype(float)
    series = np.log1p(-(z**-2.0) + 3 * z**-4.0) - np.log(z) - np.log(2 * np.pi) / 2
    np.testing.assert_allclose(found[~near], series, atol=10 * np.finfo(dtype).eps * np.log(1e4))


def test_derivatives_in_both_modes_also_at_zero_and_far_out(dtype):
    """d log Φ/dx = φ/Φ = m and d²/dx² = −m (x + m), a difference of large terms far below 0."""
    exact = np.concatenate([np.linspace(-8, 6, 281), [-1e2, -1e4, -1e6]]).astype(dtype)
    x, exact = jnp.asarray(exact), exact.astype(float)
    slope = np.exp(-(exact**2) / 2 - log_ndtr(exact)) / np.sqrt(2 * np.pi)
    far = exact < -50  # where log Φ has no digits left of it
    u = exact[far] ** -2
    slope[far] = -exact[far] / (1 - u + 3 * u**2 - 15 * u**3 + 105 * u**4)
    rounding = ERROR[dtype] * (1 + np.where(far, 0, exact**2 / 2))
    for tail, sign in ((0, 1), (1, -1)):

        def one(x, tail=tail):
            return log_tails(x)[tail]

        for first in (jax.grad(one), jax.jacfwd(one)):
            found = np.asarray(jax.jit(jax.vmap(first))(sign * x), float)
            assert (np.abs(sign * found - slope) <= rounding * slope).all()
        second = np.asarray(jax.jit(jax.vmap(jax.grad(jax.grad(one))))(sign * x), float)
        size = slope * (np.abs(exact) + slope)
        assert (np.abs(second + slope * (exact + slope)) <= rounding * size).all()
    np.testing.assert_array_equal(
        jax.jit(inverse_mills_ratio)(x), jax.jit(jax.vmap(jax.grad(lambda x: log_tails(x)[0])))(x)
    )


def test_infinities_and_nan_stay_what_they_are(dtype):
    below, above = jax.jit(log_tails)(np.array([np.inf, -np.inf, np.nan], dtype))
    np.testing.assert_array_equal(below, [0, -np.inf, np.nan])
    np.testing.assert_array_equal(above, [-np.inf, 0, np.nan])
