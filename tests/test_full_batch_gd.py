"""Full-batch GD against autodiff, a fresh batch against drawn rows, both against known numbers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_algorithms import problem_of, trained
from test_designs import flat, forward

import mirage
from mirage import Experiment, simulate
from mirage.activations import Relu, Tanh
from mirage.algorithms import FullBatchGd
from mirage.algorithms.fresh import fresh_pull_back
from mirage.designs import Dense
from mirage.losses import Huber, Mse
from mirage.network import TwoLayer
from mirage.runtime import Default
from mirage.targets import Hermite, SingleIndex

QUIET = Default(progress=False)
FOUR = TwoLayer(width=4, symmetric=False, initial_norm=0.5, initial_bias_scale=0.3)


@pytest.mark.parametrize("per_dimension", [False, True])
def test_every_layer_follows_its_gradient(per_dimension):
    """Three steps against jax.grad of the loss written out on the rows themselves."""
    n, d, steps = 300, 15, 3
    rates = {"step_size": 0.4, "readout_step_size": 0.2, "bias_step_size": 0.3}
    rates |= {"intercept_step_size": 0.1}
    algorithm = FullBatchGd(steps=steps, weight_decay=0.05, per_dimension=per_dimension, **rates)
    if per_dimension:
        algorithm = eqx.tree_at(lambda a: a.step_size, algorithm, 0.02)
    problem, memory = problem_of(
        Dense(), n=n, d=d, loss=Huber(), activation=Tanh(), network=FOUR, target=Hermite(noise=0.1)
    )
    x = jnp.asarray(flat(problem.matrix.rows, forward(problem.matrix, jnp.eye(d), None)[0]))
    y = problem.labels.reshape(-1)[:n]

    def loss(parameters):
        w, a, b, c = parameters
        f = Tanh()(x @ w.T + b[None]) @ a + c
        return Huber()(f, y).sum() / (d if per_dimension else n)

    key = jax.random.split(jax.random.key(0), 3)[0]
    key = jax.random.split(key)[0]
    a, w = FOUR.init(key, problem.directions)
    c = -algorithm.intercept_step_size * Huber().slope(jnp.zeros_like(y), y).mean()
    parameters = (w, a, FOUR.init_biases(key), c)
    sizes = (algorithm.step_size, *(rates[k] for k in list(rates)[1:]))
    for _ in range(steps):
        slopes = list(jax.grad(loss)(parameters))
        slopes[0] = slopes[0] + algorithm.weight_decay * parameters[0]
        parameters = tuple(p - s * g for p, s, g in zip(parameters, sizes, slopes, strict=True))
    found = trained(algorithm, problem, memory)
    names = ("weights", "readout", "biases", "intercept")
    for name, expected in zip(names, parameters, strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=2e-4, atol=2e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.optimised
def test_a_fresh_gradient_has_the_law_of_drawn_rows():
    """G X of rows that are never drawn, twin neurons included, by two-sample tests."""
    n, d, count = 40, 6, 3000
    problem, _ = problem_of(Dense(), n=n, d=d, target=SingleIndex(noise=0.2), activation=Relu())
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, d)).astype(np.float32)
    w[2] = w[0]

    def pull(z, y):
        g = (jnp.tanh(z) - y[None]) * z
        return g, y

    keys = jax.random.split(jax.random.key(0), count)
    drawn = jax.jit(jax.vmap(lambda key: fresh_pull_back(key, problem, pull, jnp.asarray(w))))
    product, total = (np.asarray(v) for v in drawn(keys))

    def plain(key):
        key_x, key_y = jax.random.split(key)
        x = jax.random.normal(key_x, (n, d))
        y = problem.target.draw(key_y, x[:, :1])
        g, y = pull(jnp.asarray(w) @ x.T, y)
        return g @ x, y.sum()

    expected, sums = (
        np.asarray(v) for v in jax.jit(jax.vmap(plain))(jax.random.split(jax.random.key(1), count))
    )
    p_values = [stats.ks_2samp(total, sums).pvalue]
    for values in (lambda g: g, lambda g: g[:, :1] * g[:, 1:2], lambda g: g**2):
        a, b = (values(v).reshape(count, -1) for v in (product, expected))
        p_values += [stats.ks_2samp(a[:, i], b[:, i]).pvalue for i in range(a.shape[1])]
    assert min(p_values) > 0.01 / len(p_values)
    np.testing.assert_allclose(product[:, 2], product[:, 0], atol=1e-3)


# The simulation that the authors of arXiv 2402.03220 publish, d = 5000, n = 3d, 32 seeds: M and
# half the error after 1, 3 and 6 steps.
PUBLISHED = {
    1: (0.07572, -0.06258, -0.07569, 0.06294, 0.42017),
    3: (0.15618, -0.12758, -0.15637, 0.12796, 0.36828),
    6: (0.21468, -0.17219, -0.21459, 0.17286, 0.35042),
}


@pytest.mark.slow
@pytest.mark.optimised
def test_the_reused_batch_gives_the_published_numbers():
    """Within four standard errors of a difference of two such means, all at once."""
    results = simulate(mirage.compose("+experiment=reusing_batch_dmft", "runtime.progress=false"))
    reused = results.isel(algorithm=0).squeeze()
    count = reused.sizes["seed"]
    for step, published in PUBLISHED.items():
        overlap = reused.overlap_trajectory.sel(step=step).values.reshape(count, 4)
        error = reused.test_error_trajectory.sel(step=step).values / 2
        found = np.concatenate([overlap, error[:, None]], axis=1)
        spread = found.std(axis=0, ddof=1) * np.sqrt(2 / count)
        assert (np.abs(found.mean(axis=0) - published) < 4 * spread).all(), step
    # A fresh batch at every step does better, and the first steps are alike.
    both = results.test_error_trajectory.mean("seed").squeeze()
    assert float(abs(both.sel(step=1)).diff("algorithm").squeeze()) < 0.004
    assert (both.isel(algorithm=1).sel(step=[3, 7]) < both.isel(algorithm=0).sel(step=[3, 7])).all()


@pytest.mark.slow
def test_two_steps_on_one_batch_learn_what_one_cannot():
    """He_3 at n = 3d: by the mean overlap over seeds, in units of its standard error."""
    results = simulate(
        mirage.compose("+experiment=reusing_batch", "d=2000", "seeds=100", "runtime.progress=false")
    )
    cosine = (results.overlap_trajectory / results.norm_trajectory).squeeze()
    mean, error = cosine.mean("seed"), cosine.std("seed") / np.sqrt(cosine.sizes["seed"])
    score = (mean / error).transpose("target", "algorithm", "step").values
    (tanh_reused, tanh_fresh), (cubic_reused, cubic_fresh) = score
    assert min(tanh_reused[1], tanh_fresh[1]) > 20
    assert abs(cubic_reused[1]) < 4
    assert abs(cubic_reused[2]) > 5
    assert np.abs(cubic_fresh).max() < 4


def test_a_fresh_batch_is_for_gaussian_inputs():
    with pytest.raises(ValueError, match=r"inputs='rademacher': .* inputs=gaussian"):
        mirage.compose("algorithm=full_batch_gd", "algorithm.fresh=true", "inputs=rademacher")


@pytest.mark.parametrize(
    "key", ["weight_decay", "readout_step_size", "bias_step_size", "intercept_step_size"]
)
def test_negative_step_sizes_are_refused(key):
    with pytest.raises(ValueError, match=rf"algorithm\.{key}=-1"):
        FullBatchGd(**{key: -1.0})


def test_errors_are_saved_for_every_step_where_asked():
    run = functools.partial(
        Experiment, target=SingleIndex(), activation=Tanh(), loss=Mse(), network=FOUR, d=30,
        alpha=20.0, seeds=2, runtime=QUIET,
    )  # fmt: skip
    results = simulate(run(algorithm=FullBatchGd(steps=5, step_size=0.5, save_errors=True)))
    errors = results.test_error_trajectory.squeeze()
    assert errors.sizes["step"] == 6
    np.testing.assert_allclose(errors.isel(step=-1), results.test_error.squeeze(), rtol=1e-6)
    assert (errors.isel(step=-1) < errors.isel(step=0)).all()
