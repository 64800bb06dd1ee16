"""Order parameters of SGD: rates, trajectories, escape, steps on whole batches, exponents."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ortho_group

from mirage.activations import Erf, Quadratic, Relu, Softplus, Tanh
from mirage.activations import Hermite as HermiteActivation
from mirage.losses import Huber, Mse
from mirage.measures import population_error
from mirage.targets import Committee, Expression, Hermite, PhaseRetrieval, SingleIndex, Target
from mirage.theory.drift_expansion import drift_coefficients, effective_exponent
from mirage.theory.full_batch import full_batch_step
from mirage.theory.joint_quadrature import rule
from mirage.theory.order_parameters import (
    Dynamics,
    OrderParameters,
    escape_time,
    rates,
    rescaled,
    trajectory,
)
from mirage.updates import ExtraGradient, Gradient, Lookahead

# Averages over many nodes, again and again: what is not optimised is slow.
pytestmark = pytest.mark.optimised

LINEAR = HermiteActivation(degree=1)
OVERLAP = np.array([[0.3, -0.2], [-0.25, 0.4]])
GRAM = np.array([[0.9, 0.2], [0.2, 1.1]])
UNIT = np.array([[1.0, 0.2], [0.2, 1.0]])
READOUT = np.array([0.8, -0.6])


def dynamics(target, activation, update, readout=(1.0,), *, loss=None, **kwargs):
    a = np.asarray(readout, np.float64)
    return Dynamics(target, Mse() if loss is None else loss, activation, a, update, **kwargs)


@eqx.filter_jit
def compiled_rates(dynamics, rule, overlap, gram):
    return rates(dynamics, rule, overlap, gram)


def rates_of(setup, overlap, gram, **kwargs):
    chosen = rule(setup.target, len(setup.readout), **kwargs)
    with jax.enable_x64(True):
        found = compiled_rates(setup, chosen, jnp.asarray(overlap), jnp.asarray(gram))
    return OrderParameters(*map(np.asarray, found))


def relu_score(a, z, y):
    """∂ℓ/∂z of every sample, (m, n), for relu and the square loss."""
    return a[:, None] * (z > 0) * (a @ np.maximum(z, 0) - y)


def tanh_score(a, z, y):
    return a[:, None] * (1 - np.tanh(z) ** 2) * (a @ np.tanh(z) - y)


SCORES = {"relu": (Relu(), relu_score), "tanh": (Tanh(), tanh_score)}


def sampled(overlap, gram, count, *, seed):
    m, r = overlap.shape
    covariance = np.block([[np.eye(r), overlap.T], [overlap, gram]])
    both = np.linalg.cholesky(covariance) @ np.random.default_rng(seed).standard_normal(
        (r + m, count)
    )
    return both[:r], both[r:]


def sampled_coefficients(score, update, a, z, y):
    if isinstance(update, Gradient):
        return update.step_size * score(a, z, y)
    if isinstance(update, ExtraGradient):
        tried = z - update.inner_step_size * score(a, z, y)
        return update.step_size * score(a, tried, y)
    first = score(a, z, y)
    return update.step_size * (first + score(a, z - update.inner_step_size * first, y))


def sampled_rates(c, h, z, overlap, gram, *, spherical):
    """The rates of every sample, and so their errors."""
    d_overlap = -np.einsum("jn,kn->jkn", c, h)
    d_gram = np.einsum("jn,ln->jln", c, c) - np.einsum("jn,ln->jln", c, z)
    d_gram -= np.einsum("jn,ln->jln", z, c)
    if spherical:
        radial = c * z - c**2 / 2
        d_overlap += radial[:, None] * overlap[:, :, None]
        d_gram += (radial[:, None] + radial[None]) * gram[:, :, None]
    return d_overlap, d_gram


@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(
    "update",
    [Gradient(0.7), ExtraGradient(0.7, 0.5), Lookahead(0.7, -0.4)],
    ids=lambda u: type(u).__name__,
)
def test_rates_are_those_of_samples(name, spherical, update):
    activation, score = SCORES[name]
    target = Expression("h1*h2 + tanh(h1)", noise=0.2)
    gram = UNIT if spherical else GRAM
    setup = dynamics(target, activation, update, READOUT, spherical=spherical)
    found = rates_of(setup, OVERLAP, gram)
    count = 400_000
    h, z = sampled(OVERLAP, gram, count, seed=1)
    noise = np.random.default_rng(2).standard_normal(count)
    y = h[0] * h[1] + np.tanh(h[0]) + 0.2**0.5 * noise
    c = sampled_coefficients(score, update, READOUT, z, y)
    for value, samples in zip(
        found, sampled_rates(c, h, z, OVERLAP, gram, spherical=spherical), strict=True
    ):
        error = samples.std(axis=-1) / np.sqrt(count) + 3e-4
        assert (np.abs(value - samples.mean(axis=-1)) < 4.5 * error).all()
    if spherical:
        np.testing.assert_allclose(np.diag(found.gram), 0, atol=1e-12)


def test_huber_passes_only_what_it_clips():
    """At readout 0 but for one neuron far from the labels: C = −γ a σ'(z) clip(y)."""
    target = SingleIndex(gain=3.0)
    setup = dynamics(target, LINEAR, Gradient(1.0), [1e-9], loss=Huber(delta=0.1))
    found = rates_of(setup, np.array([[0.0]]), np.eye(1))
    h, w = np.polynomial.hermite_e.hermegauss(200)
    wanted = (w / w.sum()) @ (np.clip(np.tanh(3 * h), -0.1, 0.1) * h)
    assert found.overlap[0, 0] / 1e-9 == pytest.approx(wanted, abs=1e-3)


