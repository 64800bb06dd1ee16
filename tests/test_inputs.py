"""Inputs and directions: their laws, their blocks, and a user's own files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import INPUTS, label
from test_algorithms import problem_of, trained

import mirage
from mirage.algorithms import LayerwiseGd, train
from mirage.config import ConfigError
from mirage.designs import Dense, Streamed
from mirage.experiments.execute import Executor
from mirage.inputs import (
    PARTS,
    Correlated,
    File,
    Gaussian,
    Given,
    PowerLaw,
    Rademacher,
    Random,
    Student,
    Uniform,
)
from mirage.measures import population_error
from mirage.network import output
from mirage.targets import Hermite

# E x⁴ of a unit entry.
FOURTH = [
    (Gaussian(), 3.0),
    (Rademacher(), 1.0),
    (Uniform(), 1.8),
    (Student(degrees_of_freedom=12.0), 3.75),
]
# A seed at which a uniform number of the block below is 0.
ZERO = 2


def rows_of(inputs, *, n, d, seed=0):
    return np.asarray(inputs.block(jax.random.key(seed), 0, size=n, d=d), np.float64)


@pytest.mark.parametrize(("inputs", "fourth"), FOURTH, ids=[i.name() for i, _ in FOURTH])
def test_entries_are_centred_of_unit_variance_and_of_their_law(inputs, fourth):
    x = rows_of(inputs, n=20_000, d=20).ravel()
    assert abs(x.mean()) < 5 / len(x) ** 0.5
    for power, value in ((2, 1.0), (4, fourth)):
        error = (x**power).std() / len(x) ** 0.5
        assert abs((x**power).mean() - value) < 5 * error + 1e-6
    neighbours = x.reshape(-1, 20)
    assert abs((neighbours[:, 0] * neighbours[:, 1]).mean()) < 5 / 20_000**0.5
    assert abs((neighbours[:-1, 0] * neighbours[1:, 0]).mean()) < 5 / 20_000**0.5


def test_heavy_tails_follow_students_law_and_never_come_from_rounding():
    """P(|x| > t) of the unscaled law; a uniform number that is 0 once gave entries of 1e8."""
    from scipy.stats import t

    nu, n = 5.0, 2_000_000
    x = np.abs(rows_of(Student(degrees_of_freedom=nu), n=n // 10, d=10, seed=ZERO)).ravel()
    for level in (1.0, 3.0, 8.0):
        chance = 2 * t.sf(level / np.sqrt((nu - 2) / nu), nu)
        assert abs((x > level).mean() - chance) < 5 * np.sqrt(chance / n)
    assert x.max() < 100


@pytest.mark.parametrize("rho", [0.5, -0.3, 0.0])
def test_correlated_rows_have_the_covariance_they_say(rho):
    n, d = 40_000, 12
    x = rows_of(Correlated(correlation=rho), n=n, d=d)
    lag = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    # Var(x_i x_j) = 1 + Σ_ij² ≤ 2
    assert np.abs(x.T @ x / n - (float(rho) ** lag)).max() < 5 * np.sqrt(2 / n)


def test_power_law_rows_have_variances_that_decay_and_average_to_one():
    n, d = 40_000, 10
    x = rows_of(PowerLaw(decay=0.7), n=n, d=d)
    expected = np.arange(1, d + 1) ** -0.7
    expected *= d / expected.sum()
    covariance = x.T @ x / n
    scale = np.sqrt(np.outer(expected, expected))
    assert (np.abs(covariance - np.diag(expected)) / scale).max() < 5 * np.sqrt(2 / n)


@pytest.mark.bits
@pytest.mark.parametrize("inputs", INPUTS, ids=label)
def test_rows_are_the_same_for_every_n_and_whether_stored_or_not(inputs):
    key, d = jax.random.key(4), 7
    few, many = (np.asarray(Dense().draw(key, inputs, n_max=n, d=d)) for n in (600, 1700))
    assert np.array_equal(few, many[: len(few)])
    source = Streamed().draw(key, inputs, n_max=600, d=d)
    block = inputs.block(source, 1, size=few.shape[1], d=d)
    np.testing.assert_allclose(block, few[1], rtol=1e-5, atol=1e-6)
    parts = [inputs.block(inputs.source(key, part), 0, size=16, d=d) for part in PARTS]
    assert not np.array_equal(parts[0], parts[1])
    assert not np.array_equal(parts[1], parts[2])


def test_random_directions_are_orthonormal_and_differ_by_seed():
    one, two = (Random().draw(jax.random.key(seed), 3, 50) for seed in (0, 1))
    np.testing.assert_allclose(one @ one.T, np.eye(3), atol=1e-5)
    assert np.abs(one @ two.T).max() < 0.9


@pytest.fixture
def own(tmp_path):
    """Rows with a mean, a scale and a constant column, and U that is not orthonormal."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 20)) * rng.uniform(0.1, 30, size=20) + rng.uniform(-9, 9, size=20)
    x[:, 3] = 0.1
    u = np.eye(2, 20, k=5) * [[2.0], [0.5]] + 0.01 * rng.normal(size=(2, 20))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "u.npy", u)
    return tmp_path


