"""Random features and their kernel: against NumPy, against each other, against theory."""

import functools
import math

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_algorithms import problem_of, trained
from test_giant_step import samples_of

import mirage
from mirage import Experiment, figures, simulate
from mirage.activations import Erf, Relu, Tanh
from mirage.algorithms import KernelRidge, RandomFeatures
from mirage.algorithms.fresh import TEST_ROWS, projections
from mirage.designs import Deferred, Dense, Rows
from mirage.kernels import FeatureKernel
from mirage.losses import Mse
from mirage.network import TwoLayer
from mirage.runtime import Default
from mirage.targets import Hermite
from mirage.theory.lazy import (
    Spectrum,
    degree_variances,
    kernel_series,
    ridge_error,
    sphere_spectrum,
)

matplotlib.use("Agg")
QUIET = Default(progress=False)
CUBIC = Hermite(terms=[[3**-0.5, [1]], [3**-0.5, [2]], [3**-0.5, [3]]])
UNIT = TwoLayer(width=40, initial_norm=1.0, symmetric=False)
MODEL = {"target": CUBIC, "loss": Mse(), "activation": Erf(), "network": UNIT}


@pytest.mark.parametrize(
    ("activation", "norm", "bias_scale"), [(Tanh(), 1.0, 1.0), (Relu(), 0.7, 0.0)], ids=str
)
def test_kernel_entries_are_averages_over_features(activation, norm, bias_scale):
    """Every entry within five sigma, inputs of several lengths."""
    d, count = 6, 200_000
    rng = np.random.default_rng(0)
    x = rng.normal(size=(d, 5)) * np.array([0.3, 0.8, 1.0, 1.5, 2.0])
    with jax.enable_x64(True):
        kernel = FeatureKernel(activation, norm, bias_scale, degree=40)
        points = kernel.points(jnp.asarray(x))
        entries = np.array(kernel.matrix(points, points))
        w = rng.normal(size=(count, d)) * norm / math.sqrt(d)
        z = w @ x + bias_scale * rng.normal(size=(count, 1))
        features = np.asarray(activation(jnp.asarray(z)))
    products = features[:, :, None] * features[:, None]
    sigma = products.std(axis=0) / math.sqrt(count)
    entries[np.diag_indices(5)] = points.square
    assert (np.abs(entries - products.mean(axis=0)) < 5 * sigma).all()


def test_the_kernel_of_relu_is_the_arc_cosine_kernel():
    """(√(1 − t²) + t (π − arccos t))/2π for inputs of norm √d (Cho and Saul 2009)."""
    t = np.linspace(-0.8, 0.8, 9)
    with jax.enable_x64(True):
        kernel = FeatureKernel(Relu(), 1.0, 0.0, degree=60)
        first = kernel.points(jnp.asarray([[math.sqrt(2)], [0.0]]))
        second = kernel.points(math.sqrt(2) * jnp.asarray([t, np.sqrt(1 - t**2)]))
        found = np.asarray(kernel.matrix(first, second))[0]
    exact = (np.sqrt(1 - t**2) + t * (np.pi - np.arccos(t))) / (2 * np.pi)
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_random_features_are_ridge_regression_on_the_samples():
    n, d, ridge = 900, 20, 0.3
    problem, memory = problem_of(Dense(), n=n, d=d, **MODEL)
    result = trained(RandomFeatures(ridge=ridge), problem, memory)
    x, y = samples_of(problem, n, d)
    w, b = (np.asarray(result[name], np.float64) for name in ("weights", "biases"))
    with jax.enable_x64(True):
        features = np.asarray(Erf()(jnp.asarray(x @ w.T + b)))
    centred = features - features.mean(axis=0)
    m = len(b)
    a = np.linalg.solve(centred.T @ centred + ridge * m * np.eye(m), centred.T @ (y - y.mean()))
    np.testing.assert_allclose(result["readout"], a, rtol=2e-2, atol=2e-3)
    intercept = y.mean() - a @ features.mean(axis=0)
    assert float(result["intercept"]) == pytest.approx(intercept, abs=5e-3)
    np.testing.assert_array_equal(*result["trajectory"]["overlap"])  # the first layer stays