def saad_solla(a, b, overlap, gram, step):
    """The rates for erf neurons and teachers b_k, with I3 and I4 of Saad and Solla (1995).

    Theirs are g(x) = erf(x/√2): covariances are twice as large here, and g' is σ'/√2.
    """
    m, r = overlap.shape
    c = 2 * np.block([[gram, overlap], [overlap.T, np.eye(r)]])
    weights = np.concatenate([a, -b])

    def i3(i, j, k):
        root = np.sqrt((1 + c[i, i]) * (1 + c[k, k]) - c[i, k] ** 2)
        return 2 / np.pi * (c[j, k] * (1 + c[i, i]) - c[i, j] * c[i, k]) / (root * (1 + c[i, i]))

    def i4(i, j, k, n):
        four = (1 + c[i, i]) * (1 + c[j, j]) - c[i, j] ** 2
        zero = four * c[k, n] - c[j, k] * c[j, n] * (1 + c[i, i])
        zero += -c[i, k] * c[i, n] * (1 + c[j, j]) + c[i, j] * (
            c[i, k] * c[j, n] + c[i, n] * c[j, k]
        )

        def side(p):
            total = four * (1 + c[p, p]) - c[j, p] ** 2 * (1 + c[i, i])
            return total - c[i, p] ** 2 * (1 + c[j, j]) + 2 * c[i, j] * c[i, p] * c[j, p]

        return 4 / np.pi**2 / np.sqrt(four) * np.arcsin(zero / np.sqrt(side(k) * side(n)))

    both = range(m + r)
    signal = np.array(
        [
            [a[i] * sum(weights[k] * i3(i, m + n, k) for k in both) for n in range(r)]
            for i in range(m)
        ]
    )
    drift = np.array(
        [[a[i] * sum(weights[k] * i3(i, j, k) for k in both) for j in range(m)] for i in range(m)]
    )
    square = np.array(
        [
            [
                2
                * a[i]
                * a[j]
                * sum(weights[k] * weights[n] * i4(i, j, k, n) for k in both for n in both)
                for j in range(m)
            ]
            for i in range(m)
        ]
    )
    return -step * signal, step**2 * square - step * (drift + drift.T)


def test_rates_of_erf_are_those_of_saad_and_solla():
    setup = dynamics(Committee(rank=2, link="erf"), Erf(), Gradient(0.4), READOUT)
    wanted = saad_solla(READOUT, np.array([0.5, 0.5]), OVERLAP, GRAM, 0.4)
    for points, error in ((400_000, 5e-5), (2_000_000, 1e-8)):
        found = rates_of(setup, OVERLAP, GRAM, points=points)
        np.testing.assert_allclose(found.overlap, wanted[0], atol=error)
        np.testing.assert_allclose(found.gram, wanted[1], atol=error)