def test_rows_of_a_file_are_standardised_and_shared_out_without_overlap(own):
    inputs = File(path=str(own / "x.npy")).load(d=20)
    matrix = np.asarray(inputs.matrix, np.float64)
    np.testing.assert_allclose(matrix.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.delete(matrix.std(axis=0), 3), 1, rtol=1e-5)
    assert (matrix[:, 3] == 0).all()
    plain = File(path=str(own / "x.npy"), standardise=False).load(d=20)
    np.testing.assert_allclose(plain.matrix, np.load(own / "x.npy"), rtol=1e-6)
    key = jax.random.key(0)
    parts = [np.asarray(inputs.source(key, part)) for part in PARTS]
    assert [len(part) for part in parts] == [400, 400, 400]
    assert len(set(np.concatenate(parts))) == 1200
    assert not np.array_equal(parts[0], inputs.source(jax.random.key(1), "train"))
    block = inputs.block(inputs.source(key, "train"), 1, size=100, d=20)
    np.testing.assert_array_equal(block, inputs.matrix[parts[0][100:200]])


SMALL = ["d=20", "n=[200,400]", "seeds=2", "algorithm.steps=3", "algorithm.readout_steps=3"]


def file_overrides(folder, x="x.npy", u="u.npy"):
    rows = ["inputs=file", f"inputs.path={folder / x}"] if x else []
    return [*SMALL, *rows, "directions=given", f"directions.path={folder / u}"]


def test_a_users_rows_and_directions_work_from_the_shells_config(own):
    """Both designs that can hold them give the same; U W^T is with U as it is given."""
    runs = [
        mirage.simulate(
            mirage.compose(*file_overrides(own), f"design={design}", "save_weights=true")
        )
        for design in ("dense", "streamed")
    ]
    one, other = runs
    assert not one.diverged.any()
    assert (one.test_error > 0).all()
    np.testing.assert_allclose(one.cos_best, other.cos_best, rtol=1e-3)
    u = np.load(own / "u.npy")
    expected = one.weights.values @ u.T
    np.testing.assert_allclose(one.overlap, expected, rtol=1e-4, atol=1e-7)
    basis = np.linalg.qr(u.T)[0]
    w = one.weights.values.astype(float)
    cosine = (np.linalg.norm(w @ basis, axis=-1) / np.linalg.norm(w, axis=-1)).max(axis=-1)
    np.testing.assert_allclose(one.cos_best, cosine, rtol=1e-4)


@pytest.mark.slow
def test_scaling_directions_does_not_change_a_target_that_sees_signs(tmp_path):
    rng = np.random.default_rng(1)
    u = np.linalg.qr(rng.normal(size=(20, 2)))[0].T
    cosines = []
    for name, scale in (("a.npy", [1.0, 1.0]), ("b.npy", [4.0, 0.25])):
        np.save(tmp_path / name, np.asarray(scale)[:, None] * u)
        overrides = file_overrides(tmp_path, x=None, u=name)
        experiment = mirage.compose(*overrides, "target=parity", "target.k=2", "design=dense")
        cosines.append(mirage.simulate(experiment).cos_best.values)
    assert np.ptp(cosines[0]) > 0.01
    np.testing.assert_allclose(cosines[0], cosines[1], rtol=1e-4)


