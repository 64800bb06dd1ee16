"""One giant step: gradient, ridge readout, spectrum of the features, predicted overlaps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tables import SLOW_BUT_DENSE, label
from test_algorithms import problem_of, trained
from test_designs import flat, forward

import mirage
from mirage import figures
from mirage.activations import Activation, Relu, Tanh
from mirage.algorithms import GiantStep
from mirage.algorithms.fresh import fresh_gram, sampled_error
from mirage.algorithms.readout import ridge_readout, ridge_rows
from mirage.designs import Dense
from mirage.losses import Huber, Mse
from mirage.measures import population_error
from mirage.network import TwoLayer
from mirage.targets import Expression, Hermite
from mirage.theory.giant_step import overlap_law, slope_moments

matplotlib.use("Agg")
SINE = Expression("sin(h1)")
WIDE = TwoLayer(width=60, initial_norm=1.0, symmetric=False)
MODEL = {"target": SINE, "loss": Mse(), "activation": Tanh(), "network": WIDE}


def samples_of(problem, n, d):
    rows = problem.matrix.rows
    x = flat(rows, forward(problem.matrix, jnp.eye(d), None)[0]).astype(np.float64)
    return x, np.asarray(problem.labels).reshape(-1)[:n].astype(np.float64)


@pytest.mark.parametrize("centred", [True, False])
def test_a_step_is_the_gradient_of_the_mean_field_network(centred):
    n, d, rate = 700, 25, 3.0
    target = Expression("1 + sin(h1)")
    problem, memory = problem_of(Dense(), n=n, d=d, **{**MODEL, "target": target})
    algorithm = GiantStep(step_size=rate, centred=centred)
    start = eqx.filter_jit(algorithm.init)(jax.random.key(0), problem, memory)
    after = eqx.filter_jit(algorithm.step)(start, problem)
    x, y = samples_of(problem, n, d)
    w, a = (np.asarray(v, np.float64) for v in (start.weights, start.output_weights))
    assert set(a) == {-1, 1}
    z = x @ w.T
    slope = np.tanh(z) @ a / len(a) - y + centred * y.mean()
    gradient = (slope[:, None] * (1 - np.tanh(z) ** 2) * a).T @ x / n
    np.testing.assert_allclose(after.weights, w - rate * gradient, atol=1e-5)
    assert np.linalg.norm(rate * gradient, axis=1).min() > 0.3


def test_the_readout_is_ridge_regression_with_a_free_intercept():
    rng = np.random.default_rng(0)
    n, m, ridge = 300, 20, 0.7
    features, y = rng.normal(size=(n, m)) + 1.0, 2.0 + rng.normal(size=n)
    rows = np.column_stack([features, y, np.ones(n)])
    found = ridge_readout(jnp.asarray(rows.T @ rows, jnp.float32), ridge)
    design = np.column_stack([features, np.ones(n)])
    penalty = ridge * m * np.diag([1.0] * m + [0.0])
    expected = np.linalg.solve(design.T @ design + penalty, design.T @ y)
    np.testing.assert_allclose(found.weights, expected[:-1], rtol=1e-3, atol=1e-4)
    assert float(found.intercept) == pytest.approx(expected[-1], rel=1e-3)
    np.testing.assert_allclose(found.covariance, np.cov(features.T, bias=True), atol=1e-4)


@pytest.mark.parametrize("design", SLOW_BUT_DENSE, ids=label)
def test_the_gram_of_features_is_that_of_the_rows(design):
    n, d = 1300, 40
    problem, memory = problem_of(design, n=n, d=d, **MODEL)
    weights = problem.network.init(jax.random.key(0), problem.directions)[1]
    rows = ridge_rows(problem.activation, jnp.linspace(-1, 1, 60))
    gram, _ = problem.matrix.gram(rows, weights, (problem.labels,), memory)
    z, _ = forward(problem.matrix, weights, memory)
    z, y = flat(problem.matrix.rows, z), np.asarray(problem.labels).reshape(-1)[:n]
    phi = np.column_stack([np.tanh(z + np.linspace(-1, 1, 60)), y, np.ones(n)])
    np.testing.assert_allclose(gram, phi.T @ phi, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("width", [10, 90])
def test_the_gram_of_fresh_samples_has_the_law_of_the_features(width):
    """Moments within five sigma, with fewer neurons than dimensions and with more."""
    n, d = 40_000, 30
    network = TwoLayer(width=width, initial_norm=0.8, symmetric=False)
    identity = Activation.options()["hermite"](degree=1)
    model = {**MODEL, "network": network, "target": Expression("h1"), "activation": identity}
    problem, _ = problem_of(Dense(), n=n, d=d, **model)
    weights = network.init(jax.random.key(0), problem.directions)[1]
    rows = ridge_rows(identity, jnp.zeros(width))
    gram = np.asarray(fresh_gram(jax.random.key(1), problem, weights, rows), np.float64)
    assert gram[-1, -1] == n
    stacked = np.vstack([np.asarray(weights, np.float64), np.eye(1, d)])
    covariance = stacked @ stacked.T
    sigma = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / n)
    assert (np.abs(gram[:-1, :-1] / n - covariance) < 5 * sigma).all()
    assert (np.abs(gram[-1, :-1]) / n < 5 * np.sqrt(np.diag(covariance) / n)).all()


@pytest.mark.slow
def test_eigenvalues_sum_to_the_variance_of_the_features_and_one_leaves_the_bulk():
    n, d = 3000, 40
    problem, memory = problem_of(Dense(), n=n, d=d, **MODEL)
    algorithm = GiantStep(step_size=4.0)
    state = eqx.filter_jit(algorithm.init)(jax.random.key(0), problem, memory)
    rows = ridge_rows(problem.activation, state.biases)
    gram = np.asarray(fresh_gram(state.key, problem, state.weights, rows), np.float64)[:60, :60]
    trajectory = trained(algorithm, problem, memory)["trajectory"]
    before, after = trajectory["feature_eigenvalue"]
    mean = np.asarray(fresh_gram(state.key, problem, state.weights, rows))[-1, :60] / n
    assert float(state.eigenvalues.sum()) == pytest.approx(
        np.trace(gram) / n - (mean**2).sum(), rel=1e-4
    )
    # Var σ(z + b) of each neuron, of which the eigenvalues' sum has a standard error below 1/√n.
    z = np.random.default_rng(0).normal(size=(1, 200_000))
    variance = np.tanh(z + np.asarray(state.biases)[:, None]).var(axis=1).sum()
    assert float(state.eigenvalues.sum()) == pytest.approx(variance, rel=5 / np.sqrt(n))
    assert (np.diff(before) >= 0).all()
    assert before[-1] < 3 * before[-3]
    assert after[-1] > 5 * after[-2]
    # Sampled, for Q is not kept of so many neurons.
    assert trajectory["test_error"][1] < 0.5 * trajectory["test_error"][0]


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    ("target", "loss", "activation"),
    [
        (SINE, Mse(), Tanh()),
        (Hermite(terms=[[1.0, [1]], [0.6, [2]]], noise=0.2), Huber(), Relu()),
    ],
    ids=["sine", "noisy"],
)
def test_overlaps_after_a_step_have_the_predicted_law(target, loss, activation):
    """Mean and spread over neurons and six samples, each within five of its own sigma."""
    n, d, m, seeds, rate = 900, 300, 100, 6, 2.0
    network = TwoLayer(width=m, initial_norm=1.0, symmetric=False)
    algorithm = GiantStep(step_size=rate, spectrum=False)
    model = {"target": target, "loss": loss, "activation": activation, "network": network}
    signed = []
    for seed in range(seeds):
        problem, memory = problem_of(Dense(), n=n, d=d, seed=seed, **model)
        result = trained(algorithm, problem, memory, jax.random.key(seed))
        signed.append((result["output_weights"], result["overlap"][:, 0]))
    moments = slope_moments(target, loss, centred=True)
    z = np.random.default_rng(1).normal(size=200_000)
    slope = np.asarray(activation.derivative(jnp.asarray(z, jnp.float32))).mean()
    spread = moments.square[0] - moments.first[0] ** 2
    common = rate**2 * slope**2 * spread / n  # of all neurons of a sample
    for sign in (1, -1):
        law = overlap_law(moments, activation, step=sign * rate, norm=1.0, d=d, n=n)
        values = [np.asarray(o)[np.asarray(a) == sign] for a, o in signed]
        count = sum(map(len, values))
        own = law.deviation[0] ** 2 - common
        sigma = np.sqrt(common / seeds + own / count)
        assert abs(np.mean([v.mean() for v in values]) - law.mean[0]) < 5 * sigma
        inside = np.sqrt(np.mean([v.var(ddof=1) for v in values]))
        assert inside == pytest.approx(np.sqrt(own), rel=5 / np.sqrt(2 * count))
        assert abs(law.mean[0]) > 5 * law.deviation[0]


def test_moments_of_the_slope_against_closed_forms():
    """For y = sin h: E y h = e^{−1/2}, E y h² = 0, E y² h² = (1 + 3 e^{−2})/2."""
    moments = slope_moments(SINE, Mse(), centred=True)
    assert moments.first[0] == pytest.approx(-np.exp(-0.5), rel=1e-8)
    assert moments.second[0, 0] == pytest.approx(0, abs=1e-10)
    assert moments.square[0] == pytest.approx((1 + 3 * np.exp(-2)) / 2, rel=1e-8)


@pytest.mark.slow
@pytest.mark.optimised
def test_sampled_errors_are_those_of_the_integral():
    """Within five standard errors, those taken from two samples of rows."""
    network = TwoLayer(width=20, initial_norm=1.0, symmetric=False)
    problem, memory = problem_of(Dense(), n=600, d=50, **{**MODEL, "network": network})
    algorithm = GiantStep(spectrum=False)
    state = eqx.filter_jit(algorithm.init)(jax.random.key(0), problem, memory)
    ends = algorithm.finish(jax.random.key(0), state, problem)
    assert ends is not None
    sample = eqx.filter_jit(sampled_error)
    sampled = np.array([sample(jax.random.key(k), problem, ends) for k in range(8)])
    overlap, gram = state.weights[:, :1], state.weights @ state.weights.T
    named = {"readout": ends.readout, "biases": ends.biases, "overlap": overlap, "gram": gram}
    named = {name: np.asarray(value)[None] for name, value in named.items()}
    intercept = np.asarray(ends.intercept)[None]
    exact = population_error(SINE, Tanh(), intercept=intercept, **named)[0]
    assert abs(sampled.mean() - exact) < 5 * sampled.std(ddof=1) / np.sqrt(8)


@pytest.mark.parametrize(("key", "value"), [("steps", -1), ("step_size", 0.0), ("ridge", 0.0)])
def test_settings_that_make_no_sense_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"algorithm\.{key}={value}"):
        GiantStep(**{key: value})


@pytest.mark.slow
@pytest.mark.optimised
def test_the_experiment_is_drawn_with_its_prediction():
    small = ["d=100", "alpha=[2,8]", "seeds=4", "network.width=140"]
    results = mirage.simulate(mirage.compose("+experiment=giant_step", *small))
    assert results.feature_eigenvalue_trajectory.dims[-2:] == ("step", "neuron")
    error = results.test_error_trajectory.median("seed").squeeze()
    assert (error.isel(step=1) < error.isel(step=0)).all()
    assert error.isel(step=1).sel(alpha=8) < float(results.plateau.sel(degree=1))
    figure = figures.draw(results, "giant_step")
    assert len(figure.axes) == 3
    labels = [line.get_label() for axes in figure.axes for line in axes.lines]
    assert {"predicted", "best linear predictor", "after the step"} <= set(labels)
    with pytest.raises(ValueError, match=r"algorithm\.spectrum=true"):
        figures.draw(results.drop_vars("feature_eigenvalue_trajectory"), "giant_step")
    plt.close("all")