def test_a_sequence_and_a_tensor_agree():
    """Two neurons that cannot move (a = 0) take a tensor rule to a Sobol sequence."""
    small = dynamics(Expression("h1*h2"), Relu(), Gradient(0.4), READOUT)
    large = dynamics(Expression("h1*h2"), Relu(), Gradient(0.4), [*READOUT, 0.0, 0.0])
    wide = np.eye(4)
    wide[:2, :2] = GRAM
    few = rates_of(small, OVERLAP, GRAM)
    many = rates_of(large, np.concatenate([OVERLAP, np.zeros((2, 2))]), wide)
    np.testing.assert_allclose(many.overlap[:2], few.overlap, atol=2e-3)
    np.testing.assert_allclose(many.gram[:2, :2], few.gram, atol=2e-3)
    assert not many.overlap[2:].any()


def test_the_kink_of_relu_costs_nothing():
    setup = dynamics(Expression("h1*h2"), Relu(), Gradient(0.4), READOUT)
    coarse, fine = (rates_of(setup, OVERLAP, GRAM, points=p) for p in (400_000, 3_000_000))
    np.testing.assert_allclose(coarse.overlap, fine.overlap, atol=2e-5)
    np.testing.assert_allclose(coarse.gram, fine.gram, atol=2e-5)


def test_order_of_neurons_and_axes_of_directions_do_not_matter():
    target = Hermite(terms=[[1.0, [2, 1]], [0.5, [0, 2]]])
    setup = dynamics(target, Softplus(), Gradient(0.4), READOUT)
    found = rates_of(setup, OVERLAP, GRAM)
    swapped = dynamics(target, Softplus(), Gradient(0.4), READOUT[::-1].copy())
    other = rates_of(swapped, OVERLAP[::-1], GRAM[::-1, ::-1])
    np.testing.assert_allclose(other.overlap[::-1], found.overlap, atol=1e-4)
    np.testing.assert_allclose(other.gram[::-1, ::-1], found.gram, atol=1e-4)
    turn = ortho_group.rvs(2, random_state=3)
    (a, b), (c, d) = turn  # h = turn h': the same function of x, its axes turned
    h1, h2 = f"({a}*h1 + {b}*h2)", f"({c}*h1 + {d}*h2)"
    text = f"({h1}**2 - 1)*{h2}/sqrt(2) + 0.5*({h2}**2 - 1)/sqrt(2)"
    turned = dynamics(Expression(text), Softplus(), Gradient(0.4), READOUT)
    rotated = rates_of(turned, OVERLAP @ turn, GRAM)
    np.testing.assert_allclose(rotated.overlap @ turn.T, found.overlap, atol=1e-4)
    np.testing.assert_allclose(rotated.gram, found.gram, atol=1e-4)


def test_rates_have_derivatives_that_differences_confirm():
    setup = dynamics(Expression("h1**2"), Relu(), ExtraGradient(0.4, 0.0))
    chosen = rule(setup.target, 1)
    with jax.enable_x64(True):

        @jax.jit
        def rate(m):
            return rates(setup, chosen, m[None, None], jnp.ones((1, 1))).overlap[0, 0]

        m, step = jnp.asarray(0.4), 1e-4
        derivative = float(jax.grad(rate)(m))
        difference = float(rate(m + step) - rate(m - step)) / (2 * step)
    assert derivative == pytest.approx(difference, rel=1e-5)


@pytest.mark.slow
def test_a_linear_neuron_learns_a_linear_target_as_its_closed_form_says():
    """With e = M − 1 and s = Q − 2M + 1: de = −γ e, ds = (ν γ² − 2γ) s."""
    step, times = 0.5, np.linspace(0, 6, 7)
    for noise in (0.0, 1.0):
        setup = dynamics(Expression("h"), LINEAR, Gradient(step), noise=noise)
        found = trajectory(setup, np.array([[0.2]]), np.array([[0.7]]), times)
        overlap = 1 - 0.8 * np.exp(-step * times)
        error = (0.7 - 0.4 + 1) * np.exp((noise * step**2 - 2 * step) * times)
        np.testing.assert_allclose(found.overlap[:, 0, 0], overlap, atol=1e-5)
        np.testing.assert_allclose(found.gram[:, 0, 0], error + 2 * overlap - 1, atol=1e-5)
        assert found.finished
        assert not found.diverged


SQUARE = {"target": PhaseRetrieval(), "activation": Quadratic()}


def square_rate(step, noise):
    """Phase retrieval on the sphere: ṁ = κ m (1 − m²), κ = 4γ − 24 ν γ²."""
    return 4 * step - 24 * noise * step**2


