"""Trees and the three-layer network: laws of the target, every layer against NumPy, the depth."""

import dataclasses
import logging
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_algorithms import problem_of, trained
from test_designs import Counted
from test_giant_step import samples_of

import mirage
from mirage import Experiment, figures, simulate
from mirage.activations import Activation, Relu, Tanh
from mirage.algorithms import KernelRidge, LayerwiseGd, OrderParameterChain, ThreeLayer
from mirage.algorithms.feature_overlaps import feature_overlap, linear_overlaps
from mirage.algorithms.fresh import TEST_ROWS, projections
from mirage.config import ConfigError
from mirage.designs import Deferred, Dense, Rows
from mirage.experiments.cell import STREAMS, seed_keys, stream
from mirage.experiments.predictions import Spectral
from mirage.losses import Huber, Mse
from mirage.network import TwoLayer
from mirage.runtime import Default
from mirage.targets import Expression, Hermite, Tree

matplotlib.use("Agg")
QUIET = Default(progress=False)
# He_k over k!, and a link steep enough to be worth a layer.
STEEP = Tree(polynomial="He2(z)/2 + He3(z)/6", link="tanh(2.5*h)")
NETWORK = TwoLayer(width=30, initial_norm=1.0, symmetric=False, output_scale=5.0, bias_scale=0.5)
MODEL = {"target": STEEP.at(30), "loss": Mse(), "activation": Relu(), "network": NETWORK}


def polynomial(z):
    return (z**2 - 1) / 2 + (z**3 - 3 * z) / 6


@pytest.mark.optimised
@pytest.mark.parametrize("branches", [1, 3])
def test_the_mean_and_variance_of_a_label_are_those_of_an_independent_integral(branches):
    """h_i is a sum of independent terms: its law by convolution on a grid, g integrated over it."""
    width, step, reach = 4, 2e-3, 60.0
    target = Tree(link="tanh(h) + h", width=width, branches=branches).drawn(jax.random.key(3))
    edges = np.arange(-reach, reach + step / 2, step)
    z = np.linspace(-9, 9, 2_000_001)
    mass = np.exp(-(z**2) / 2)
    terms = (z**2 - 1 + z**3 - 3 * z) / math.sqrt(width * 8)
    mean = square = 0.0
    for signs in np.asarray(target.signs):
        spectrum = 1.0
        for sign in signs:
            law = np.histogram(np.clip(sign * terms, -reach, reach), edges, weights=mass)[0]
            spectrum = spectrum * np.fft.rfft(law / law.sum(), n=width * len(law))
        law = np.fft.irfft(spectrum, n=width * (len(edges) - 1))
        h = width * (edges[0] + step / 2) + step * np.arange(len(law))
        g = np.tanh(h) + h
        mean += law @ g
        square += law @ g**2 - (law @ g) ** 2
    count = 400_000
    y = np.asarray(target(jax.random.normal(jax.random.key(0), (count, target.rank))), np.float64)
    assert abs(y.mean() - mean) < 5 * y.std() / math.sqrt(count)
    spread = ((y - y.mean()) ** 2).std() / math.sqrt(count)
    assert abs(y.var() - square) < 5 * spread + 2e-3 * square
    h = np.asarray(target.features(jax.random.normal(jax.random.key(1), (count, target.rank))))
    assert h.shape == (count, branches)
    assert abs(h.var(axis=0) - 1).max() < 5 * ((h**2).std(axis=0) / math.sqrt(count)).max()