@pytest.fixture(scope="module")
def solved():
    """Kernel ridge regression by the algorithm, and in NumPy on the same samples."""
    n, d, ridge = 150, 8, 0.1
    problem, memory = problem_of(Dense(), n=n, d=d, **MODEL)
    result = trained(KernelRidge(ridge=ridge), problem, memory)
    x, y = samples_of(problem, n, d)
    with jax.enable_x64(True):
        kernel = FeatureKernel(Erf(), 1.0, 1.0, degree=20)
        points = kernel.points(jnp.asarray(x.T))
        matrix = np.array(kernel.matrix(points, points))
        np.fill_diagonal(matrix, np.asarray(points.square))
        # With a free constant: (K + λ) α + c 1 = y, 1ᵀ α = 0.
        ones = np.ones((n, 1))
        system = np.block([[matrix + ridge * np.eye(n), ones], [ones.T, np.zeros((1, 1))]])
        *alpha, constant = np.linalg.solve(system, np.append(y, 0))

        def predict(z):
            return (
                np.asarray(alpha) @ np.asarray(kernel.matrix(points, kernel.points(jnp.asarray(z))))
                + constant
            )

    return problem, result, predict, d


def test_kernel_ridge_predicts_what_the_explicit_solution_does(solved):
    problem, result, predict, d = solved
    key = jax.random.split(jax.random.key(0), 3)[0]
    rows = Rows.of(TEST_ROWS, capacity=TEST_ROWS, size=2048)
    project = projections(key, problem, jnp.eye(d), rows, "test")
    both = np.concatenate([project(block) for block in range(TEST_ROWS // 2048)], axis=1)
    with jax.enable_x64(True):
        f, g = predict(both[1:].astype(np.float64)), CUBIC(jnp.asarray(both[:1].T, float))
    error = ((f - np.asarray(g)) ** 2).mean()
    assert float(result["test_error"]) == pytest.approx(error, rel=1e-3)


@pytest.mark.optimised
def test_the_row_of_kernel_ridge_is_the_linear_part_of_its_predictor(solved):
    """E f(x) x, each entry within five sigma of a mean over fresh inputs."""
    _, result, predict, d = solved
    x = np.random.default_rng(3).normal(size=(d, 100_000))
    with jax.enable_x64(True):
        f = predict(x)
    products = (f - f.mean()) * x
    sigma = products.std(axis=1) / math.sqrt(x.shape[1])
    row = np.asarray(result["weights"])[0]
    assert (np.abs(row - products.mean(axis=1)) < 5 * sigma + 5e-3 * np.linalg.norm(row)).all()
    assert result["overlap"].shape == (1, 1)
    assert result["trajectory"]["norm"][0, 0] == 0


def errors(algorithm, *, d, seeds, width=40, **samples):
    network = TwoLayer(width=width, initial_norm=1.0, symmetric=False)
    model = {**MODEL, "network": network, "runtime": QUIET, "d": d, "seeds": seeds}
    return simulate(Experiment(**model, algorithm=algorithm, **samples)).test_error.squeeze()


@pytest.mark.slow
@pytest.mark.optimised
def test_random_features_become_their_kernel_as_the_width_grows():
    run = functools.partial(errors, d=12, n=150, seeds=6)
    kernel = run(KernelRidge(ridge=0.05)).mean()
    gaps = [
        float(abs(run(RandomFeatures(ridge=0.05), width=m).mean() - kernel)) for m in (60, 2400)
    ]
    assert gaps[1] < 0.03 * kernel
    assert gaps[0] > 4 * gaps[1]


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("algorithm", [KernelRidge(ridge=0.1), RandomFeatures(ridge=0.1)], ids=str)
def test_errors_are_those_of_the_deterministic_equivalent(algorithm):
    """At d = 40, to the order 1/√d by which Gaussian inputs are not on the sphere."""
    d, width, sizes = 40, 400, [60, 300, 1200]
    found = errors(algorithm, d=d, seeds=6, width=width, n=sizes).mean("seed")
    spectrum = sphere_spectrum(*kernel_series(Erf(), norm=1.0, bias_scale=1.0), d)
    of_kernel = isinstance(algorithm, KernelRidge)
    settings = {"ridge": 0.1, "width": math.inf if of_kernel else width}
    expected = [ridge_error(spectrum, degree_variances(CUBIC), n=n, **settings) for n in sizes]
    np.testing.assert_allclose(found, expected, rtol=0.1)


def test_the_spectrum_of_a_kernel_adds_up_and_is_orthogonal_by_degree():
    series, total = kernel_series(Erf(), norm=1.0, bias_scale=1.0)
    for d in (3, 30, 10**4):
        spectrum = sphere_spectrum(series, total, d)
        trace = spectrum.multiplicity @ spectrum.eigenvalues
        assert trace == pytest.approx(series.sum(), rel=1e-9)
        assert spectrum.rest == pytest.approx(total - series.sum())
    three = sphere_spectrum(series, total, 3)  # Legendre polynomials on the usual sphere
    np.testing.assert_allclose(three.multiplicity, 2 * np.arange(11) + 1, rtol=1e-9)
    t, weights = np.polynomial.legendre.leggauss(40)
    values = np.polynomial.polynomial.polyval(t, series)
    for k in range(5):
        projected = weights @ (values * np.polynomial.legendre.Legendre.basis(k)(t)) / 2
        assert three.eigenvalues[k] == pytest.approx(projected, rel=1e-9)


def test_the_series_of_a_kernel_is_the_kernel():
    t = np.linspace(-0.3, 0.3, 5)
    series, total = kernel_series(Tanh(), norm=1.0, bias_scale=0.7)
    with jax.enable_x64(True):
        kernel = FeatureKernel(Tanh(), 1.0, 0.7, degree=60)
        one = kernel.points(jnp.asarray([[math.sqrt(2)], [0.0]]))
        others = kernel.points(math.sqrt(2) * jnp.asarray([t, np.sqrt(1 - t**2)]))
        entries = np.asarray(kernel.matrix(one, others))[0]
    np.testing.assert_allclose(np.polynomial.polynomial.polyval(t, series), entries, atol=1e-7)
    assert total == pytest.approx(float(one.square[0]))


def test_many_features_err_like_the_kernel_and_degrees_are_learnt_one_by_one():
    series, total = kernel_series(Erf(), norm=1.0, bias_scale=1.0)
    variances = degree_variances(CUBIC)
    np.testing.assert_allclose(variances[:5], [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=1e-9)
    spectrum = sphere_spectrum(series, total, 50)
    kernel = ridge_error(spectrum, variances, n=900, ridge=0.1)
    wide = ridge_error(spectrum, variances, n=900, ridge=0.1, width=1e7)
    assert wide == pytest.approx(kernel, rel=1e-3)
    d = 10**8
    spectrum = sphere_spectrum(series, total, d)
    found = [ridge_error(spectrum, variances, n=d**k, ridge=0.1) for k in (0.5, 1.5, 2.5)]
    np.testing.assert_allclose(found, [1, 2 / 3, 1 / 3], atol=2e-3)


def test_ridge_error_of_one_degree_is_that_of_linear_regression():
    """d directions of one eigenvalue, no ridge, n > d: noise · d/(n − d)."""
    d, n, noise = 40, 100, 0.3
    spectrum = Spectrum(np.array([0.0, 1.0]), np.array([1.0, float(d)]), 0.0)
    found = ridge_error(spectrum, np.array([0.0, 1.0]), n=n, ridge=1e-9, noise=noise)
    assert found == pytest.approx(noise * d / (n - d), rel=1e-5)


def test_a_kernel_matrix_that_does_not_fit_is_refused_with_its_bytes():
    settings = {**MODEL, "d": 30, "n": [100, 20_000], "runtime": Default(memory="1 GB")}
    message = r"runtime.memory='1 GB'.*n=20000 holds 4800000000 bytes for the n × n kernel matrix"
    with pytest.raises(ValueError, match=message):
        Experiment(**settings, algorithm=KernelRidge())
    assert Experiment(**settings, algorithm=RandomFeatures()).simulated
    with pytest.raises(ValueError, match="query columns"):
        Experiment(**MODEL, d=30, n=100, algorithm=KernelRidge(), design=Deferred())


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [(RandomFeatures, "ridge", 0.0), (KernelRidge, "ridge", -1.0), (KernelRidge, "degree", 0)],
)
def test_settings_that_make_no_sense_are_refused(kind, key, value):
    with pytest.raises(ValueError, match=rf"algorithm\.{key}={value}"):
        kind(**{key: value})


@pytest.mark.slow
@pytest.mark.optimised
def test_the_experiment_is_drawn_with_its_theory():
    small = ["d=15", "exponent=[0.8,1.4,2.0]", "seeds=2", "network.width=200"]
    results = mirage.simulate(mirage.compose("+experiment=lazy_limit", *small))
    error = results.test_error.median("seed").squeeze()
    _, kernel, trained_network = error.isel(exponent=-1).values
    assert trained_network < kernel
    assert (error.isel(exponent=-1) < error.isel(exponent=0)).all()
    figure = figures.draw(results, "lazy_limit")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert {"random features", "kernel ridge", "giant step"} <= set(labels)
    with pytest.raises(ValueError, match="along exponent"):
        figures.draw(results.isel(exponent=0), "lazy_limit")
    plt.close("all")