def test_phase_retrieval_on_the_sphere_follows_its_closed_form():
    step, start, times = 0.05, 0.03, np.linspace(0, 60, 3)
    for noise in (0.0, 1.0):
        setup = dynamics(**SQUARE, update=Gradient(step), spherical=True, noise=noise)
        found = trajectory(setup, np.array([[start]]), np.eye(1), times)
        odds = np.exp(2 * square_rate(step, noise) * times) * start**2 / (1 - start**2)
        np.testing.assert_allclose(found.overlap[:, 0, 0], np.sqrt(odds / (1 + odds)), atol=1e-5)
        np.testing.assert_allclose(found.gram, 1, atol=1e-9)


@pytest.mark.slow
def test_phase_retrieval_escapes_when_its_closed_form_says():
    step, start, at = 0.05, 0.03, {"level": 0.5, "max_time": 100.0}
    for noise in (0.0, 1.0):
        setup = dynamics(**SQUARE, update=Gradient(step), spherical=True, noise=noise)
        odds = 0.25 / 0.75 * (1 - start**2) / start**2
        for direction in (None, np.array([-3.0])):
            time = escape_time(setup, np.array([[-start]]), np.eye(1), **at, direction=direction)
            assert time == pytest.approx(np.log(odds) / (2 * square_rate(step, noise)), rel=1e-5)
    never = escape_time(setup, np.array([[start]]), np.eye(1), level=0.5, max_time=10.0)
    assert never == np.inf
    assert escape_time(setup, np.array([[0.6]]), np.eye(1), **at) == 0


@pytest.mark.slow
def test_divergence_is_recorded():
    setup = dynamics(**SQUARE, update=Gradient(1.0))
    found = trajectory(setup, np.array([[0.03]]), np.eye(1), np.array([0.0, 1.0, 2.0]))
    assert found.diverged
    assert not found.finished
    assert np.isfinite(found.overlap[0]).all()
    assert np.isnan(found.overlap[1:]).all()
    assert np.isnan(found.gram[1:]).all()


@pytest.mark.slow
def test_what_diverges_does_not_escape():
    setup = dynamics(**SQUARE, update=Gradient(1.0))
    at = {"level": 0.99, "max_time": 2.0}
    assert np.isnan(escape_time(setup, np.array([[0.03]]), np.eye(1), **at))


def simulated(score, update, labels, a, overlap, gram, *, d, batch, steps, replicas, spherical):
    """SGD on stored weights, every replica at once: M and Q at the end, (replicas, ...)."""
    rng = np.random.default_rng(4)
    m, r = overlap.shape
    start = np.zeros((m, d))
    start[:, :r] = overlap
    start[:, r : r + m] = np.linalg.cholesky(gram - overlap @ overlap.T)
    w = np.repeat(start[None], replicas, axis=0)
    for _ in range(steps):
        x = rng.standard_normal((replicas, batch, d))
        z, y = w @ x.swapaxes(1, 2), labels(x[..., :r])
        k = x @ x.swapaxes(1, 2)

        def gradient(z, y=y):  # of the mean loss, as `mirage.updates` has it
            return np.stack([score(a, *pair) for pair in zip(z, y, strict=True)]) / batch

        c = update.step_size * gradient(z)
        if isinstance(update, ExtraGradient):
            c = update.step_size * gradient(z - update.inner_step_size * gradient(z) @ k)
        move = c @ x
        if spherical:
            move = move - (move * w).sum(axis=-1, keepdims=True) * w
        w = w - move
        if spherical:
            w = w / np.linalg.norm(w, axis=-1, keepdims=True)
    return w[..., :r], w @ w.swapaxes(1, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "update", "batch", "spherical"),
    [
        ("relu", Gradient(0.6), 1, False),
        ("tanh", Gradient(0.6), 4, True),
        ("tanh", ExtraGradient(0.6, 0.5), 1, True),
        ("relu", ExtraGradient(0.6, 0.5), 4, False),
    ],
)
def test_trajectories_are_those_of_simulations(name, update, batch, spherical):
    d, replicas, end = 1000, 24, 2.0
    activation, score = SCORES[name]
    gram = UNIT if spherical else GRAM
    setup = dynamics(Expression("h1*h2 + h1"), activation, update, READOUT, spherical=spherical)
    found = trajectory(setup, OVERLAP, gram, np.array([end]))
    small = jax.tree.map(lambda step_size: step_size * batch / d, update)
    assert rescaled(small, dimension=d, batch_size=batch) == update
    ends = simulated(
        score,
        small,
        lambda h: h[..., 0] * h[..., 1] + h[..., 0],
        READOUT,
        OVERLAP,
        gram,
        d=d,
        batch=batch,
        steps=int(end * d / batch),
        replicas=replicas,
        spherical=spherical,
    )
    for value, runs in zip((found.overlap[0], found.gram[0]), ends, strict=True):
        error = runs.std(axis=0, ddof=1) / np.sqrt(replicas)
        assert (np.abs(value - runs.mean(axis=0)) < 4 * error + 5 / d).all()