@pytest.mark.bits
def test_signs_are_drawn_for_each_seed_and_again_the_same():
    target = Tree(branches=2, width=20)
    first, again, other = (target.drawn(jax.random.key(k)).signs for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert set(np.unique(first)) == {-1, 1}
    assert (first[0] != first[1]).any()


def grid(**changes):
    settings = {"target": STEEP, "d": [16, 30], "n": [300], "seeds": 3, "loss": Mse()}
    settings |= {"activation": Relu(), "network": NETWORK, "runtime": QUIET}
    settings |= {"algorithm": ThreeLayer(steps=3, second_width=12)}
    return simulate(Experiment(**{**settings, **changes}))


@pytest.fixture(scope="module")
def small():
    return grid()


def test_the_rank_follows_d_and_shorter_results_are_padded_with_nan(small):
    """4 directions at d = 16, 5 at d = 30."""
    overlap = small.overlap.squeeze("n", drop=True)
    assert small.sizes["direction"] == 5
    assert np.isnan(overlap.sel(d=16, direction=4)).all()
    assert np.isfinite(overlap.sel(d=16, direction=slice(0, 3))).all()
    assert np.isfinite(overlap.sel(d=30)).all()
    assert not small.diverged.any()
    assert small.sizes["feature"] == 1


def test_a_cell_of_a_tree_has_its_numbers_in_any_grid(small):
    alone = grid(d=[30], seeds=2)
    for name in ("test_error", "overlap", "feature_overlap"):
        np.testing.assert_allclose(
            alone[name], small[name].sel(d=[30], seed=[0, 1]), rtol=2e-5, atol=1e-6
        )
    # Signs differ between seeds, and so do labels, whatever X.
    errors = small.test_error.sel(d=30).values.squeeze()
    assert len(set(errors)) == 3


def test_other_targets_draw_nothing_and_random_streams_are_where_they_were():
    target = Hermite()
    assert target.at(7) is target
    assert target.drawn(jax.random.key(0)) is target
    h = jnp.ones((3, 2))
    assert target.features(h) is h
    assert STREAMS[:4] == ("matrix", "labels", "training", "directions")
    root = 2**32 - 1  # the largest there is
    experiment = Experiment(d=[7], alpha=2.0, seeds=2, root_seed=root)
    data = seed_keys(experiment, 7, np.arange(2))
    assert data.shape[:2] == (2, len(STREAMS))
    for seed, keys in enumerate(jax.random.wrap_key_data(jnp.asarray(data))):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(root), 7), seed)
        for place, name in enumerate(STREAMS):
            expected = jax.random.key_data(jax.random.fold_in(key, place))
            np.testing.assert_array_equal(jax.random.key_data(stream(keys, name)), expected)


def layers_of(state):
    """b1, W2, b2, W3 and c in float64."""
    one = state.layers
    arrays = (one.biases, one.second, one.second_biases, one.readout, one.intercept)
    return [np.asarray(a, np.float64) for a in arrays]


def network_output(w1, b1, w2, b2, w3, c, x, activation):
    """f(x) = W3 σ(W2 σ(W1 x + b1) + b2) + c written out, a row of x a sample."""
    inner = activation(x @ w1.T + b1[None])
    return activation(inner @ w2.T + b2[None]) @ w3 + c


@pytest.mark.parametrize("scenario", ["II", "joint"])
@pytest.mark.parametrize("loss", [Mse(), Huber(delta=0.3)], ids=str)
def test_a_step_is_the_gradient_of_the_loss_of_the_network(scenario, loss):
    n, d, rate, decay, p = 700, 25, 0.2, 0.1, 8
    model = {**MODEL, "activation": Tanh(), "loss": loss, "target": Tree(width=5)}
    problem, memory = problem_of(Dense(), n=n, d=d, **model)
    algorithm = ThreeLayer(
        scenario=scenario, steps=2, step_size=rate, weight_decay=decay, second_width=p
    )
    start = eqx.filter_jit(algorithm.init)(jax.random.key(0), problem, memory)
    after = eqx.filter_jit(algorithm.step)(start, problem)
    x, y = samples_of(problem, n, d)
    with jax.enable_x64(True):
        b1, w2, b2, w3, c = layers_of(start)
        w1, m = np.asarray(start.weights, np.float64), 30
        centre = loss.slope(jnp.zeros(n), jnp.asarray(y)).mean()

        def risk(w1, w2, w3):
            f = network_output(w1, b1, w2, b2, w3, c, x, jnp.tanh)
            return (loss(f, jnp.asarray(y)) - centre * f).mean()

        by_first, by_second, by_third = jax.jit(jax.grad(risk, (0, 1, 2)))(w1, w2, w3)
        first = w1 - rate * (m * by_first + decay * w1)
        joint = scenario == "joint"
        second = w2 - joint * rate * math.sqrt(p / m) * by_second
        third = w3 - joint * rate / p * by_third
    np.testing.assert_allclose(after.weights, first, atol=2e-5)
    np.testing.assert_allclose(after.layers.second, second, atol=2e-6)
    np.testing.assert_allclose(after.layers.readout, third, atol=1e-6)
    np.testing.assert_array_equal(after.layers.biases, start.layers.biases)
    assert np.abs(rate * m * np.asarray(by_first)).max() > 0.02


