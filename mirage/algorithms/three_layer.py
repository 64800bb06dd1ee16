"""A three-layer network, trained layer by layer or all at once."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage import lapack
from mirage.activations import Activation
from mirage.algorithms.base import Algorithm, Cost, Problem
from mirage.algorithms.feature_overlaps import feature_overlap, linear_overlaps
from mirage.algorithms.fresh import fresh_gram, mean_square_error
from mirage.algorithms.readout import ridge_readout
from mirage.places import at

SCENARIOS = ("I", "II", "III", "joint")


class Layers(eqx.Module):
    """All of f(x) = W3 σ(W2 σ(z + b1) + b2) + c above the pre-activations z = W1 x."""

    activation: Activation
    biases: Float[Array, " m"]
    second: Float[Array, "p m"]
    second_biases: Float[Array, " p"]
    readout: Float[Array, " p"]
    intercept: Float[Array, ""]

    def first_features(self, z: Float[Array, "m rows"]) -> Float[Array, "m rows"]:
        """φ = σ(z + b1)."""
        return self.activation(z + self.biases[:, None])

    def second_inputs(self, z: Float[Array, "m rows"]) -> Float[Array, "p rows"]:
        """u = W2 φ + b2."""
        return self.second @ self.first_features(z) + self.second_biases[:, None]

    def second_features(self, z: Float[Array, "m rows"]) -> Float[Array, "p rows"]:
        """σ(u)."""
        return self.activation(self.second_inputs(z))

    def output(self, z: Float[Array, "m rows"]) -> Float[Array, " rows"]:
        """f = W3 σ(u) + c."""
        return self.readout @ self.second_features(z) + self.intercept


class State(eqx.Module):
    """W1, the layers above, what the network has learnt so far, and the matrix's memory.

    `inside` is the share of ‖W1‖² in the span of U; `found` that of the span of U in the span of
    the r leading right singular vectors of W1. `feature_overlap` and `test_error` are those of the
    trained layers above, NaN until they are.
    """

    weights: Float[Array, "m d"]
    layers: Layers
    inside: Float[Array, ""]
    found: Float[Array, ""]
    feature_overlap: Float[Array, " q"]
    test_error: Float[Array, ""]
    centre: Float[Array, ""]
    key: Key[Array, ""]
    memory: Any


class ThreeLayer(Algorithm):
    """f(x) = W3 σ(W2 σ(W1 x + b1) + b2) + c with m neurons in the first layer, the network's width,
    and p in the second, `second_width`.

    W1 starts as the network says, W2 with entries N(0, 1/m), W3 with ±`output_scale`/√(m p),
    biases with N(0, `bias_scale`²) in the first layer and N(0, 1) in the second. Then, by
    `scenario`, W3 alone is trained (`I`), W1 and W3 (`II`), or W1, W2 and W3 (`III`), in turn:

    1. W1 by `steps` of gradient descent on n samples, L̂ the mean loss:
       W1 ← W1 − η1 [m ∇_{W1} L̂ + β1 W1],   η1 = `step_size`, β1 = `weight_decay`.
       While f is small this is a power iteration on Ê[y (xxᵀ − I)]. For a tree its signal has d^ε
       eigenvalues of order d^{−ε/2}, its noise is of order √(d/n): the linear features W_i x are
       found from n ≳ d^{1+ε} samples on, d^{3/2} for ε = 1/2.
    2. W2 by one step, with the features φ = σ(W1 x + b1) brought to unit covariance and, as f is
       still to be read out, W3 taken to be ± an infinitesimal number; old weights decay wholly:
       W2_k ← ∓ η2 (Cov φ + λ2 (m/n) I)⁻¹ (1/n) Σ_i ℓ'(0, y_i) σ'(u_k(x_i)) (φ_i − φ̄),
       η2 = `second_step_size`, λ2 = `second_ridge`. The inverse makes it a regression: neurons
       see η2 times the polynomial in the linear features that is closest to y, which is
       E[g'] Σ_i h_i up to lower order. It takes as many samples as there are monomials of the
       degree k of P in d^ε variables, n ≳ d^{kε}: without the inverse a gradient would follow the
       largest eigenvalues of Cov φ, those of degree one. b2_k ← b2_k − W2_k φ̄ keeps u centred.
    3. W3 and c by ridge regression on σ(u), λ3 = `ridge` as in `random_features`: a function of
       finitely many h_i. In scenario II σ(u) are random features of the z_i instead, and a
       regression on them ends with the polynomials of degree k in d^ε variables.

    Layers two and three have fresh samples, n times
    `second_share` and `readout_share` (of inputs that are not Gaussian the two share theirs), or
    with `fresh=false` the n samples of the first. Scenario `joint` moves all layers in every step,
    W2 by η1 √(p/m) ∇_{W2} L̂ and W3 by (η1/p) ∇_{W3} L̂, so that f moves as much by each, whatever
    the widths.

    With `every_step` layers two and three are trained after every step on W1, as if it had been the
    last, to see features and error on the way; otherwise the start and the end alone are saved.
    `centred` takes the mean of ℓ'(0, y) off. The non-linear features are those that the target
    names (h_i of a tree, h of any other); what the network has of one is the squared correlation of
    h_i with the best combination of the neurons of the second layer, on fresh samples.
    Dandi, Pesce, Zdeborová and Krzakala (2025, arXiv 2502.13961).
    """

    scenario: str = eqx.field(static=True, default="III")
    steps: int = eqx.field(static=True, default=40)
    step_size: float = 0.2
    weight_decay: float = 0.25
    second_width: int = eqx.field(static=True, default=100)
    second_step_size: float = 3.0
    second_ridge: float = 0.1
    ridge: float = 0.1
    fresh: bool = eqx.field(static=True, default=True)
    second_share: float = eqx.field(static=True, default=1.0)
    readout_share: float = eqx.field(static=True, default=1.0)
    centred: bool = eqx.field(static=True, default=True)
    every_step: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        known = self.scenario in SCENARIOS
        self.check("scenario", known, f"expected one of {', '.join(SCENARIOS)}")
        self.check("steps", self.steps >= 0, "expected a whole number ≥ 0")
        self.check("weight_decay", self.weight_decay >= 0, "expected a number ≥ 0")
        self.check("second_width", self.second_width >= 1, "expected a whole number ≥ 1")
        for key in ("step_size", "second_step_size", "second_ridge", "ridge"):
            self.check(key, getattr(self, key) > 0, "expected a positive number")
        for key in ("second_share", "readout_share"):
            self.check(key, 0 < getattr(self, key) <= 1, "expected a share of n, in (0, 1]")

    @property
    def _first_steps(self) -> int:
        return 0 if self.scenario == "I" else self.steps

    @property
    def _regressions(self) -> int:
        """Passes over the samples that train layers two and three."""
        once = {"I": 1, "II": 1, "III": 2, "joint": 0}[self.scenario]
        return once * (self._first_steps + 1 if self.every_step else 1)

    def queries(self, network, rank):
        m, steps = network.width, self._first_steps
        again = steps if self.scenario == "joint" else 0
        shared = 0 if self.fresh else self._regressions
        return m * (steps + again + shared), m * steps

    def bytes_working(self, *, n, network):
        return 12 * n * network.width + 32 * (network.width + 2 * self.second_width + 2) ** 2

    @property
    def _saves(self) -> int:
        """How often `step` is called, for all steps on W1 or one."""
        return self._first_steps if self.every_step else min(self._first_steps, 1)

    def schedule(self, n):
        return jnp.arange(self._saves + 1, dtype=jnp.int32)

    def init(self, key, problem, memory):
        keys = jax.random.split(key, 6)
        network, p = problem.network, self.second_width
        _, weights = network.init(keys[0], problem.directions)
        m, dtype = len(weights), weights.dtype
        signs = jax.random.rademacher(keys[1], (p,), dtype)
        layers = Layers(
            activation=problem.activation,
            biases=network.draw_biases(keys[2]),
            second=jax.random.normal(keys[3], (p, m), dtype) / m**0.5,
            second_biases=jax.random.normal(keys[4], (p,), dtype),
            readout=network.output_scale * signs / (m * p) ** 0.5,
            intercept=jnp.zeros((), dtype),
        )
        rank = problem.directions.shape[0]
        features = jax.eval_shape(problem.target.features, jnp.zeros((1, rank), dtype)).shape[-1]
        lost = jnp.full((features,), jnp.nan, dtype)
        inside, found = linear_overlaps(weights, problem.directions)
        centre = problem.centre() if self.centred else jnp.zeros((), dtype)
        known = (inside, found, lost, jnp.asarray(jnp.nan, dtype))
        state = State(weights, layers, *known, centre, keys[5], memory)
        return self._above(state, problem) if self.every_step or self._saves == 0 else state

    def step(self, state, problem):
        at_once = 1 if self.every_step else self._first_steps
        state = jax.lax.fori_loop(0, at_once, lambda _, s: self._descent(s, problem), state)
        overlaps = linear_overlaps(state.weights, problem.directions)
        state = eqx.tree_at(lambda s: (s.inside, s.found), state, overlaps)
        return self._above(state, problem)

    def _descent(self, state: State, problem: Problem) -> State:
        """A gradient step on W1, or on all layers."""
        layers, n = state.layers, problem.matrix.rows.count.astype(state.weights.dtype)
        memory = state.memory
        if self.scenario == "joint":
            layers, memory = self._upper_step(state, problem, n)

        def pull(z, y):  # η1 m ∂L̂/∂z for a block of rows: z (m, rows), y (rows,)
            f, back = jax.vjp(state.layers.output, z)
            slope = problem.loss.slope(f, y) - state.centre
            return self.step_size * len(z) / n * back(slope)[0], None

        step, _, memory = problem.matrix.pull_back(pull, state.weights, (problem.labels,), memory)
        weights = (1 - self.step_size * self.weight_decay) * state.weights - step
        changed = (weights, layers, memory)
        return eqx.tree_at(lambda s: (s.weights, s.layers, s.memory), state, changed)

    def _upper_step(self, state: State, problem: Problem, n) -> tuple[Layers, Any]:
        """Layers two and three after a gradient step.

        ∇_{W2} L̂ = (1/n) Σ_i ℓ' (W3 σ'(u)) φᵀ and ∇_{W3} L̂ = (1/n) Σ_i ℓ' σ(u).
        """
        layers, rows = state.layers, problem.matrix.rows
        p, m = layers.second.shape
        z, memory = problem.matrix.forward(state.weights, state.memory)

        def visit(b, gradients):
            u, f = layers.second_inputs(at(z, b)), layers.output(at(z, b))
            slope = rows.keep(b, problem.loss.slope(f, at(problem.labels, b)) - state.centre)
            by_u = slope[None] * layers.readout[:, None] * layers.activation.derivative(u)
            second = gradients[0] + by_u @ layers.first_features(at(z, b)).T
            return second, gradients[1] + layers.activation(u) @ slope

        start = (jnp.zeros_like(layers.second), jnp.zeros_like(layers.readout))
        by_second, by_readout = rows.fold(visit, start)
        second = layers.second - self.step_size * (p / m) ** 0.5 / n * by_second
        readout = layers.readout - self.step_size / p / n * by_readout
        return eqx.tree_at(lambda one: (one.second, one.readout), layers, (second, readout)), memory

    def _above(self, state: State, problem: Problem) -> State:
        """Layers two and three trained as the scenario says, and what the network is worth then.

        With `every_step` the layers that the next step starts from are those from before.
        """
        key_second, key_readout, key_test = jax.random.split(state.key, 3)
        layers, memory = state.layers, state.memory
        if self.scenario == "III":
            rows = _second_rows(layers, problem, state.centre)
            share = self.second_share
            gram, memory = self._gram(key_second, problem, state.weights, rows, share, memory)
            layers = self._second_trained(layers, gram)
        if self.scenario != "joint":
            rows = _readout_rows(layers)
            share = self.readout_share
            gram, memory = self._gram(key_readout, problem, state.weights, rows, share, memory)
            found = ridge_readout(gram, self.ridge)
            trained = (found.weights, found.intercept)
            layers = eqx.tree_at(lambda one: (one.readout, one.intercept), layers, trained)
        error = mean_square_error(key_test, problem, state.weights, layers.output)
        overlap = feature_overlap(key_test, problem, state.weights, layers.second_features)
        kept = state.layers if self.every_step else layers
        return eqx.tree_at(
            lambda s: (s.layers, s.feature_overlap, s.test_error, s.memory),
            state,
            (kept, overlap, error, memory),
        )

    def _gram(self, key, problem: Problem, weights, rows, share: float, memory):
        """Σ_i φ_i φ_iᵀ over the samples of an upper layer, φ = rows(W1 x, y)."""
        if self.fresh:
            return fresh_gram(key, problem, weights, rows, share=share), memory
        return problem.matrix.gram(rows, weights, (problem.labels,), memory)

    def _second_trained(self, layers: Layers, gram: Float[Array, "k k"]) -> Layers:
        """W2_k = ∓ η2 (Cov φ + λ2 (m/n) I)⁻¹ Cov(φ, ℓ' σ'(u_k)), and b2 less W2 φ̄."""
        m, n = layers.second.shape[1], gram[-1, -1]
        mean = gram[-1, :-1] / n
        covariance = gram[:-1, :-1] / n - jnp.outer(mean, mean)
        penalty = self.second_ridge * m / n * jnp.eye(m, dtype=gram.dtype)
        inverse = lapack.solve(covariance[:m, :m] + penalty, covariance[:m, m:])
        second = -self.second_step_size * jnp.sign(layers.readout)[:, None] * inverse.T
        biases = layers.second_biases - second @ mean[:m]
        return eqx.tree_at(lambda one: (one.second, one.second_biases), layers, (second, biases))

    def observe(self, state):
        seen = {"inside": state.inside, "found": state.found}
        if not self.every_step:
            return seen
        return {**seen, "feature_overlap": state.feature_overlap, "test_error": state.test_error}

    def outcome(self, state):
        return {"test_error": state.test_error, "feature_overlap": state.feature_overlap}

    def cost(self, *, n, d, network, rank):
        m, p = network.width, self.second_width
        descent = 2 * n * d * sum(self.queries(network, rank)) + 8 * n * m * p * self._first_steps
        regressions = self._regressions * (2 * n * m * (min(m, d) + m + p) + 2 * m**3 // 3)
        return Cost(n * self._first_steps, descent + regressions)


def _second_rows(layers: Layers, problem: Problem, centre: Array) -> Callable[..., Array]:
    """φ, then ℓ'(0, y) σ'(u), then 1."""

    def rows(z, y):
        slope = problem.loss.slope(jnp.zeros_like(y), y) - centre
        by_u = slope[None] * layers.activation.derivative(layers.second_inputs(z))
        return jnp.concatenate([layers.first_features(z), by_u, jnp.ones_like(y)[None]])

    return rows


def _readout_rows(layers: Layers) -> Callable[..., Array]:
    """σ(u), then y, then 1."""

    def rows(z, y):
        return jnp.concatenate([layers.second_features(z), y[None], jnp.ones_like(y)[None]])

    return rows
