"""The spectral estimator, the linear algebra below it, and theory laid over simulations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import DESIGNS, label

import mirage
from mirage import Experiment, lapack, simulate
from mirage.activations import Cos
from mirage.algorithms import Spectral, draw_problem
from mirage.channels.labels import label_bins, label_table
from mirage.channels.preprocessing import law_of
from mirage.designs import Deferred, Dense
from mirage.inputs import Gaussian
from mirage.losses import Huber, LogCosh, Mse, Optimal, PseudoHuber, slopes
from mirage.network import TwoLayer
from mirage.targets import Hermite, PhaseRetrieval
from mirage.theory.spectral import predict


def run(**settings):
    return simulate(Experiment(**{"seeds": 2, "target": Hermite(), "design": Dense(), **settings}))


def test_as_many_steps_as_dimensions_give_the_whole_spectrum():
    """Ritz values are the eigenvalues of D made from X itself, the largest and smallest first."""
    d, n, inputs, loss, target = 30, 90, Gaussian(), Huber(delta=0.7), Hermite()
    key, design, algorithm = jax.random.key(1), Dense(), Spectral(steps=d)
    drawn = jax.vmap(lambda k: design.draw(k, inputs, n_max=n, d=d))(key[None])
    matrix = design.matrix(drawn, 0, n, inputs, n_max=n, d=d, right=2 * d, left=d)
    model = {"loss": loss, "activation": Cos(), "network": TwoLayer()}
    problem, memory = draw_problem(
        key, matrix, jnp.eye(2, d), target, inputs=inputs, inputs_key=key, **model
    )
    state = algorithm.init(key, problem, memory)
    state = jax.lax.fori_loop(0, d, lambda _, s: algorithm.step(s, problem), state)
    blocks, _ = matrix.forward(jnp.eye(d), memory)
    x = np.moveaxis(np.asarray(blocks, np.float64), 1, -1).reshape(-1, d)[:n]
    y = np.asarray(problem.labels, np.float64).ravel()[:n]
    t = np.clip(y, -0.7, 0.7)
    wanted = np.linalg.eigvalsh((x * (t - t.mean())[:, None]).T @ x / n)
    np.testing.assert_allclose(algorithm.outcome(state)["ritz_value"], wanted, atol=2e-5)
    ends = np.concatenate([wanted[:-3:-1], wanted[:2]])
    np.testing.assert_allclose(state.eigenvalues, ends, atol=2e-5)


@pytest.mark.parametrize("design", DESIGNS, ids=label)
def test_eigenvectors_are_eigenvectors(design):
    """‖D w − λ w‖ is small, D by two products of the same matrix; overlaps are of unit vectors."""
    n, d, steps = 600, 60, 40
    algorithm = Spectral(steps=steps, components=1)
    right, left = steps + 4, steps + 4
    inputs, loss, target = Gaussian(), Huber(), Hermite()

    @jax.jit
    def find(key):
        drawn = jax.vmap(lambda k: design.draw(k, inputs, n_max=n, d=d))(key[None])
        size = {"n_max": n, "d": d, "right": right, "left": left}
        matrix = design.matrix(drawn, 0, n, inputs, **size)
        u = jnp.eye(2, d)
        model = {"loss": loss, "activation": Cos(), "network": TwoLayer()}
        problem, memory = draw_problem(
            key, matrix, u, target, inputs=inputs, inputs_key=key, **model
        )
        state = algorithm.init(key, problem, memory)
        state = jax.lax.fori_loop(0, steps, lambda _, s: algorithm.step(s, problem), state)
        centre = problem.centre()

        def weighted(z, y):
            return (centre - loss.slope(jnp.zeros_like(y), y))[None] * z / n, None

        image, _, _ = matrix.pull_back(weighted, state.weights, (problem.labels,), state.memory)
        return state.weights, state.eigenvalues, image

    weights, values, image = find(jax.random.key(3))
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1, rtol=1e-4)
    rest = np.linalg.norm(image - values[:, None] * weights, axis=1)
    assert (rest < 0.02 * np.abs(values)).all()


@pytest.mark.slow
def test_one_end_is_half_of_both():
    both = run(d=40, n=200, algorithm=Spectral(steps=40, components=2))
    lower = run(d=40, n=200, algorithm=Spectral(steps=40, components=2, end="lower"))
    np.testing.assert_allclose(
        both.eigenvalue.values[..., 2:], lower.eigenvalue.values, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "algorithm.steps"),
        ({"components": 0}, "algorithm.components"),
        ({"end": "left"}, "expected one of upper, lower, both"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Spectral(**settings)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    ("loss", "design"),
    [(Huber(), Dense()), (LogCosh(), Deferred()), (PseudoHuber(delta=3.0), Deferred())],
    ids=label,
)
def test_overlaps_at_d_1000_are_those_predicted(loss, design):
    """Both directions' squared overlaps and eigenvalues at n/d = 20, within finite-d corrections.

    The two predictions are equal, and repel one another at finite d: their mean is compared, and
    seeds give its error; 1/√d of the value is allowed for what is left of the limit.
    """
    seeds = 8
    found = run(
        d=1000, alpha=20, algorithm=Spectral(steps=40), loss=loss, seeds=seeds, design=design
    )
    bins = label_bins(label_table(Hermite()))
    wanted = predict(law_of(loss, bins).negated(), np.array([20.0]))
    overlap = (found.overlap_trajectory.isel(step=-1)[0, 0].values[:, 2:] ** 2).sum(-1).mean(1)
    value = -found.eigenvalue.values[0, 0, :, 2:].mean(axis=1)
    for seen, predicted in ((overlap, wanted.overlap.mean()), (value, wanted.outlier.mean())):
        error = seen.std(ddof=1) / np.sqrt(seeds)
        assert abs(seen.mean() - predicted) < 4 * error + predicted / np.sqrt(1000)


@pytest.mark.slow
@pytest.mark.optimised
def test_the_optimal_loss_recovers_where_it_is_predicted_to():
    target = PhaseRetrieval()
    found = run(
        target=target,
        d=1000,
        alpha=[0.25, 1.0, 2.0],
        algorithm=Spectral(steps=60, end="upper"),
        loss=Optimal(),
        seeds=6,
    )
    below, *above = found.cos_best.mean("seed").values[0]
    assert below < 0.25
    np.testing.assert_allclose(above, [0.479, 0.793], atol=0.06)


def test_the_optimal_loss_is_made_for_every_target():
    setups = Experiment(
        target={"h2": PhaseRetrieval(), "h1": PhaseRetrieval(power=1.0)},
        loss={"optimal": Optimal(), "mse": Mse()},
        d=10,
        alpha=2,
    ).setups()
    y = np.linspace(0.5, 2.0, 5)
    seen = {names: -slopes(s.loss, 0 * y, y) for names, s in setups.items()}
    np.testing.assert_allclose(seen[("h2", "optimal")], 1 - 1 / y, atol=0.02)
    np.testing.assert_allclose(seen[("h1", "optimal")], 1 - 1 / y**2, atol=0.05)
    np.testing.assert_allclose(seen[("h1", "mse")], y)


def test_small_decompositions_under_vmap_go_one_at_a_time():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 4, 4)).astype(np.float32)
    a = a @ a.transpose(0, 2, 1) + np.eye(4, dtype=np.float32)
    b = rng.normal(size=(5, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(
        jax.vmap(lapack.eigvalsh)(a), np.linalg.eigvalsh(a), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(jax.vmap(lapack.cholesky)(a), np.linalg.cholesky(a), rtol=1e-4)
    np.testing.assert_allclose(
        jax.vmap(lapack.solve)(a, b), np.linalg.solve(a, b), rtol=1e-3, atol=1e-5
    )
    values, vectors = jax.vmap(lapack.eigh)(a)
    np.testing.assert_allclose(
        np.einsum("bij,bj,bkj->bik", vectors, values, vectors), a, rtol=1e-3, atol=1e-4
    )
    # No batch reaches LAPACK: two devices that wait for one pool of threads would stand still.
    for function, batched in ((lapack.eigvalsh, False), (jnp.linalg.eigvalsh, True)):
        text = jax.jit(jax.vmap(function)).lower(a).as_text()
        calls = [line for line in text.splitlines() if "lapack_ssyevd_ffi" in line]
        assert calls
        assert any("tensor<5x4x4xf32>" in line for line in calls) is batched


SMALL = ["d=[20]", "alpha=[3,6]", "seeds=2"]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("label_information", ["compare.target=[parity,phase_retrieval]"]),
        (
            "loss_design",
            ["theory.points=3", "compare.target=[phase_retrieval]", "compare.loss=[mse]"],
        ),
        ("spectral_transition", [*SMALL, "compare.algorithm=[{name: spectral, steps: 5}]"]),
    ],
)
def test_experiments_with_theory_run_and_draw_their_figures(name, overrides, tmp_path):
    results = simulate(mirage.compose(f"+experiment={name}", *overrides))
    figure = mirage.figures.draw(results, name)
    assert figure.axes
    mirage.save(results, tmp_path)
    assert mirage.load(tmp_path).identical(results)
    assert results.alpha_c.notnull().all()


def test_theory_stands_beside_the_cells_it_is_about():
    results = simulate(
        mirage.compose("+theory=spectral", "algorithm.steps=1", "compare.loss=[mse,huber]", *SMALL)
    )
    assert results.cos_best_predicted.dims == ("loss", "alpha_theory")
    assert float(results.spectral_threshold.sel(loss="huber", end="lower")) == pytest.approx(
        4.41, abs=0.02
    )
    assert float(results.alpha_c) == pytest.approx(1.467, rel=0.01)
    assert np.isnan(float(results.spectral_threshold.sel(loss="mse", end="upper")))
    assert mirage.figures.draw(results).axes[0].get_lines()


def test_theory_is_left_out_where_it_does_not_hold():
    results = simulate(
        mirage.compose("+theory=spectral", "inputs=rademacher", "algorithm.steps=1", *SMALL)
    )
    assert "alpha_c" not in results


def test_no_sample_size_and_no_theory_is_refused():
    with pytest.raises(ValueError, match="exactly one of alpha, exponent, n or a search"):
        Experiment(d=10)