def test_the_second_layer_and_the_readout_are_regressions_on_the_samples():
    """Scenario III with one batch for all layers, after no step on W1, against normal equations."""
    n, d, p = 900, 20, 12
    rates = {"second_step_size": 2.0, "second_ridge": 0.4, "ridge": 0.3, "second_width": p}
    model = {**MODEL, "activation": Tanh(), "target": Tree(width=4)}
    problem, memory = problem_of(Dense(), n=n, d=d, **model)
    settings = {"steps": 0, "fresh": False, "every_step": False, **rates}
    before = ThreeLayer(scenario="joint", steps=1, second_width=p)
    start = eqx.filter_jit(before.init)(jax.random.key(0), problem, memory)
    after = eqx.filter_jit(ThreeLayer(**settings).init)(jax.random.key(0), problem, memory)
    x, y = samples_of(problem, n, d)
    b1, w2, b2, w3, _ = layers_of(start)
    w1, m = np.asarray(start.weights, np.float64), 30
    phi = np.tanh(x @ w1.T + b1)
    centred = phi - phi.mean(axis=0)
    slope = (1 - np.tanh(phi @ w2.T + b2) ** 2) * (y.mean() - y)[:, None]
    system = centred.T @ centred / n + 0.4 * m / n * np.eye(m)
    w2 = -2.0 * np.sign(w3)[:, None] * np.linalg.solve(system, centred.T @ slope / n).T
    b2 = b2 - w2 @ phi.mean(axis=0)
    np.testing.assert_allclose(after.layers.second, w2, rtol=2e-2, atol=5e-4)
    np.testing.assert_allclose(after.layers.second_biases, b2, atol=2e-3)
    features = np.tanh(phi @ w2.T + b2)
    design = np.column_stack([features, np.ones(n)])
    penalty = 0.3 * p * np.diag([1.0] * p + [0.0])
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ y)
    np.testing.assert_allclose(after.layers.readout, solution[:-1], rtol=5e-2, atol=5e-3)
    found = design @ solution
    ours = network_output(w1, *layers_of(after), x, np.tanh)
    np.testing.assert_allclose(ours, found, atol=2e-3)