def test_files_that_do_not_fit_are_refused_by_name(own):
    def save(name, array):
        np.save(own / name, array)
        return name

    wide = save("wide.npy", np.ones((1200, 21)))
    flat = save("flat.npy", np.ones(20))
    words = save("words.npy", np.array([["a", "b"]]))
    waves = save("waves.npy", np.ones((1200, 20)) * 1j)
    short = save("short.npy", np.ones((900, 20)))
    none = save("none.npy", np.ones((0, 20)))
    (own / "broken.npy").write_bytes(b"not a matrix")
    (own / "x.csv").write_text("1,2\n")
    many = save("many.npy", np.eye(3, 20))
    parallel = save("parallel.npy", np.ones((2, 20)))
    missing = np.eye(2, 20)
    missing[0, 0] = np.nan
    missing = save("missing.npy", missing)
    huge = save("huge.npy", np.eye(2, 20) * 1e300)
    for x, message in {
        wide: r"d=20: .*wide\.npy has 21 columns",
        flat: r"inputs\.path=.*flat\.npy.*shape \(20,\)",
        words: r"inputs\.path=.*words\.npy.*holds <U1",
        waves: r"inputs\.path=.*waves\.npy.*holds complex128",
        short: r"n=400: .*short\.npy has 900 rows.*n ≤ 300",
        none: r"n=400: .*n ≤ 0",
        "broken.npy": r"inputs\.path=.*broken\.npy.*cannot be read",
        "x.csv": r"inputs\.path=.*x\.csv.*expected the path of a \.npy file",
        "nowhere.npy": r"inputs\.path=.*nowhere\.npy.*expected the path",
    }.items():
        with pytest.raises(ConfigError, match=message):
            mirage.compose(*file_overrides(own, x=x))
    for u, message in {
        many: r"directions\.path=.*shape \(3, 20\).*needs \(2, 20\)",
        parallel: r"directions\.path=.*linearly independent",
        missing: r"directions\.path=.*missing\.npy.*NaN",
        huge: r"directions\.path=.*huge\.npy.*infinite",
        "nowhere.npy": r"directions\.path=.*nowhere\.npy.*expected the path",
    }.items():
        with pytest.raises(ConfigError, match=message):
            mirage.compose(*file_overrides(own, u=u))
    for group in ("inputs=file", "directions=given"):
        with pytest.raises(ConfigError, match=group.split("=")[0] + r"\.path"):
            mirage.compose(*SMALL, group)


def test_rows_that_are_not_finite_are_refused_before_anything_runs(own):
    x = np.load(own / "x.npy")
    x[7, 7] = np.nan
    np.save(own / "x.npy", x)
    with pytest.raises(ValueError, match=r"inputs\.path=.*NaN"):
        Executor(mirage.compose(*file_overrides(own)))


def test_inputs_that_must_be_drawn_are_not_deferred():
    with pytest.raises(ConfigError, match="inputs=uniform must be drawn"):
        mirage.compose(*SMALL, "inputs=uniform", "design=deferred")


@pytest.mark.parametrize(
    ("key", "value"),
    [("degrees_of_freedom", 2.0), ("correlation", 1.0), ("decay", -1.0)],
)
def test_settings_out_of_range_are_refused(key, value):
    option = {"degrees_of_freedom": Student, "correlation": Correlated, "decay": PowerLaw}[key]
    with pytest.raises(ValueError, match=rf"inputs\.{key}={value}"):
        option(**{key: value})


def test_directions_are_checked_where_they_are_made(tmp_path):
    np.save(tmp_path / "u.npy", np.eye(2, 9))
    given = Given(path=str(tmp_path / "u.npy"))
    assert np.array_equal(given.draw(jax.random.key(0), 2, 9), np.eye(2, 9))
    with pytest.raises(ValueError, match=r"needs \(2, 10\)"):
        given.check_size(r=2, d=10)


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [Gaussian(), Correlated(correlation=0.0)], ids=label)
def test_the_sampled_error_is_the_integrated_one_on_gaussian_rows(inputs):
    """ρ = 0 is N(0, I) too, but by rows that are drawn and not by the law of (U x, W x)."""
    target = Hermite(terms=[[1.0, [2, 0]], [0.5, [1, 1]]])
    problem, memory = problem_of(Dense(), n=400, d=12, target=target, inputs=inputs)
    algorithm = LayerwiseGd(steps=5, readout_steps=20)
    seen = trained(algorithm, problem, memory)
    sampled = jax.jit(
        lambda key: train(key, algorithm, problem, memory, sample_error=True)["test_error"]
    )
    errors = np.asarray([sampled(jax.random.key(0))])
    cell = {k: np.asarray(seen[k])[None] for k in ("readout", "biases", "intercept")}
    m, q = np.asarray(seen["readout_overlap"]), np.asarray(seen["readout_gram"])
    exact = population_error(target, problem.activation, overlap=m[None], gram=q[None], **cell)
    # The spread of (f − g)², by rows of NumPy's.
    covariance = np.block([[np.eye(2), m.T], [m, q]])
    both = np.random.default_rng(0).multivariate_normal(np.zeros(6), covariance, size=100_000)
    z = jnp.asarray(both[:, 2:].T, jnp.float32) + seen["biases"][:, None]
    f = output(problem.activation, seen["readout"], z) + seen["intercept"]
    squares = (np.asarray(f) - np.asarray(target(jnp.asarray(both[:, :2], jnp.float32)))) ** 2
    assert abs(squares.mean() - exact[0]) < 5 * squares.std() / 100_000**0.5
    assert abs(errors[0] - exact[0]) < 5 * squares.std() / (2**14) ** 0.5
