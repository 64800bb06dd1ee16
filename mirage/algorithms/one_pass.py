"""One pass over the samples: what SGD on the first layer is, whether or not there are weights."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.algorithms.base import Algorithm, Cost, Problem, Trained
from mirage.network import output
from mirage.updates import ExtraGradient, Gradient, Lookahead, Score, Update

UPDATES = ("gradient", "extragradient", "lookahead")


class OnePass(Algorithm, abc.ABC):
    """SGD on W of f(x) = Σ_j a_j σ(w_j·x + b_j), a and b fixed: every batch of fresh samples moves
    W once.

    The step size is γ = `step_size` · d^(−`step_exponent`), on the mean loss of `batch_size`
    samples. `update` says how a batch is used (`mirage.updates`): `gradient`; `extragradient`, the
    gradient after a trial step γ̃ = `inner_step_size` · d^(−`inner_exponent`) on the same batch; or
    `lookahead`, the sum of the gradients of `repeats` steps γ̃ on it (γ̃ = γ where no
    `inner_step_size` is given: each sample is used so many times). `spherical` keeps ‖w_j‖ = 1:

        w ← (w − g + (g·w) w)/‖...‖,    g the row of C X.

    It runs over n samples and saves at `saves` + 1 marks, evenly spaced in the logarithm of the
    number of steps and the first of them one step apart; with `stop_cosine` until some neuron
    has that cosine with the target's subspace at a mark.
    """

    one_pass = True
    side_by_side = False
    step_size: float = 1.0
    step_exponent: float = 1.0
    batch_size: int = eqx.field(static=True, default=1)
    spherical: bool = eqx.field(static=True, default=False)
    update: str = eqx.field(static=True, default="gradient")
    inner_step_size: float | None = None
    inner_exponent: float | None = None
    repeats: int = eqx.field(static=True, default=2)
    saves: int = eqx.field(static=True, default=60)
    stop_cosine: float | None = None

    def __check_init__(self):
        self.check("step_size", self.step_size > 0, "expected a positive number")
        self.check("batch_size", self.batch_size >= 1, "expected a whole number ≥ 1")
        self.check(
            "batch_size",
            self.block % self.batch_size == 0,
            f"expected a divisor of {self.block}, the samples drawn at a time",
        )
        self.check("update", self.update in UPDATES, f"expected one of {', '.join(UPDATES)}")
        inner = self.inner_step_size
        if self.update == "extragradient":
            self.check("inner_step_size", inner is not None, "expected the trial step's size")
        if self.update != "gradient":
            plain = "without a step between it is plain SGD: expected a number other than 0"
            self.check("inner_step_size", inner != 0, plain)
        self.check("repeats", self.repeats >= 2, "expected a whole number ≥ 2")
        self.check("saves", self.saves >= 2, "expected a whole number ≥ 2")
        stop = self.stop_cosine
        self.check("stop_cosine", stop is None or 0 < stop < 1, "expected a number in (0, 1)")

    @property
    def steps(self):
        """Saves, which is what a trajectory is long."""
        return self.saves

    def queries(self, network, rank):
        return network.width, network.width

    def check_cell(self, *, n, d, network, rank):
        steps = n // self.batch_size
        accepted = f"the run has {steps} steps (n={n} at d={d}): expected no more saves than that"
        self.check("saves", self.saves <= steps, accepted)

    def schedule(self, n):
        steps = (n // self.batch_size).astype(jnp.int32)
        k = jnp.arange(self.saves + 1, dtype=jnp.int32)
        share = k.astype(jnp.float32) / self.saves
        spaced = jnp.exp(share * jnp.log(steps.astype(jnp.float32))).astype(jnp.int32)
        spaced = jnp.minimum(jnp.maximum(spaced, k), steps).at[-1].set(steps).at[0].set(0)
        return spaced * self.batch_size

    def rule(self, d: int) -> Update:
        """What a batch does, with the step sizes at this d."""
        step = self.step_size * d**-self.step_exponent
        if self.update == "gradient":
            return Gradient(step)
        inner = step
        if self.inner_step_size is not None:
            power = 1.0 if self.inner_exponent is None else self.inner_exponent
            inner = self.inner_step_size * d**-power
        if self.update == "extragradient":
            return ExtraGradient(step, inner)
        return Lookahead(step, inner, steps=self.repeats)

    def passed(self, cosine: Float[Array, ""]):
        """Whether the run may end: some neuron has `stop_cosine`, or is not finite."""
        if self.stop_cosine is None:
            return False
        return (cosine >= self.stop_cosine) | ~jnp.isfinite(cosine)

    def trained(self, state, weights: Float[Array, "m d"] | None) -> Trained:
        """The network at the end, with a and b as they were."""
        return Trained(weights, state.biases, state.output_weights, jnp.zeros(()))

    def cost(self, *, n, d, network, rank):
        times = {"gradient": 1, "extragradient": 2, "lookahead": self.repeats}[self.update]
        return Cost(n * times, 4 * n * d * network.width)


def score(
    problem: Problem, a: Float[Array, " m"], b: Float[Array, " m"], y: Float[Array, " B"]
) -> Score:
    """∂/∂z of the mean loss of a batch, f = Σ_j a_j σ(z_j + b_j)."""

    def slope(z):
        z = z + b[:, None]
        f = output(problem.activation, a, z)
        mean = problem.loss.slope(f, y) / len(y)
        return mean[None] * a[:, None] * problem.activation.derivative(z)

    return slope


class Step(NamedTuple):
    """W ← ((1 + `along`) W − `coefficients` X)/(1 + `excess`), row by row."""

    coefficients: Float[Array, "m B"]
    along: Float[Array, " m"]
    excess: Float[Array, " m"]


def one_step(
    algorithm: OnePass,
    rule: Update,
    slope: Score,
    z: Float[Array, "m B"],
    gram: Float[Array, "B B"],
) -> Step:
    """What a batch does to W; rows of unit norm stay so where it is `spherical`."""
    c = rule.coefficients(slope, z, gram)
    if not algorithm.spherical:
        zero = jnp.zeros(len(c), c.dtype)
        return Step(c, zero, zero)
    along = (c * z).sum(axis=1)
    # ‖(1 + along) w − c X‖² − 1, small where steps are.
    square = ((c @ gram) * c).sum(axis=1) - along**2
    return Step(c, along, square / (1 + jnp.sqrt(1 + square)))


def cosines(overlap: Float[Array, "m r"], norm: Float[Array, " m"]) -> Float[Array, ""]:
    """max_j ‖U w_j‖/‖w_j‖; NaN where a neuron is not finite."""
    return (jnp.linalg.norm(overlap, axis=1) / norm).max()