def test_the_error_and_the_overlap_are_those_of_the_network_on_fresh_samples():
    n, d, branches = 600, 24, 2
    model = {**MODEL, "target": dataclasses.replace(STEEP, branches=branches, width=3)}
    problem, memory = problem_of(Dense(), n=n, d=d, **model)
    algorithm = ThreeLayer(scenario="I", second_width=16, every_step=False)
    state = eqx.filter_jit(algorithm.init)(jax.random.key(2), problem, memory)
    key = jax.random.split(state.key, 3)[2]
    rows = Rows.of(TEST_ROWS, capacity=TEST_ROWS, size=2048)
    project = projections(key, problem, state.weights, rows, "test")
    both = np.concatenate([project(block) for block in range(TEST_ROWS // 2048)], axis=1)
    rank = branches * 3
    h, z = both[:rank].T.astype(np.float64), both[rank:].astype(np.float64)
    b1, w2, b2, w3, c = layers_of(state)
    features = np.maximum(np.maximum(z.T + b1, 0) @ w2.T + b2, 0)
    signs = np.array([[1, -1, 1], [-1, 1, -1]])
    wanted = (signs * polynomial(h.reshape(-1, branches, 3))).sum(axis=-1) / math.sqrt(3 * 2 / 3)
    y = np.tanh(2.5 * wanted).sum(axis=-1)
    assert float(state.test_error) == pytest.approx(((features @ w3 + c - y) ** 2).mean(), rel=1e-3)
    design = np.column_stack([features, np.ones(len(h))])
    left = wanted - design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    unexplained = left.var(axis=0) / wanted.var(axis=0) * (TEST_ROWS - 1) / (TEST_ROWS - 17)
    np.testing.assert_allclose(state.feature_overlap, 1 - unexplained, atol=2e-3)
    # Features that are h_i and nothing else have all of it; of noise there is none.
    exact = lambda x: problem.target.features(x.T).T  # noqa: E731
    full = feature_overlap(key, problem, problem.directions, exact)
    np.testing.assert_allclose(full, 1, atol=1e-4)
    beside = feature_overlap(key, problem, jnp.eye(8, d)[rank:], lambda x: x)
    np.testing.assert_allclose(beside, 0, atol=2e-3)


@pytest.mark.parametrize(("m", "d"), [(40, 12), (6, 12)])
def test_linear_overlaps_are_those_of_the_singular_vectors(m, d):
    rng, rank = np.random.default_rng(0), 3
    w = rng.normal(size=(m, d)) * np.array([3.0] * 4 + [0.3] * (d - 4))
    u = np.linalg.qr(rng.normal(size=(d, rank)))[0].T
    right = np.linalg.svd(w)[2][:rank]
    inside, found = linear_overlaps(jnp.asarray(w, jnp.float32), jnp.asarray(u, jnp.float32))
    assert float(inside) == pytest.approx(((w @ u.T) ** 2).sum() / (w**2).sum(), rel=1e-4)
    assert float(found) == pytest.approx(((right @ u.T) ** 2).sum() / rank, rel=1e-3)
    twins = jnp.asarray(np.tile(u[:1], (2, 1)), jnp.float32)  # one direction of three, and no more
    both = linear_overlaps(twins, jnp.asarray(u, jnp.float32))
    np.testing.assert_allclose(both, [1, 1 / 3], rtol=1e-5)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("scenario", ["I", "II", "III", "joint"])
def test_scenarios_ask_x_as_often_as_they_say_and_train_their_layers_alone(scenario, fresh):
    n, d = 300, 120
    network = dataclasses.replace(NETWORK, width=4)
    model = {**MODEL, "network": network, "target": Tree(width=3)}
    problem, memory = problem_of(Dense(), n=n, d=d, wrap=lambda x: Counted(x.rows, x), **model)
    settings = {"steps": 1, "second_width": 6, "fresh": fresh, "every_step": False}
    algorithm = ThreeLayer(scenario=scenario, **settings)
    start = eqx.filter_jit(dataclasses.replace(algorithm, scenario="joint").init)(
        jax.random.key(1), problem, memory
    )
    state = eqx.filter_jit(algorithm.init)(jax.random.key(1), problem, memory)
    if scenario != "I":
        state = eqx.filter_jit(algorithm.step)(state, problem)
    right, left = algorithm.queries(network, 3)
    assert state.memory[1].tolist() == [right + 3, left]
    moved = [
        bool((np.asarray(a) != np.asarray(b)).any())
        for a, b in (
            (state.weights, start.weights),
            (state.layers.second, start.layers.second),
            (state.layers.readout, start.layers.readout),
        )
    ]
    expected = {"I": "001", "II": "101", "III": "111", "joint": "111"}[scenario]
    assert moved == [c == "1" for c in expected]
    assert np.isfinite(state.test_error)


def test_upper_layers_have_their_share_of_fresh_samples():
    """With few samples for the readout its error grows; those of W1 are what they were."""
    problem, memory = problem_of(Dense(), n=2000, d=20, **{**MODEL, "target": STEEP.at(20)})
    full, few = (
        trained(ThreeLayer(steps=2, second_width=40, ridge=1e-3, **share), problem, memory)
        for share in ({}, {"readout_share": 0.03, "second_share": 0.5})
    )
    np.testing.assert_array_equal(full["weights"], few["weights"])
    assert few["test_error"] > 1.1 * full["test_error"]


def test_trained_after_every_step_is_trained_after_the_last(small):
    last = grid(algorithm=ThreeLayer(steps=3, second_width=12, every_step=False))
    for name in ("overlap", "test_error", "feature_overlap"):
        np.testing.assert_allclose(last[name], small[name], rtol=2e-3, atol=2e-4)
    assert small.test_error_trajectory.sizes["step"] == 4
    np.testing.assert_allclose(small.test_error_trajectory.isel(step=-1), small.test_error)
    assert "test_error_trajectory" not in last
    ends = small.found_trajectory.isel(step=[0, 3])
    np.testing.assert_allclose(last.found_trajectory, ends, rtol=2e-3, atol=2e-4)


def errors(algorithm, *, seeds=5, exponent=1.9, network=None, **changes):
    """Test errors of seeds, as an array."""
    network = network or dataclasses.replace(NETWORK, width=200)
    model = {"target": STEEP, "loss": Mse(), "activation": Relu(), "network": network}
    settings = {"d": 64, "exponent": exponent, "seeds": seeds}
    experiment = Experiment(**model, **settings, algorithm=algorithm, runtime=QUIET, **changes)
    return simulate(experiment).test_error.values.squeeze()


@pytest.mark.slow
@pytest.mark.optimised
def test_a_third_layer_is_worth_samples_between_three_halves_and_two():
    """III beats II beats I at κ = 1.9, and so two layers and the kernel, by several sigma.

    The same seeds have the same targets and samples: differences seed by seed.
    """
    deep = {"steps": 60, "every_step": False}
    wide = {"second_width": 200, "ridge": 0.03, **deep}
    two = dataclasses.replace(NETWORK, width=200, output_scale=5 / 200)
    found = {
        "I": errors(ThreeLayer(scenario="I", **wide)),
        "II": errors(ThreeLayer(scenario="II", **wide)),
        "III": errors(ThreeLayer(scenario="III", **deep)),
        "two": errors(
            LayerwiseGd(
                steps=100,
                step_size=60.0,
                weight_decay=0.05 / 60,
                readout_steps=1000,
                readout_weight_decay=1e-4,
            ),
            network=two,
        ),
        "kernel": errors(KernelRidge(ridge=0.01)),
    }

    def lead(better, worse):
        """Mean difference over its standard error."""
        gap = found[worse] - found[better]
        return gap.mean() / (gap.std(ddof=1) / math.sqrt(len(gap)))

    assert lead("II", "I") > 5
    assert lead("III", "II") > 3
    assert lead("III", "two") > 3
    assert lead("III", "kernel") > 5


@pytest.mark.slow
def test_below_three_halves_no_scenario_learns():
    """At κ = 1.2 the error is not far from the variance of the labels, 0.6."""
    error = errors(ThreeLayer(steps=60, every_step=False), exponent=1.2)
    h = jax.random.normal(jax.random.key(0), (100_000, 8))
    variance = float(STEEP.at(64)(h).var())
    assert error.mean() > 0.9 * variance


@pytest.mark.slow
@pytest.mark.optimised
def test_deferred_and_dense_agree_in_law():
    """Errors and linear overlaps of a few neurons and steps, mean over seeds within four sigma."""
    network = dataclasses.replace(NETWORK, width=10)
    algorithm = ThreeLayer(steps=4, second_width=20, step_size=0.4)
    settings = {"algorithm": algorithm, "network": network, "d": [100], "n": [800], "seeds": 60}
    a, b = (grid(**settings, design=design) for design in (Dense(), Deferred()))
    assert str(b.design.values.squeeze()) == "deferred"
    for name in ("test_error", "found_trajectory", "inside_trajectory", "feature_overlap"):
        one, other = (s[name].values.reshape(60, -1) for s in (a, b))
        gap = one.mean(axis=0) - other.mean(axis=0)
        sigma = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / 60)
        assert (np.abs(gap) < 4 * sigma + 1e-6).all()


@pytest.mark.slow
@pytest.mark.optimised
def test_joint_training_finds_both_features():
    """All layers at once: κ = 2, errors far below the variance 0.6 of the labels."""
    algorithm = ThreeLayer(scenario="joint", steps=300, second_width=60, every_step=False)
    network = dataclasses.replace(NETWORK, width=100)
    assert errors(algorithm, network=network, exponent=2.0, seeds=2).mean() < 0.5


def test_a_width_that_is_no_whole_number_is_rounded_and_said_once(caplog):
    with caplog.at_level(logging.WARNING, logger="mirage.targets.trees"):
        assert Tree().at(91).rank == 10  # nobody listens
    with caplog.at_level(logging.INFO, logger="mirage.targets.trees"):
        assert Tree().at(91).rank == 10
        assert Tree().at(91).rank == 10
        assert Tree().at(81).rank == 9
    assert [record.getMessage() for record in caplog.records] == [
        "d=91: 10 directions a branch, the nearest to d^0.5 = 9.539"
    ]


REFUSED = [
    (
        {"target": Tree(branches=3, width_exponent=0.9), "d": 30},
        "target.width_exponent=0.9: 3 branches of 21 directions are 63 directions, which do not "
        "fit into d=30; expected at most 10 a branch",
    ),
    ({"target": Tree(width=40), "d": 30}, "target.width=40: 1 branch of 40 directions"),
    (
        {"target": Tree(width_exponent=1.0), "d": 20_000, "runtime": Default(memory="1 GB")},
        "target=tree at d=20000, n=100 holds 1608000000 bytes for 20000 directions",
    ),
    ({"target": Tree(), "theory": Spectral()}, "target='tree': it has numbers of its own"),
    (
        {"target": Tree(), "algorithm": OrderParameterChain()},
        "a target that draws no numbers of its own",
    ),
    ({"target": Tree(), "algorithm": "amp"}, "target.width=None"),
    ({"target": Tree(width=2), "algorithm": "amp"}, "target='tree': its labels have a law of"),
    ({"target": Tree(width=2), "loss": "optimal"}, "target='tree': its labels have a law of"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[m[:30] for _, m in REFUSED])
def test_what_cannot_be_served_is_refused_in_words(changes, message):
    named = {"amp": mirage.algorithms.Amp(), "optimal": mirage.losses.Optimal()}
    changes = {k: named.get(v, v) if isinstance(v, str) else v for k, v in changes.items()}
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Experiment(**{"d": 30, "n": 100, "runtime": QUIET, **changes})
    assert message in str(error.value)


def test_a_formula_of_a_tree_is_read_and_refused_from_the_shell():
    formulas = ["target.polynomial=He2(z) + z**3", "target.link=tanh(2*h)"]
    experiment = mirage.compose("target=tree", *formulas, "d=64", "n=100")
    assert experiment.target == Tree(polynomial="He2(z) + z**3", link="tanh(2*h)")
    for override, message in (
        ("target.polynomial=h1**2", r"target\.polynomial=\"h1\*\*2\": unknown name 'h1'; known: z"),
        ("target.polynomial=4", r"target\.polynomial"),
        ("target.link=abs(0)", r"target\.link='abs\(0\)': with polynomial="),
        ("target.width_exponent=2", r"target\.width_exponent=2\.0: expected an exponent in"),
    ):
        with pytest.raises(ConfigError, match=message):
            mirage.compose("target=tree", override, "d=64", "n=100")
    even = {"polynomial": "z**2", "link": "sign(h)", "width": 1}
    with pytest.raises(ValueError, match=r"target\.link='sign\(h\)': .*'z\*\*2' the label is a"):
        Tree(**even)
    assert Tree(**{**even, "width": 2}).rank == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scenario", "IV"),
        ("steps", -1),
        ("step_size", 0.0),
        ("weight_decay", -1.0),
        ("second_width", 0),
        ("second_ridge", 0.0),
        ("ridge", -1.0),
        ("readout_share", 0.0),
        ("second_share", 1.5),
    ],
)
def test_settings_of_the_algorithm_that_make_no_sense_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"algorithm\.{key}={value!r}"):
        ThreeLayer(**{key: value})


