"""Algorithms against what they claim to be: gradients, power iteration, ridge regression."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import ALGORITHMS, LOSSES, SLOW_BUT_DENSE, label, samples, target_for
from test_designs import flat, forward, matrix

from mirage.activations import Activation, Cos, Erf, Quadratic, Relu, Tanh
from mirage.algorithms import LayerwiseGd, OnlineSgd, PowerIteration, Problem, draw_problem, train
from mirage.algorithms.fresh import fresh_features
from mirage.algorithms.layerwise_gd import OPTIMIZERS
from mirage.algorithms.readout import readout_gd, ridge_solution
from mirage.designs import Deferred, Dense, Rows, Streamed
from mirage.designs.dense import DenseMatrix
from mirage.losses import Huber, Mse
from mirage.network import TwoLayer
from mirage.targets import Hermite, Parity, Staircase


def problem_of(design, *, n, d, target=None, seed=0, right=200, left=200, wrap=None, **model):
    target = target or Hermite()
    model = {"loss": Huber(), "activation": Cos(), "network": TwoLayer(), **samples(), **model}

    @eqx.filter_jit
    def drawn():
        x = matrix(design, seed, n=n, d=d, right=right, left=left)
        x = wrap(x) if wrap else x
        return draw_problem(jax.random.key(100 + seed), x, jnp.eye(target.rank, d), target, **model)

    return drawn()


@eqx.filter_jit
def trained(algorithm, problem, memory, key=None):
    return train(jax.random.key(0) if key is None else key, algorithm, problem, memory)


def explicit_loss(weights, a, x, y, loss, activation, centred):
    """L̂(W) written out on the matrix itself."""
    f = jnp.stack([activation(x @ w) for w in weights], axis=1) @ a
    shift = loss.slope(jnp.zeros_like(y), y).mean() if centred else 0.0
    return (loss(f, y) - shift * f).mean()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("loss", "activation"),
    [*((loss, Cos()) for loss in LOSSES), *((Huber(), a) for a in (Tanh(), Relu(), Erf()))],
    ids=label,
)
def test_a_step_follows_the_gradient_by_finite_differences(loss, activation, centred):
    """∇L̂ along random directions, central differences in float64."""
    n, d, m, rate, decay = 300, 20, 4, 0.25, 0.1
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = rng.normal(size=(512, d))
        rows = Rows.of(n, capacity=n, size=512)
        dense = DenseMatrix(
            rows=rows, stored=jnp.asarray(x[None, None]), seed=jnp.asarray(0, jnp.int32)
        )
        y = jnp.asarray(rng.normal(size=(1, 512)) * 2)
        algorithm = LayerwiseGd(step_size=rate, weight_decay=decay, centred=centred)
        model = {"loss": loss, "activation": activation, "network": TwoLayer(width=m), **samples()}
        problem = Problem(dense, y, jnp.eye(2, d), target=Hermite(), **model)
        state = algorithm.init(jax.random.key(0), problem, None)
        weights = jnp.asarray(rng.normal(size=(m, d)) * 0.4)
        a = jnp.asarray(rng.normal(size=m))
        centre = state.centre.astype(float)
        state = eqx.tree_at(
            lambda s: (s.weights, s.output_weights, s.centre), state, (weights, a, centre)
        )
        after = algorithm.step(state, problem).weights
        gradient = (weights - after) / rate - decay * weights

        def value(w):
            return explicit_loss(w, a, x[:n], y[0, :n], loss, activation, centred)

        for _ in range(3):
            direction = jnp.asarray(rng.normal(size=(m, d)))
            h = 1e-7 if loss.name() == "absolute" else 1e-6
            slope = (value(weights + h * direction) - value(weights - h * direction)) / (2 * h)
            along = float((gradient * direction).sum())
            assert float(slope) == pytest.approx(along, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("design", SLOW_BUT_DENSE, ids=label)
def test_gd_with_weight_decay_one_over_eta_is_power_iteration(design):
    """β1 = 1/η1 and tiny ε0: both give −η1 a σ''(0) Σ̂ w, to float precision."""
    steps, eta = 6, 2.0
    network = TwoLayer(initial_norm=1e-6)
    problem, memory = problem_of(design, n=2500, d=80, network=network)
    gd = LayerwiseGd(steps=steps, step_size=eta, weight_decay=1 / eta, readout_steps=0)
    power = PowerIteration(steps=steps, step_size=eta)
    a, b = (trained(algorithm, problem, memory)["trajectory"] for algorithm in (gd, power))
    scale = np.abs(b["norm"]).max(axis=1)[:, None, None]
    assert np.abs(a["overlap"] - b["overlap"]).max(initial=0) < 2e-5 * scale.max()
    np.testing.assert_allclose(a["norm"], b["norm"], rtol=2e-5)


def test_power_iteration_is_the_power_of_the_explicit_matrix():
    n, d, eta, steps = 700, 30, 0.7, 5
    problem, memory = problem_of(Dense(), n=n, d=d, activation=Quadratic())
    x = flat(problem.matrix.rows, forward(problem.matrix, jnp.eye(d), None)[0]).astype(np.float64)
    y = np.asarray(problem.labels).reshape(-1)[:n].astype(np.float64)
    slopes = -np.clip(y, -1, 1)
    sigma = x.T @ ((slopes - slopes.mean())[:, None] * x) / n
    result = trained(PowerIteration(steps=steps, step_size=eta), problem, memory)
    a, start = problem.network.init(jax.random.split(jax.random.key(0))[0], problem.directions)
    expected = np.asarray(start, np.float64) @ np.linalg.matrix_power(sigma, steps)
    expected *= ((-eta * np.asarray(a) * 2.0) ** steps)[:, None]  # σ''(0) = 2
    np.testing.assert_allclose(result["weights"], expected, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=label)
def test_the_trajectory_starts_at_the_start_ends_at_the_end_and_is_that_of_streamed_rows(algorithm):
    # Some take one step, whatever is asked.
    if "steps" in algorithm.settings():
        algorithm = dataclasses.replace(algorithm, steps=4)
    problem, memory = problem_of(Dense(), n=400, d=30, target=target_for(algorithm))
    result = trained(algorithm, problem, memory)
    trajectory = result["trajectory"]
    neurons = 2 if hasattr(algorithm, "channel") else 4
    neurons = {"two_stage": 10, "full_spectrum": 20}.get(algorithm.name(), neurons)
    assert trajectory["overlap"].shape == (algorithm.steps + 1, neurons, 2)
    assert np.array_equal(trajectory["overlap"][-1], result["overlap"])
    start = dict.fromkeys(("spectral", "two_stage", "linearised_amp"), 1.0)
    start |= {"full_spectrum": 0.0, "amp": trajectory["norm"][0, 0]}
    np.testing.assert_allclose(trajectory["norm"][0], start.get(algorithm.name(), 1e-3), rtol=1e-5)
    weights = np.asarray(result["weights"])
    np.testing.assert_allclose(result["overlap"], weights[:, :2], rtol=1e-6)
    np.testing.assert_allclose(result["gram"], weights @ weights.T, rtol=1e-4, atol=1e-6)
    again = trained(algorithm, problem, memory)
    assert all(map(np.array_equal, jax.tree.leaves(result), jax.tree.leaves(again)))
    streamed = trained(
        algorithm, *problem_of(Streamed(), n=400, d=30, target=target_for(algorithm))
    )
    for name in ("overlap", "norm"):
        scale = float(np.abs(trajectory[name]).max())
        np.testing.assert_allclose(
            streamed["trajectory"][name], trajectory[name], rtol=1e-4, atol=1e-5 * scale
        )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_named_optimizer_trains_both_stages(name):
    algorithm = LayerwiseGd(
        steps=3, step_size=1e-3, optimizer=name, readout_optimizer=name, readout_step_size=1e-2
    )
    problem, memory = problem_of(Dense(), n=200, d=20)
    with jax.numpy_dtype_promotion("standard"):  # optax's own counters mix int and float
        result = trained(algorithm, problem, memory)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    assert np.abs(np.diff(result["trajectory"]["norm"], axis=0)).max() > 0


def features_of(problem, weights, biases=None):
    biases = jnp.linspace(-1, 1, weights.shape[0]) if biases is None else biases
    weights = jnp.asarray(weights, jnp.float32)
    return eqx.filter_jit(fresh_features)(jax.random.key(3), problem, weights, biases)


def test_fresh_features_have_the_law_of_fresh_samples():
    """Second moments of (z, h) against [U; W][U; W]ᵀ within five sigma, twins included."""
    n, d = 60_000, 25
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(4, d)) / 3
    weights[3] = weights[1]
    identity = Activation.options()["hermite"](degree=1)
    target = Hermite(terms=[[1.0, [1, 0]], [0.0, [0, 1]]])  # y = h1
    problem, _ = problem_of(Dense(), n=n, d=d, activation=identity, target=target)
    rows, z, y = features_of(problem, weights, jnp.zeros(4))
    z, y = flat(rows, z), np.asarray(y).reshape(-1)[:n]
    np.testing.assert_allclose(z[:, 3], z[:, 1], atol=1e-5)  # twins stay twins
    joint = np.column_stack([y, z]).astype(np.float64)
    stacked = np.vstack([np.eye(1, d), weights])
    covariance = stacked @ stacked.T
    error = joint.T @ joint / n - covariance
    sigma = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / n)
    assert (np.abs(error) < 5 * sigma).all()
    assert (np.abs(joint.mean(0)) < 5 * np.sqrt(np.diag(covariance) / n)).all()


def test_fresh_samples_are_not_those_of_stage_1():
    problem, _ = problem_of(Dense(), n=4000, d=10, target=Parity(k=1))
    _, _, y = features_of(problem, np.eye(2, 10))
    agreement = np.asarray(y).reshape(-1)[:4000] == np.asarray(problem.labels).reshape(-1)[:4000]
    assert abs(agreement.mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize("target", [Hermite(), Staircase()], ids=label)
def test_readout_gd_ends_at_the_ridge_solution(target):
    problem, _ = problem_of(Dense(), n=3000, d=30, target=target, loss=Mse())
    weights = np.random.default_rng(1).normal(size=(4, 30)) / 2
    rows, features, labels = features_of(problem, weights)
    ridge = eqx.filter_jit(ridge_solution)(rows, features, labels, 1e-2)
    design = flat(rows, features).astype(np.float64)
    y = np.asarray(labels).reshape(-1)[:3000].astype(np.float64)
    normal = design.T @ design / 3000 + 1e-2 * np.eye(4)
    np.testing.assert_allclose(
        ridge, np.linalg.solve(normal, design.T @ y / 3000), rtol=1e-3, atol=1e-4
    )
    settings = {"step_size": None, "weight_decay": 1e-2, "optimizer": "sgd"}
    run = eqx.filter_jit(
        lambda steps: readout_gd(
            problem, rows, features, labels, jnp.ones(4), steps=steps, **settings
        )
    )
    np.testing.assert_allclose(run(4000), ridge, rtol=2e-3, atol=2e-4)
    far, near = (np.abs(np.asarray(run(steps)) - ridge).max() for steps in (3, 300))
    assert near < far


def test_readout_gd_is_stationary_for_another_loss():
    problem, _ = problem_of(Dense(), n=2000, d=30, loss=Huber(0.5))
    weights = np.random.default_rng(1).normal(size=(4, 30)) / 2
    rows, features, labels = features_of(problem, weights)
    a = eqx.filter_jit(readout_gd)(
        problem,
        rows,
        features,
        labels,
        jnp.ones(4),
        steps=4000,
        step_size=None,
        weight_decay=0.01,
        optimizer="sgd",
    )
    phi, y = flat(rows, features), np.asarray(labels).reshape(-1)[:2000]
    slope = np.clip(phi @ np.asarray(a) - y, -0.5, 0.5)
    assert np.abs(phi.T @ slope / 2000 + 0.01 * np.asarray(a)).max() < 1e-4


def test_unit_rows_are_what_stage_2_sees():
    problem, memory = problem_of(Dense(), n=500, d=30)
    for unit in (True, False):
        result = trained(LayerwiseGd(steps=4, unit_rows=unit), problem, memory)
        norms = np.sqrt(np.diag(result["readout_gram"]))
        expected = np.ones(4) if unit else result["trajectory"]["norm"][-1]
        np.testing.assert_allclose(norms, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("design", "algorithm"),
    [
        pytest.param(Dense(), LayerwiseGd(steps=3), marks=pytest.mark.slow),
        (Streamed(), LayerwiseGd(steps=3)),
        pytest.param(Deferred(), LayerwiseGd(steps=3), marks=pytest.mark.slow),
        (Streamed(block=32), OnlineSgd(saves=2)),
        (Deferred(block=32), OnlineSgd(saves=2)),
    ],
    ids=label,
)
def test_the_same_numbers_in_the_large_blocks_of_an_accelerator(monkeypatch, design, algorithm):
    """Random numbers belong to grains of rows, not to blocks: what differs is rounding."""

    def run(backend):
        monkeypatch.setattr("jax.default_backend", lambda: backend)
        monkeypatch.setattr("mirage.designs.rows.FILLING", 2**17)
        problem, memory = problem_of(
            design,
            n=6000,
            d=70,
            right=16,
            left=4 if algorithm.one_pass else 16,
            target=Hermite(noise=0.3),
            one_pass=algorithm.one_pass,
        )
        return problem.matrix.rows, eqx.filter_jit(train)(
            jax.random.key(0), algorithm, problem, memory, sample_error=True
        )

    small, cpu = run("cpu")
    large, gpu = run("gpu")
    assert (small.size, large.size % small.size) == (small.grain, 0)
    assert large.size > small.size
    for name in ("weights", "test_error"):
        np.testing.assert_allclose(gpu[name], cpu[name], rtol=2e-3, atol=2e-5)
