"""One-pass SGD: the block recursion against the plain loop, and the chain against it in law."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tables import ONE_PASS, label, samples

from mirage import Experiment, simulate
from mirage.activations import Erf, Relu, Tanh
from mirage.activations import Hermite as HermiteActivation
from mirage.algorithms import (
    Extragradient,
    Lookahead,
    OnlineSgd,
    OrderParameterChain,
    draw_problem,
    train,
)
from mirage.designs import Auto, Deferred, Dense, Streamed, Window
from mirage.designs.deferred_rows import deferred_rows
from mirage.inputs import Gaussian, Rademacher
from mirage.losses import Correlation, Huber, Mse
from mirage.network import TwoLayer
from mirage.runtime import Default
from mirage.targets import Hermite, Parity, PhaseRetrieval, SingleIndex
from mirage.wishart import chi_square, wishart_root

QUIET = Default(progress=False)
UNIT = TwoLayer(width=1, symmetric=False, initial_norm=1.0, output="ones", start="aligned")
TWO = TwoLayer(width=2, symmetric=False, initial_norm=0.7, output="alternating")


trained = eqx.filter_jit(train)


def late(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def one_pass_problem(algorithm, *, n, d, target, network, loss=None, activation=None, seed=0):
    key = jax.random.key(seed)
    model = {"loss": loss or Mse(), "activation": activation or Tanh(), "network": network}
    drawn = Gaussian().source(key, "train")[None]
    design = Streamed(block=algorithm.block)
    matrix = design.matrix(drawn, 0, n, Gaussian(), n_max=n, d=d, right=1, left=1)
    directions = jnp.eye(target.rank, d)
    own = {**samples(), "inputs_key": key}
    return draw_problem(key, matrix, directions, target, one_pass=True, **model, **own)[0]


def plainly(algorithm, problem, n, key):
    """The same in NumPy, float64, a batch at a time, with every weight moved at once."""
    first = jax.random.split(key, 3)[0]
    a, weights = eqx.filter_jit(problem.network.init)(first, problem.directions)
    a, w = np.asarray(a, np.float64), np.asarray(weights, np.float64)
    b = np.asarray(problem.network.init_biases(first), np.float64)
    d, size = w.shape[1], algorithm.batch_size
    if algorithm.spherical:
        w /= np.linalg.norm(w, axis=1, keepdims=True)
    blocks = [problem.matrix.block(b) for b in range(-(-n // algorithm.block))]
    x = np.concatenate([np.asarray(b, np.float64) for b in blocks])[:n]
    h = [(problem.directions @ b.T).T for b in blocks]
    y = np.concatenate([np.asarray(problem.draw_labels(i, v)) for i, v in enumerate(h)])[:n]
    step = algorithm.step_size * d**-algorithm.step_exponent
    inner = step
    if algorithm.inner_step_size is not None:
        inner = algorithm.inner_step_size / d

    @jax.jit
    def slopes(z, y):
        slope = problem.loss.slope(a @ problem.activation(z), y) / len(y)
        return a[:, None] * slope[None] * problem.activation.derivative(z)

    def gradient(w, x, y):
        with jax.enable_x64(True):
            return np.asarray(slopes(w @ x.T + b[:, None], y)) @ x

    for first in range(0, n // size * size, size):
        batch = x[first : first + size], y[first : first + size].astype(np.float64)
        if algorithm.update == "gradient":
            g = step * gradient(w, *batch)
        elif algorithm.update == "extragradient":
            g = step * gradient(w - inner * gradient(w, *batch), *batch)
        else:
            here, g = w, 0.0
            for _ in range(algorithm.repeats):
                own = gradient(here, *batch)
                g, here = g + step * own, here - inner * own
        if algorithm.spherical:
            w = w - g + (g * w).sum(axis=1, keepdims=True) * w
            w /= np.linalg.norm(w, axis=1, keepdims=True)
        else:
            w = w - g
    return w


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (OnlineSgd, {}),
        late(OnlineSgd, {"batch_size": 8}),
        (Extragradient, {"inner_step_size": 0.5}),
        late(Extragradient, {"inner_step_size": -0.5, "batch_size": 4}),
        late(Lookahead, {}),
        (Lookahead, {"repeats": 3, "inner_step_size": 0.3, "batch_size": 2}),
    ],
)
def test_blocks_do_what_a_plain_loop_does(kind, changes, spherical):
    """n is no multiple of the block, and marks lie inside blocks."""
    algorithm = kind(step_size=0.7, spherical=spherical, saves=9, **changes)
    network = TwoLayer(width=3, symmetric=False, initial_norm=0.8, initial_bias_scale=0.5)
    n, d, key = 200 // algorithm.batch_size * algorithm.batch_size, 25, jax.random.key(5)
    problem = one_pass_problem(algorithm, n=n, d=d, target=SingleIndex(noise=0.1), network=network)
    result = trained(key, algorithm, problem, None)
    expected = plainly(algorithm, problem, n, key)
    moved = np.abs(
        expected - np.asarray(network.init(jax.random.split(key, 3)[0], problem.directions)[1])
    )
    assert moved.max() > 0.05
    np.testing.assert_allclose(result["weights"], expected, atol=3e-5)
    seen = np.asarray(result["trajectory"]["samples_seen"])
    assert (seen[0], seen[-1]) == (0, n)
    assert (np.diff(seen) > 0).all()
    assert seen[1] == algorithm.batch_size


def test_marks_do_not_change_what_is_drawn():
    network, key = TWO, jax.random.key(1)
    target = Hermite(noise=0.2)
    results = []
    for saves in (3, 50):
        algorithm = OnlineSgd(saves=saves)
        problem = one_pass_problem(algorithm, n=333, d=40, target=target, network=network)
        results.append(trained(key, algorithm, problem, None))
    np.testing.assert_allclose(results[0]["weights"], results[1]["weights"], atol=1e-5)


LAWS = [
    (OnlineSgd, {"spherical": True, "step_size": 0.4}, UNIT, PhaseRetrieval(), "hermite"),
    (OnlineSgd, {"step_size": 1.5, "batch_size": 4}, TWO, Hermite(terms=[[1.0, [1, 1]]]), "erf"),
    (
        Extragradient,
        {"spherical": True, "step_size": 0.2, "inner_step_size": 0.4},
        UNIT,
        Hermite(terms=[[1.0, [3]]], noise=0.1),
        "relu",
    ),
    (Lookahead, {"step_size": 1.0, "batch_size": 2}, TWO, SingleIndex(), "relu"),
]


def same_law(one, other):
    """Two-sample tests of M, Q and their products half way and at the end."""
    p_values = []
    for step in (2, 4):
        seen = [r.overlap_trajectory.isel(step=step).squeeze().values for r in (one, other)]
        norms = [r.norm_trajectory.isel(step=step).squeeze().values for r in (one, other)]
        for values in (seen, norms, [np.abs(v) for v in seen]):
            a, b = (np.asarray(v).reshape(len(v), -1) for v in values)
            for i in range(a.shape[1]):
                if np.ptp(a[:, i]) > 1e-4:
                    p_values.append(stats.ks_2samp(a[:, i], b[:, i]).pvalue)
    gram = [r.gram.squeeze().values.reshape(r.sizes["seed"], -1).prod(axis=1) for r in (one, other)]
    if np.ptp(gram[0]) > 1e-4:
        p_values.append(stats.ks_2samp(*gram).pvalue)
    assert len(p_values) > 2
    assert min(p_values) > 0.01 / len(p_values)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(("kind", "changes", "network", "target", "activation"), LAWS, ids=str)
def test_rows_drawn_or_not_and_the_chain_are_one_law(kind, changes, network, target, activation):
    full = kind(saves=4, **changes)
    settings = {**changes, "update": full.update, "inner_step_size": full.inner_step_size}
    chain = OrderParameterChain(saves=4, **settings)
    activations = {"hermite": HermiteActivation(degree=2), "relu": Relu(), "erf": Erf()}
    common = {"target": target, "network": network, "loss": Mse(), "d": 12, "n": 240}
    common |= {"activation": activations[activation], "runtime": QUIET, "seeds": 600}
    drawn = simulate(Experiment(**common, algorithm=full, design=Streamed()))
    never = simulate(Experiment(**common, algorithm=full, design=Deferred(), first_seed=5000))
    alone = simulate(Experiment(**common, algorithm=chain, first_seed=10_000))
    same_law(drawn, never)
    same_law(drawn, alone)


@pytest.mark.parametrize(
    ("k", "moved", "size", "d"), [(1, 1, 1, 3), (2, 1, 32, 200), (5, 3, 4, 12), (3, 6, 4, 10)]
)
def test_rows_never_drawn_have_the_products_they_say(k, moved, size, d):
    """(C X) Vᵀ = C (V Xᵀ)ᵀ and (C X)(C X)ᵀ = C K Cᵀ, twice the same V included."""
    key_v, key_c, key = jax.random.split(jax.random.key(d), 3)

    @jax.jit
    def drawn():
        v = jax.random.normal(key_v, (k, d))
        v = v.at[-1].set(v[0])
        c = jax.random.normal(key_c, (moved, size))
        zero = jnp.zeros((), jnp.int32)
        rows = deferred_rows(key, Window(zero, zero, zero + size), v, size=size, moved=moved)
        return v, c, rows.products, rows.gram, rows.combine(c)

    v, c, products, gram, moves = map(np.asarray, drawn())
    scale = np.sqrt(size) * d
    np.testing.assert_allclose(moves @ v.T, c @ products.T, atol=2e-6 * scale)
    np.testing.assert_allclose(moves @ moves.T, c @ gram @ c.T, atol=2e-6 * size * scale)


@pytest.mark.bits
def test_a_window_has_rows_of_its_own():
    """Two windows of one block: the same products of the rows, other directions off V."""
    v, zero = jnp.eye(2, 50), jnp.zeros((), jnp.int32)
    windows = [Window(zero, zero, zero + 8), Window(zero, zero + 8, zero + 32)]
    key = jax.random.key(0)
    one, other = (deferred_rows(key, w, v, size=32, moved=1) for w in windows)
    np.testing.assert_array_equal(one.gram, other.gram)
    assert abs(float(jnp.vdot(one.frame, other.frame))) < 0.6


STARTS = [UNIT, TWO, TwoLayer(), TwoLayer(width=3, symmetric=False, start="orthogonal")]


@pytest.mark.parametrize("network", STARTS, ids=str)
def test_order_parameters_start_as_weights_do(network):
    """Means and variances of M and Q over many starts, within five standard errors."""
    d, rank, count = 7, 2, 4000
    keys = jax.random.split(jax.random.key(0), count)

    def from_weights(key):
        a, w = network.init(key, jnp.eye(rank, d))
        return a, w[:, :rank], w @ w.T

    def alone(key):
        return network.init_order_parameters(key, rank=rank, d=d)

    drawn = [
        [np.asarray(v, np.float64).reshape(count, -1) for v in jax.jit(jax.vmap(f))(keys)]
        for f in (from_weights, alone)
    ]
    for moment in (lambda v: v, np.square, np.abs):
        first, second = ([moment(v) for v in values] for values in drawn)
        for a, b in zip(first, second, strict=True):
            error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / count)
            scale = network.initial_norm
            assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) <= 5 * error + 1e-6 * scale).all()


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 1000, 10**9])
def test_chi_square_has_its_law(freedom):
    values = np.asarray(chi_square(jax.random.key(freedom), freedom, (20_000,)), np.float64)
    assert stats.kstest(values, stats.chi2(freedom).cdf).pvalue > 0.01


def test_chi_square_of_no_degrees_is_zero():
    assert not np.asarray(chi_square(jax.random.key(0), np.array([0, 3]), (100, 2)))[:, 0].any()


@pytest.mark.parametrize("freedom", [2, 3, 4, 50])
def test_wishart_matrices_have_the_law_of_gram_matrices(freedom):
    """Entries, determinants and largest eigenvalues, in two-sample tests."""
    size, count = 3, 4000
    root = np.asarray(wishart_root(jax.random.key(0), size=size, freedom=freedom, count=count))
    drawn = root @ np.swapaxes(root, 1, 2)
    x = np.random.default_rng(0).standard_normal((count, size, freedom))
    gram = x @ np.swapaxes(x, 1, 2)
    for measure in (
        lambda m: m[:, 0, 0],
        lambda m: m[:, 2, 1],
        lambda m: m[:, 1, 1],
        lambda m: np.linalg.eigvalsh(m)[:, -1],
        lambda m: m[:, 0, 1] * m[:, 1, 2] * m[:, 0, 2],
    ):
        assert stats.ks_2samp(measure(drawn), measure(gram)).pvalue > 0.002
    assert np.linalg.matrix_rank(drawn[0]) == min(size, freedom)


def test_small_steps_add_up_at_any_dimension():
    """At d = 10⁹ a step is below the rounding of M; over 2000 steps its drift is seen.

    E y f' for y = h and f = z is 1: M grows by γ a step but for noise of γ √steps.
    """
    network = TwoLayer(width=1, symmetric=False, initial_norm=0.9, output="ones", start="aligned")
    algorithm = OrderParameterChain(step_size=1.0, saves=2)
    linear = HermiteActivation(degree=1)
    results = simulate(
        Experiment(
            target=Hermite(terms=[[1.0, [1]]]),
            network=network,
            activation=linear,
            loss=Correlation(),
            algorithm=algorithm,
            d=10**9,
            n=4096,
            seeds=4,
            runtime=QUIET,
        )
    )
    moved = np.diff(results.overlap_trajectory.squeeze().isel(step=[0, -1]).values, axis=-1)[:, 0]
    assert np.abs(moved / 4096e-9 - 1).max() < 5 * np.sqrt(2 / 4096)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("algorithm", [OnlineSgd, OrderParameterChain])
def test_norms_stay_what_they_are_over_a_long_run_on_the_sphere(algorithm):
    """The labels of a parity with a trial step: E[C z] > 0, an error ε of ‖w‖² grows as 2 E[C z] ε.

    In each step by 1e-4 of it: what rounding adds would be e^25 times as large in the end.
    """
    network = TwoLayer(width=2, symmetric=False, initial_norm=1.0, output="alternating")
    settings = {"update": "extragradient", "inner_step_size": 0.3, "step_size": 0.5, "saves": 4}
    settings["step_exponent"] = 1.5
    results = simulate(
        Experiment(
            target=Parity(k=3),
            network=network,
            activation=Erf(),
            loss=Correlation(),
            algorithm=algorithm(spherical=True, **settings),
            d=64,
            n=300_000,
            seeds=2,
            runtime=QUIET,
        )
    )
    np.testing.assert_allclose(results.norm_trajectory, 1, atol=1e-4)
    gram = results.gram.values.reshape(2, 2, 2)
    np.testing.assert_allclose(gram, np.swapaxes(gram, 1, 2), atol=1e-4)


def test_a_stopped_seed_stays_where_it_is_and_others_go_on():
    algorithm = OrderParameterChain(spherical=True, step_size=0.3, stop_cosine=0.5, saves=30)
    results = simulate(
        Experiment(
            target=PhaseRetrieval(),
            network=UNIT,
            activation=HermiteActivation(degree=2),
            loss=Mse(),
            algorithm=algorithm,
            d=50,
            alpha=100.0,
            seeds=8,
            runtime=QUIET,
        )
    )
    cosine = results.cos_best_trajectory.squeeze().values
    seen = results.samples_seen.squeeze().values
    reached = (cosine >= 0.5).argmax(axis=1)
    assert (cosine[:, -1] >= 0.5).all()
    assert len(set(reached)) > 1
    for k, at in enumerate(reached):
        assert (cosine[k, at:] == cosine[k, at]).all()
        assert (seen[k, at:] == seen[k, at]).all()


@pytest.mark.parametrize("algorithm", ONE_PASS, ids=label)
def test_steps_that_diverge_are_flagged_with_the_samples_seen(algorithm):
    wild = {"step_size": 300.0, "saves": 20}
    kind = type(algorithm)
    results = simulate(
        Experiment(
            target=PhaseRetrieval(),
            network=UNIT,
            activation=HermiteActivation(degree=2),
            loss=Mse(),
            algorithm={"tame": kind(saves=20, step_size=1e-3), "wild": kind(**wild)},
            d=30,
            n=400,
            seeds=2,
            runtime=QUIET,
        )
    )
    assert results.diverged.sel(algorithm="wild").all()
    assert not results.diverged.sel(algorithm="tame").any()
    at = results.diverged_at.sel(algorithm="wild").values
    assert ((at > 0) & (at < 400)).all()
    assert results.diverged_at.sel(algorithm="tame").isnull().all()


BAD = [
    ({"step_size": 0.0}, "algorithm.step_size=0.0: expected a positive number"),
    ({"batch_size": 0}, "algorithm.batch_size=0"),
    ({"batch_size": 7}, "expected a divisor of 32"),
    ({"update": "adam"}, "expected one of gradient, extragradient, lookahead"),
    ({"update": "extragradient"}, "algorithm.inner_step_size=None: expected the trial step's size"),
    ({"update": "lookahead", "inner_step_size": 0.0}, "plain SGD"),
    ({"saves": 1}, "algorithm.saves=1"),
    ({"stop_cosine": 1.5}, "algorithm.stop_cosine=1.5"),
    ({"repeats": 1}, "algorithm.repeats=1"),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=str)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OnlineSgd(**settings)


def test_a_trial_step_of_no_size_is_plain_sgd():
    with pytest.raises(ValueError, match=r"inner_step_size=0.0: .* plain SGD"):
        Extragradient(inner_step_size=0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 30}, "algorithm.saves=60: the run has 30 steps"),
        ({"inputs": Rademacher(), "algorithm": OrderParameterChain()}, "inputs='rademacher'"),
        ({"d": 2, "algorithm": OrderParameterChain()}, "d=2: expected at least 3"),
    ],
    ids=str,
)
def test_cells_that_cannot_run_are_refused(changes, message):
    network = TwoLayer(width=1, symmetric=False)
    settings = {"d": 20, "n": 100, "network": network, "algorithm": OnlineSgd(), **changes}
    with pytest.raises(ValueError, match=message):
        Experiment(**settings)


@settings(deadline=None, max_examples=40)
@given(st.integers(60, 2**31 - 2**13), st.integers(2, 60), st.sampled_from([1, 4, 32]))
def test_marks_rise_from_nothing_to_every_sample(n, saves, batch_size):
    algorithm = OnlineSgd(saves=saves, batch_size=batch_size)
    n = max(n, saves * batch_size)
    marks = np.asarray(jax.jit(algorithm.schedule)(jnp.asarray(n, jnp.int32)), np.int64)
    assert len(marks) == saves + 1
    assert marks[0] == 0
    assert marks[-1] == n // batch_size * batch_size
    assert (np.diff(marks) > 0).all()
    assert (marks % batch_size == 0).all()


@pytest.mark.parametrize(
    ("design", "inputs", "d", "chosen"),
    [
        (Dense(), Gaussian(), 20, "streamed"),
        (Auto(), Gaussian(), 20, "deferred"),
        (Auto(), Gaussian(), 5, "streamed"),
        (Auto(), Rademacher(), 20, "streamed"),
    ],
)
def test_rows_seen_once_are_never_kept(design, inputs, d, chosen):
    model = {"target": SingleIndex(), "network": TWO, "activation": Tanh(), "loss": Huber()}
    model |= {"algorithm": OnlineSgd(saves=5), "design": design, "inputs": inputs}
    results = simulate(Experiment(**model, d=d, n=100, seeds=2, runtime=QUIET))
    assert results.design.item() == chosen
    assert results.test_error.notnull().all()


def test_rows_never_drawn_need_room_off_the_neurons():
    model = {"target": SingleIndex(), "network": TWO, "design": Deferred()}
    with pytest.raises(ValueError, match=r"5 query columns.*= 5"):
        Experiment(**model, algorithm=OnlineSgd(saves=5), d=5, n=100)