def test_it_learns_any_target_and_names_h_as_its_features():
    results = grid(target=Expression("h1 + h2**2"), d=[20])
    assert results.sizes["feature"] == 2
    assert np.isfinite(results.test_error).all()
    assert isinstance(Relu(), Activation)


SMALL = ("d=25", "seeds=2", "network.width=40", "runtime.progress=false")


@pytest.mark.slow
def test_depth_advantage_runs_and_draws_its_figure():
    short = (
        "joint.algorithm.steps",
        "two_layer.algorithm.steps",
        "two_layer.algorithm.readout_steps",
    )
    overrides = ["+experiment=depth_advantage", *SMALL, "exponent=[1.4,2.0]", "algorithm.steps=10"]
    overrides += [f"parts.{setting}=10" for setting in short]
    results = mirage.simulate(mirage.compose(*overrides))
    parts = ["scenario_I", "scenario_II", "scenario_III", "joint", "two_layer", "kernel"]
    assert list(results.part.values) == parts
    assert not results.diverged.any()
    axes = figures.draw(results, "depth_advantage").axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [part.replace("_", " ") for part in parts]
    marks = sorted(line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1)
    assert marks == pytest.approx([1.5, 2.0])
    with pytest.raises(ValueError, match="expected parts along exponent"):
        figures.draw(results.isel(part=0), "depth_advantage")
    plt.close("all")


@pytest.mark.slow
def test_tree_features_runs_and_draws_its_figure(small):
    overrides = ("+experiment=tree_features", *SMALL, "exponent=[1.4,2.0]", "algorithm.steps=5")
    results = mirage.simulate(mirage.compose(*overrides))
    assert results.feature_overlap_trajectory.sizes["step"] == 6
    panels = figures.draw(results, "tree_features").axes
    assert [len(axes.lines) for axes in panels] == [4, 2, 2]
    expected = results.test_error_trajectory.isel(exponent=1).median("seed").values.squeeze()
    np.testing.assert_allclose(panels[2].lines[1].get_ydata(), expected)
    with pytest.raises(ValueError, match=r"algorithm\.every_step=true; the results lack feature"):
        figures.draw(small.drop_vars("feature_overlap_trajectory"), "tree_features")
    plt.close("all")