def test_a_step_on_a_whole_batch_is_that_of_a_simulation():
    d, alpha, step, replicas = 400, 2.0, 0.3, 40
    setup = dynamics(Expression("h1*h2 + h1"), Relu(), Gradient(step), READOUT)
    ends = simulated(
        relu_score,
        Gradient(step * alpha),
        lambda h: h[..., 0] * h[..., 1] + h[..., 0],
        READOUT,
        OVERLAP,
        GRAM,
        d=d,
        batch=int(alpha * d),
        steps=1,
        replicas=replicas,
        spherical=False,
    )
    for value, runs in zip(full_batch_step(setup, OVERLAP, GRAM, alpha=alpha), ends, strict=True):
        error = runs.std(axis=0, ddof=1) / np.sqrt(replicas)
        assert (np.abs(value - runs.mean(axis=0)) < 4 * error + 1 / d).all()


@pytest.mark.parametrize("spherical", [False, True])
def test_a_small_batch_moves_as_the_rates_say(spherical):
    setup = dynamics(Expression("h1*h2"), Tanh(), Gradient(0.5), READOUT, spherical=spherical)
    alpha, gram = 1e-5, UNIT if spherical else GRAM
    after = full_batch_step(setup, OVERLAP, gram, alpha=alpha)
    for new, old, rate in zip(after, (OVERLAP, gram), rates_of(setup, OVERLAP, gram), strict=True):
        np.testing.assert_allclose((new - old) / alpha, rate, atol=1e-3)
    if spherical:
        np.testing.assert_allclose(np.diag(after.gram), 1, atol=1e-12)


def test_a_step_where_neurons_are_twins_or_lie_in_the_subspace():
    setup = dynamics(Expression("h1*h2"), Relu(), Gradient(0.5), READOUT)
    for overlap in (np.eye(2), np.array([[0.5, 0.1], [0.5, 0.1]])):
        gram = np.eye(2) if overlap[0, 0] == 1 else np.ones((2, 2))
        m, q = full_batch_step(setup, overlap, gram, alpha=3.0)
        assert np.isfinite(m).all()
        assert np.linalg.eigvalsh(q - m @ m.T).min() > -1e-6


def test_the_first_step_on_a_batch_that_is_used_again():
    """tanh(h1 + He3(h2)), α = 3, step 0.2 on Σ ½(f − y)²/d: means of 32 runs at d = 5000.

    Their standard deviations are 0.0024 in M, 0.003 in the error, and about 0.007 in Q.
    """
    target = Expression("tanh(h1 + He3(h2))")
    a = np.array([1.0, -1.0]) / np.sqrt(2)
    setup = dynamics(target, Relu(), Gradient(0.2), a)
    m, q = full_batch_step(setup, np.zeros((2, 2)), np.eye(2), alpha=3.0)
    published = np.array([[0.07572, -0.06258], [-0.07569, 0.06294]])
    np.testing.assert_allclose(m, published, atol=3 * 0.0024 / np.sqrt(32))
    np.testing.assert_allclose(q[[0, 0, 1], [0, 1, 1]], [0.85501, 0.10994, 0.85326], atol=0.004)
    state = {"overlap": m[None], "gram": q[None], "readout": a[None], "biases": np.zeros((1, 2))}
    error = population_error(target, Relu(), **state)[0] / 2
    assert error == pytest.approx(0.42017, abs=3 * 0.003 / np.sqrt(32))


