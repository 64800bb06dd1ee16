"""The two products: exact where X is stored, exact in law where it is not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tables import ALGORITHMS, DESIGNS, label, samples, target_for

from mirage.activations import Cos
from mirage.algorithms import LayerwiseGd, PowerIteration, draw_problem, train
from mirage.designs import Deferred, Dense, Matrix, Rows
from mirage.inputs import Gaussian
from mirage.losses import Huber
from mirage.measures import cos_best
from mirage.network import TwoLayer


def matrix(design, seed=0, *, n, d, right=64, left=64, n_max=None, inputs=Gaussian()):  # noqa: B008
    n_max = n_max or n
    size = {"n_max": n_max, "d": d, "right": right, "left": left}

    @eqx.filter_jit
    def drawn():
        keys = jax.random.split(jax.random.key(seed), 1)
        stored = jax.vmap(lambda key: design.draw(key, inputs, n_max=n_max, d=d))(keys)
        return design.matrix(stored, 0, n, inputs, **size)

    return drawn()


@eqx.filter_jit
def forward(x, v, memory):
    return x.forward(v, memory)


@eqx.filter_jit
def backward(x, g, memory):
    return x.backward(g, memory)


def flat(rows, blocked):
    """(blocks, k, size) → (n, k)."""
    array = np.moveaxis(np.asarray(blocked), 1, -1).reshape(-1, blocked.shape[1])
    return array[: int(rows.count)]


def blocked(rows, array):
    """(n, k) → (blocks, k, size), padded with zeros."""
    padded = np.zeros((rows.blocks * rows.size, array.shape[1]), np.float32)
    padded[: array.shape[0]] = array
    return jnp.asarray(np.moveaxis(padded.reshape(rows.blocks, rows.size, -1), -1, 1))


@settings(max_examples=10)
@given(st.integers(1, 60), st.integers(0, 40), st.sampled_from([1, 7, 16]), st.integers(0, 10**6))
def test_rows_fold_map_mean_and_gram_see_the_first_count_rows_alone(count, spare, size, seed):
    rows = Rows.of(count, capacity=count + spare, size=size)
    values = np.random.default_rng(seed).normal(size=(rows.blocks, 3, size)).astype(np.float32)
    kept = flat(rows, values)

    @jax.jit
    def seen(rows, values):
        squares = rows.map(lambda block, v: v * v, values)
        return squares, rows.mean(lambda v: v, values), rows.gram(squares, squares)

    squares, mean, gram = map(np.asarray, seen(rows, values))
    np.testing.assert_allclose(flat(rows, squares), kept**2, rtol=1e-6)
    assert np.abs(squares).sum() == pytest.approx((kept**2).sum(), rel=1e-4)
    np.testing.assert_allclose(mean, kept.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gram, (kept**2).T @ kept**2, rtol=1e-4)


@pytest.mark.bits
def test_sums_over_rows_keep_their_bits_whatever_the_capacity():
    values = np.random.default_rng(0).normal(size=(40, 1, 64)).astype(np.float32)
    few, many = (Rows.of(700, capacity=c, size=64) for c in (700, 2560))
    short = few.mean(lambda v: v, jnp.asarray(values[: few.blocks]))
    assert np.array_equal(short, many.mean(lambda v: v, jnp.asarray(values)))


@pytest.mark.parametrize("design", DESIGNS, ids=label)
@pytest.mark.parametrize("n", [37, 3000])
def test_both_products_belong_to_one_matrix(design, n):
    """⟨V Xᵀ, G⟩ = ⟨V, G X⟩ for every pair of queries, however they follow each other."""
    d, rng = 50, np.random.default_rng(1)
    x = matrix(design, n=n, d=d, right=30, left=30)
    memory = x.memory()
    asked_v, answers_v, asked_g, answers_g = [], [], [], []
    for turn in range(3):
        v = rng.normal(size=(3, d)).astype(np.float32)
        v[2] = v[0]  # twins
        if turn == 2:
            v[1] = asked_v[0][1] * 3  # asked before
        z, memory = forward(x, jnp.asarray(v), memory)
        asked_v.append(v)
        answers_v.append(flat(x.rows, z))
        g = rng.normal(size=(n, 2)).astype(np.float32)
        g[:, 1] += answers_v[-1][:, 0]
        back, memory = backward(x, blocked(x.rows, g), memory)
        asked_g.append(g)
        answers_g.append(np.asarray(back))
    v, z = np.concatenate(asked_v), np.concatenate(answers_v, axis=1)
    g, b = np.concatenate(asked_g, axis=1), np.concatenate(answers_g)
    scale = np.linalg.norm(z, axis=0)[:, None] * np.linalg.norm(g, axis=0)
    assert np.abs(z.T @ g - v @ b.T).max() < 1e-5 * scale.max()
    np.testing.assert_allclose(z[:, 0], z[:, 2], rtol=1e-4, atol=1e-4)  # twins
    np.testing.assert_allclose(z[:, 7], 3 * z[:, 1], rtol=1e-3, atol=1e-3)  # asked before


@pytest.mark.parametrize("design", DESIGNS, ids=label)
def test_rows_beyond_the_sample_size_are_zero_and_pull_back_is_both_products(design):
    x = matrix(design, n=300, d=40, n_max=5000)
    v = jax.random.normal(jax.random.key(1), (2, 40))

    @eqx.filter_jit
    def products(x):
        z, memory = x.forward(v, x.memory())
        back, _ = x.backward(x.rows.map(lambda _, block: jnp.sin(block), z), memory)
        return z, back, *x.pull_back(lambda z: (jnp.sin(z), z), v, (), x.memory())[:2]

    z, back, pulled, sums = products(x)
    assert np.abs(np.moveaxis(np.asarray(z), 1, -1).reshape(-1, 2)[300:]).max() == 0
    np.testing.assert_allclose(pulled, back, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(sums, flat(x.rows, z).sum(0), rtol=1e-4, atol=1e-3)


@pytest.mark.bits
def test_dense_rows_for_a_smaller_n_are_the_first_for_a_larger_one():
    small, large = (matrix(Dense(), n=700, d=20, n_max=n) for n in (700, 4000))
    v = jnp.eye(20)
    a, b = (flat(x.rows, x.forward(v, None)[0]) for x in (small, large))
    assert np.array_equal(a, b)
    assert abs(a.mean()) < 5 / np.sqrt(a.size)
    assert abs(a.var() - 1) < 5 * np.sqrt(2 / a.size)


def gd_problem(design, seed, *, n, d, algorithm, network=None, wrap=lambda x: x):
    network = network or TwoLayer()
    right, left = algorithm.queries(network, 2)

    @eqx.filter_jit
    def drawn():
        x = matrix(design, seed, n=n, d=d, right=right + 2, left=max(1, left))
        return draw_problem(
            jax.random.fold_in(jax.random.key(5), seed),
            wrap(x),
            jnp.eye(2, d),
            target_for(algorithm),
            loss=Huber(),
            activation=Cos(),
            network=network,
            **samples(),
        )

    return drawn()


@pytest.mark.slow
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_query_bases_stay_orthonormal_over_40_steps_with_twin_neurons(weight_decay):
    algorithm = LayerwiseGd(steps=40, step_size=2.0, weight_decay=weight_decay)
    problem, memory = gd_problem(Deferred(), 0, n=4000, d=300, algorithm=algorithm)
    state = eqx.filter_jit(algorithm.init)(jax.random.key(3), problem, memory)

    @jax.jit
    def step(state, problem):
        return algorithm.step(state, problem)

    for _ in range(40):
        state = step(state, problem)
    sides = zip(state.memory, (problem.matrix.columns, problem.matrix.rows), strict=True)
    for side, rows in sides:
        gram = np.asarray(rows.gram(side.queries, side.queries))
        kept = np.diag(gram) > 0.5
        assert kept.sum() > 10
        assert np.abs(gram[np.ix_(kept, kept)] - np.eye(kept.sum())).max() < 1e-5
        assert np.abs(gram[~kept]).max(initial=0) == 0
        assert (~kept).sum() > 0  # twins did give dependent queries


class Counted(Matrix):
    """A matrix that counts the columns of V and of G."""

    rows: Rows
    matrix: Matrix

    def memory(self):
        return self.matrix.memory(), jnp.zeros(2, jnp.int32)

    def forward(self, v, memory):
        result, inner = self.matrix.forward(v, memory[0])
        return result, (inner, memory[1] + jnp.array([v.shape[0], 0], jnp.int32))

    def backward(self, g, memory):
        result, inner = self.matrix.backward(g, memory[0])
        return result, (inner, memory[1] + jnp.array([0, g.shape[1]], jnp.int32))

    def window(self, window, v):
        return self.matrix.window(window, v)

    def covariance(self, weight, data, memory):
        return self.matrix.covariance(weight, data, memory[0])


def asked(algorithm, design):
    """The columns of V and of G that a run asks for, and the memory of it that is left."""
    problem, memory = gd_problem(
        design, 0, n=500, d=200, algorithm=algorithm, wrap=lambda x: Counted(x.rows, x)
    )

    @jax.jit
    def trained(key):
        state = algorithm.init(key, problem, memory)
        step = lambda s, _: (algorithm.step(s, problem), None)  # noqa: E731
        return jax.lax.scan(step, state, None, length=algorithm.steps)[0].memory

    sides, counts = trained(jax.random.key(0))
    return counts.tolist(), sides


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=label)
def test_algorithms_ask_exactly_as_many_columns_as_they_say(algorithm):
    right, left = algorithm.queries(TwoLayer(), 2)
    assert asked(algorithm, Dense())[0] == [right + 2, left]


def test_no_more_is_kept_of_an_x_never_drawn_than_was_asked():
    algorithm = LayerwiseGd()
    right, left = algorithm.queries(TwoLayer(), 2)
    counts, sides = asked(algorithm, Deferred())
    assert counts == [right + 2, left]
    assert all(side.used <= count for side, count in zip(sides, counts, strict=True))


def test_questions_of_any_size_are_answered():
    """Neurons that decay: entries whose squares float32 has no numbers for."""
    x = matrix(Deferred(), n=300, d=60)
    v = jax.random.normal(jax.random.key(2), (2, 60))
    sizes = jnp.asarray([[1e-17], [1e-28]])
    usual, _ = forward(x, v, x.memory())
    small, _ = forward(x, sizes * v, x.memory())
    np.testing.assert_allclose(small / sizes[None], usual, rtol=1e-4, atol=1e-4)


def test_what_was_asked_before_takes_no_room_and_draws_nothing():
    x = matrix(Deferred(), n=3000, d=60)
    v = jax.random.normal(jax.random.key(2), (4, 60)).at[2].set(0)
    twins = jnp.concatenate([v, -2 * v])
    once, (right, _) = forward(x, v, x.memory())
    twice, (both, _) = forward(x, twins, x.memory())
    again, (same, _) = forward(x, v[::-1], (both, x.memory()[1]))
    assert int(right.used) == int(both.used) == int(same.used) == 3
    np.testing.assert_allclose(twice, jnp.concatenate([once, -2 * once], axis=1), atol=1e-4)
    np.testing.assert_allclose(again, once[:, ::-1], atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(500, 30_000), (30_000, 500)])
def test_questions_that_come_to_rest_are_told_apart(n, d):
    """v_t = v + 2⁻ᵗ u: the basis stays orthonormal, and X v_t − X v_{t−1} is 2⁻ᵗ X u."""
    x = matrix(Deferred(), n=n, d=d)
    v, u = jax.random.normal(jax.random.key(2), (2, 1, d)) / d**0.5
    memory, asked, answered = x.memory(), v, None
    for t in range(16):
        # A little of a new direction every time, as iterates have it.
        u = u + 0.5 * jax.random.normal(jax.random.key(t), u.shape) / d**0.5
        before, asked = asked, v + 2.0**-t * u
        z, memory = forward(x, asked, memory)
        image, memory = backward(x, z, memory)
        if answered is not None:
            change = float(jnp.linalg.norm(z - answered)) / n**0.5
            size = float(jnp.linalg.norm(asked - before))
            assert change == pytest.approx(size, rel=5 / n**0.5 + 2e-6 / size)
        answered = z
        assert jnp.isfinite(image).all()
    for side in memory:
        used = int(side.used)
        queries = np.swapaxes(side.queries, 0, 1).reshape(side.queries.shape[1], -1)[:used]
        np.testing.assert_allclose(queries @ queries.T, np.eye(used), atol=3e-6)
    assert int(memory[0].used) == 16


def law(design, seeds, *, n, d, steps):
    """Statistics of a few GD steps and of the products themselves, one row a seed."""
    algorithm = LayerwiseGd(steps=steps, step_size=2.0, readout_steps=0)
    network = TwoLayer(initial_norm=0.5)

    def one(seed):
        problem, memory = gd_problem(design, seed, n=n, d=d, algorithm=algorithm, network=network)
        result = train(jax.random.fold_in(jax.random.key(9), seed), algorithm, problem, memory)
        v = jax.random.normal(jax.random.fold_in(jax.random.key(8), seed), (1, d))
        z, memory = problem.matrix.forward(v / jnp.linalg.norm(v), memory)
        image, _ = problem.matrix.backward(z, memory)
        norm = jnp.linalg.norm(image)
        trajectory = result["trajectory"]
        return {
            "overlap": trajectory["overlap"][-1],
            "norm": trajectory["norm"][-1],
            "product": jnp.stack([(z**2).sum(), norm**2, (image @ v.T)[0, 0]]),
        }

    out = jax.lax.map(one, jnp.arange(seeds))
    cosine = cos_best(np.asarray(out["overlap"]), np.asarray(out["norm"]))
    columns = [cosine, np.asarray(out["overlap"])[:, 0, 0], np.asarray(out["overlap"])[:, 3, 1]]
    columns += [np.asarray(out["norm"])[:, 2], *np.asarray(out["product"]).T]
    return np.array(columns)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("shape", [{"n": 400, "d": 60, "steps": 6}])
def test_dense_and_deferred_agree_in_law(shape):
    """Two-sample tests on cos(best), overlaps, a norm and second moments of the products."""
    seeds = 600
    dense, deferred = (law(design, seeds, **shape) for design in (Dense(), Deferred()))
    for a, b in zip(dense, deferred, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3
        sigma = np.sqrt((a.var() + b.var()) / seeds)
        assert abs(a.mean() - b.mean()) < 4 * sigma
        spread = np.sqrt(((a - a.mean()) ** 2).var() / seeds + ((b - b.mean()) ** 2).var() / seeds)
        assert abs(a.var() - b.var()) < 4 * spread


def test_deferred_refuses_more_queries_than_rows_or_columns():
    with pytest.raises(ValueError, match="query columns"):
        Deferred().check_size(Gaussian(), n_min=1000, d=50, right=51, left=10)
    with pytest.raises(ValueError, match="query columns"):
        Deferred().check_size(Gaussian(), n_min=10, d=500, right=5, left=10)
    Deferred().check_size(Gaussian(), n_min=1000, d=500, right=51, left=10)


def test_power_iteration_on_deferred_keeps_its_norms_finite():
    algorithm = PowerIteration(steps=10, step_size=1.0)
    problem, memory = gd_problem(Deferred(), 0, n=3000, d=200, algorithm=algorithm)
    result = eqx.filter_jit(train)(jax.random.key(0), algorithm, problem, memory)
    assert np.isfinite(result["gram"]).all()