@pytest.mark.slow
def test_escape_takes_longer_by_the_power_that_the_exponent_says():
    """From m = 1/√d with γ0 of order d^{1 − ℓ/2}: log d for ℓ = 2, d^{ℓ−2} above."""
    dimensions = np.array([1e3, 1e4, 1e5, 1e6])

    def times(degree, step):
        target, activation = Hermite(terms=[[1.0, [degree]]]), HermiteActivation(degree=degree)
        found = []
        for d in dimensions:
            update = Gradient(step * d ** (1 - degree / 2))
            setup = dynamics(target, activation, update, spherical=True)
            start = {"overlap": np.array([[d**-0.5]]), "gram": np.eye(1)}
            found.append(escape_time(setup, **start, level=0.3, max_time=1e15, points=40_000))
        return np.array(found)

    # ṁ = (2γ − 6γ²) m where m is small.
    decade = np.log(10) / 2 / (2 * 0.02 - 6 * 0.02**2)
    np.testing.assert_allclose(np.diff(times(2, 0.02)), decade, rtol=1e-3)
    for degree in (3, 4):
        slopes = np.diff(np.log10(times(degree, 0.004)))
        assert slopes[-1] == pytest.approx(degree - 2, abs=0.02)


def test_drift_coefficients_of_gradients_are_products_of_two():
    """c_k = −γ a E[σ'(z) He_k(z)] E[y He_{k+1}(h)]/k!, as f does not see h at M = 0."""
    target = Hermite(terms=[[1.0, [1]], [0.5, [3]], [0.25, [4]]], noise=0.3)
    setup = dynamics(target, Softplus(), Gradient(0.7), [0.8])
    x, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()
    sigmoid = 1 / (1 + np.exp(-x))
    # E[y He_j(h)] = c_j √j! for y = Σ c_j h_j.
    labels = {1: 1.0, 3: 0.5 * np.sqrt(6), 4: 0.25 * np.sqrt(24)}
    for k, (value, error) in enumerate(drift_coefficients(setup, 4)):
        hermite = np.polynomial.hermite_e.hermeval(x, [0] * k + [1])
        factorial = float(np.prod(np.arange(1, k + 1)))
        wanted = -0.7 * 0.8 * (w @ (sigmoid * hermite)) * labels.get(k + 1, 0.0) / factorial
        assert value.shape == error.shape == (1, 1)
        assert value[0, 0] == pytest.approx(wanted, abs=1e-6)


def test_the_expansion_is_that_of_the_rates():
    """dM/dτ = −(I − m mᵀ) Σ_k c_k·m^k on the sphere without noise, two directions."""
    target, update = Expression("h1*h2 + 0.5*h2"), ExtraGradient(0.7, 0.4)
    setup = dynamics(target, Tanh(), update, spherical=True, noise=0.0)
    m = np.array([0.12, -0.2])
    c = [estimate.value[0] for estimate in drift_coefficients(setup, 5)]
    # Columns are κ = (k + 1 − i, i): along direction 1 it is κ' = (k − i, i), with k!/κ'!.
    gradient = np.zeros(2)
    for k, values in enumerate(c):
        counts = np.array(
            [float(np.prod(np.arange(1, k + 1)) / _factorial(k, i)) for i in range(k + 1)]
        )
        powers = m[0] ** (k - np.arange(k + 1)) * m[1] ** np.arange(k + 1)
        gradient += [(counts * powers) @ values[:-1], (counts * powers) @ values[1:]]
    wanted = -(np.eye(2) - np.outer(m, m)) @ gradient
    np.testing.assert_allclose(rates_of(setup, m[None], np.eye(1)).overlap[0], wanted, atol=1e-5)


def _factorial(k, i):
    return np.prod(np.arange(1, k - i + 1)) * np.prod(np.arange(1, i + 1))


TWICE = ExtraGradient(1.0, 0.3)


@pytest.mark.parametrize(
    ("text", "activation", "update", "exponent"),
    [
        ("He3(h)", Tanh(), Gradient(1.0), 3),
        ("He3(h)", Tanh(), TWICE, 1),
        ("He3(h)", Tanh(), Lookahead(1.0, 0.3), 1),
        ("He3(h)", Relu(), Gradient(1.0), None),  # relu has no He_3
        ("He3(h)", Relu(), TWICE, 1),
        ("He4(h)", Relu(), Gradient(1.0), 4),
        ("He4(h)", Relu(), TWICE, 2),
        ("He4(h1) + He3(h2)", Softplus(), Gradient(1.0), 4),
        ("He4(h1) + He3(h2)", Softplus(), TWICE, 1),
        ("sign(h1*h2)", Relu(), Gradient(1.0), 2),
        ("h1*h2*h3", Tanh(), Gradient(1.0), 3),
        ("h1*h2*h3", Tanh(), TWICE, 2),
    ],
)
def test_the_effective_exponent_is_below_that_of_information_if_samples_are_used_twice(
    text, activation, update, exponent
):
    setup = dynamics(Expression(text), activation, update)
    assert effective_exponent(setup, order=5) == exponent


class Counting(Mse, abc.ABC):
    """The square loss, which notes when it is traced."""

    def value(self, t, y):
        TRACES.append(t.shape)
        return super().value(t, y)


TRACES: list = []


def test_other_numbers_do_not_compile_anew():
    def once(step, readout, start, end):
        setup = dynamics(PhaseRetrieval(), Tanh(), Gradient(step), [readout], loss=Counting())
        return trajectory(setup, np.array([[start]]), np.eye(1), np.array([0.0, end]))

    once(0.1, 1.0, 0.2, 1.0)
    traced = len(TRACES)
    assert traced
    once(0.2, -1.0, 0.3, 2.0)
    assert len(TRACES) == traced


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"overlap": np.zeros((1, 2))}, r"overlap=\(1, 2\): expected the shape \(1, 1\)"),
        ({"gram": np.eye(2)}, r"gram=\(2, 2\): expected the shape \(1, 1\)"),
        ({"overlap": np.array([[1.2]])}, "Q − M Mᵀ positive semi-definite"),
        ({"overlap": np.array([[np.nan]])}, "expected finite numbers"),
        ({"gram": np.array([[2.0]])}, "diagonal of ones with spherical=True"),
        ({"times": np.array([1.0, 0.5])}, "expected ascending numbers ≥ 0"),
        ({"times": np.array([0.0])}, "one of them > 0"),
    ],
)
def test_bad_states_are_refused(change, words):
    setup = dynamics(**SQUARE, update=Gradient(0.1), spherical=True)
    given = {"overlap": np.array([[0.1]]), "gram": np.eye(1), "times": np.array([1.0])} | change
    with pytest.raises(ValueError, match=words):
        trajectory(setup, **given)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"readout=.*expected one number a neuron"):
        dynamics(**SQUARE, update=Gradient(0.1), readout=[])
    with pytest.raises(ValueError, match=r"readout=.*expected finite numbers"):
        dynamics(**SQUARE, update=Gradient(0.1), readout=[np.inf])
    with pytest.raises(ValueError, match=r"noise=-1: expected a number ≥ 0"):
        dynamics(**SQUARE, update=Gradient(0.1), noise=-1)
    setup = dynamics(**SQUARE, update=ExtraGradient(0.1, 0.1))
    state = np.array([[0.1]]), np.eye(1)
    with pytest.raises(ValueError, match="update='ExtraGradient': expected Gradient"):
        full_batch_step(setup, *state, alpha=1.0)
    with pytest.raises(ValueError, match=r"alpha=0: expected a number > 0"):
        full_batch_step(setup, *state, alpha=0)
    for level, max_time, direction, words in (
        (1.0, 1.0, None, "level=1.0: expected a cosine between 0 and 1"),
        (0.5, 0.0, None, "max_time=0.0: expected a number > 0"),
        (0.5, 1.0, np.zeros(1), "direction=.*expected a vector of 1 numbers, not all 0"),
        (0.5, 1.0, np.ones(2), "direction=.*expected a vector of 1 numbers, not all 0"),
    ):
        with pytest.raises(ValueError, match=words):
            escape_time(setup, *state, level=level, max_time=max_time, direction=direction)
    with pytest.raises(ValueError, match="order=-1: expected a whole number ≥ 0"):
        effective_exponent(setup, order=-1)


def test_a_target_of_a_users_own_with_its_own_labels_is_refused():
    class Own(Target, abc.ABC):
        rank = 1

        def __call__(self, h):
            return h[..., 0]

        def draw(self, key, h):
            return self(h)

    with pytest.raises(ValueError, match="target='own': its label is random given h"):
        rates_of(dynamics(Own(), Tanh(), Gradient(0.1)), np.array([[0.1]]), np.eye(1))
