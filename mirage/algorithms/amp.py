"""Bayes-AMP: approximate message passing with the target's own channel."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mirage import lapack
from mirage.algorithms.linearised_amp import LinearisedAmp, WithChannel, spanned
from mirage.channels.channel import Channel
from mirage.channels.overlaps import overlap_matrix
from mirage.channels.registry import channel_of

STARTS = ("spectral", "random", "informed")
# Posterior covariances stay between these: float32 has no narrower beliefs, the prior is I.
NARROWEST, WIDEST = 1e-6, 1.0
# A direction is recovered exactly where C is within this factor of the narrowest.
EXACT = 4.0
# An estimate is no longer than its direction; one so much longer has diverged.
LONGEST = 2.0
# Rotations of a spectral start that are tried, and the squared lengths it is tried at.
ROTATIONS, LENGTHS = 32, (0.1, 0.4)


class State(eqx.Module):
    """Û, its posterior covariance C, the scores g_{t−1}, and what does not change.

    `prepared` is what the channel keeps of the labels. `change` is what `moved` says.
    """

    weights: Float[Array, "r d"]
    covariance: Float[Array, "r r"]
    scores: Float[Array, "blocks r size"]
    prepared: Float[Array, "blocks p size"]
    change: Float[Array, ""]
    memory: Any


class Amp(WithChannel):
    """Bayes-AMP for y ~ P(·|h), h = U x, with a Gaussian prior on U.

    For Û (r × d), posterior covariance C (r × r) and scores g (r × n):

        Ω = Û Xᵀ − C g_{t−1},              g_t = g_out(y, Ω, C) = C⁻¹(E[h|y, Ω, C] − Ω),
        A = −(1/d) Σ_i ∂g_out/∂ω,          Û ← (I + A)⁻¹ (g_t X/d + A Û),    C ← (I + A)⁻¹.

    (Aubin et al., arXiv 1806.05451, algorithm 1; Troiani et al., arXiv 2405.15480, in the units
    where rows of U have length 1.) `damping` keeps that share of the last Û, C and g: fixed
    points stay where they are. It stops when Û moves by less than `tolerance` of its length.

    `start`: `spectral`, from `start_steps` steps of `linearised_amp`, turned and scaled so that
    the evidence of the labels is largest; `random`, of length `start_length`; `informed`,
    Û = Q U + noise with Û Ûᵀ = Û Uᵀ = Q, where `start_overlap` is Q (one number, one a
    direction, or a matrix). A run whose Û grows beyond any posterior mean has diverged: NaN.
    """

    # The channel costs more than X, and cells need different numbers of steps.
    side_by_side = False
    steps: int = eqx.field(static=True, default=200)
    damping: float = 0.0
    tolerance: float = 1e-4
    start: str = eqx.field(static=True, default="spectral")
    start_steps: int = eqx.field(static=True, default=40)
    start_length: float = 0.1
    start_overlap: Any = eqx.field(static=True, default=0.5)
    channel: Channel | None = None

    def __check_init__(self):
        self.check("steps", self.steps >= 0, "expected a whole number ≥ 0")
        self.check("damping", 0 <= self.damping < 1, "expected a number in [0, 1)")
        self.check("tolerance", self.tolerance >= 0, "expected a number ≥ 0")
        self.check("start", self.start in STARTS, f"expected one of {', '.join(STARTS)}")
        self.check("start_steps", self.start_steps >= 1, "expected a whole number ≥ 1")
        self.check("start_length", 0 < self.start_length < 1, "expected a number in (0, 1)")

    def made_for(self, target):
        overlap_matrix(self.start_overlap, target.rank, key="algorithm.start_overlap")
        return super().made_for(target)

    def queries(self, network, rank):
        before = (0, 0)
        if self.start == "spectral":
            before = LinearisedAmp(steps=self.start_steps).queries(network, rank)
        extra = rank if self.start == "spectral" else 0  # to compare rotations
        return rank * self.steps + before[0] + extra, rank * self.steps + before[1]

    def init(self, key, problem, memory):
        channel = self.channel or channel_of(problem.target)
        r, d = problem.directions.shape
        rows = problem.matrix.rows
        prepared = rows.map(lambda _, y: channel.prepare(y), problem.labels)
        scores = jnp.zeros((rows.blocks, r, rows.size), jnp.float32)
        if self.start == "spectral":
            weights, scores, memory = self._spectral(key, problem, memory, channel, prepared)
        elif self.start == "random":
            weights = self.start_length * jax.random.normal(key, (r, d), jnp.float32) / d**0.5
        else:
            weights = informed_start(key, self.start_overlap, problem.directions)
        covariance = bounded(jnp.eye(r, dtype=weights.dtype) - weights @ weights.T)
        change = jnp.ones((), weights.dtype)
        return State(weights, covariance, scores, prepared, change, memory)

    def step(self, state, problem):
        channel = self.channel or channel_of(problem.target)
        r, d = state.weights.shape
        keep = self.damping

        def pull(z, prepared, before):
            field = z - state.covariance @ before
            out = channel.output(prepared, field, state.covariance)
            score = (1 - keep) * out.score + keep * before
            return score, out.curvature, score

        product, curvature, scores, memory = problem.matrix.sweep(
            pull, state.weights, (state.prepared, state.scores), state.memory
        )
        a = -(curvature + curvature.T) / (2 * d)
        # Û takes the inverse as it is: the floor is for the belief that the channel is asked with.
        inverse = bounded(jnp.eye(r, dtype=a.dtype) + a, inverted=True)
        weights = inverse @ (product / d + a @ state.weights)
        covariance = bounded(inverse)
        weights = (1 - keep) * weights + keep * state.weights
        covariance = (1 - keep) * covariance + keep * state.covariance
        length = jnp.linalg.norm(weights, axis=1)
        lost = ~jnp.isfinite(length).all() | (length > LONGEST).any()
        change = moved(weights, state.weights, covariance)
        weights = jnp.where(lost, jnp.nan, weights)
        return State(weights, covariance, scores, state.prepared, change, memory)

    def stopped(self, state: State) -> Bool[Array, ""]:
        """Whether Û has come to rest, or is lost."""
        return (state.change < self.tolerance) | ~jnp.isfinite(state.change)

    def outcome(self, state):
        return {"covariance": state.covariance}

    def _spectral(self, key, problem, memory, channel, prepared):
        """The outliers of linearised AMP, turned and scaled so that the labels are most likely."""
        r = len(problem.directions)
        linear = LinearisedAmp(steps=self.start_steps, channel=channel)
        state = linear.init(key, problem, memory)
        state = jax.lax.fori_loop(0, self.start_steps, lambda _, s: linear.step(s, problem), state)
        weights, combine = spanned(state.iterates)
        scores = jnp.einsum("ij,bjs->bis", combine, state.scores)
        field, memory = problem.matrix.forward(weights, state.memory)
        field = field - scores
        turns, lengths = rotations(r), np.asarray(LENGTHS, np.float32)

        def evidence(turn, length):
            v = (1 - length) * jnp.eye(r, dtype=weights.dtype)

            def of_rows(prepared, field):
                return channel.output(prepared, jnp.sqrt(length) * turn @ field, v).log_evidence

            return problem.matrix.rows.mean(of_rows, prepared, field)

        every = jax.lax.map(
            lambda turn: jax.lax.map(lambda length: evidence(turn, length), jnp.asarray(lengths)),
            jnp.asarray(turns),
        )
        best = jnp.argmax(jnp.where(jnp.isfinite(every), every, -jnp.inf))
        turn = jnp.asarray(turns)[best // len(lengths)]
        turn = jnp.sqrt(jnp.asarray(lengths)[best % len(lengths)]) * turn
        return turn @ weights, jnp.einsum("ij,bjs->bis", turn, scores), memory


def rotations(r: int) -> Float[np.ndarray, "count r r"]:
    """Orthogonal matrices spread at random over O(r), the same every time; ± 1 for r = 1."""
    if r == 1:
        return np.asarray([[[1.0]], [[-1.0]]], np.float32)
    rng = np.random.default_rng(0)
    turns = [np.linalg.qr(rng.standard_normal((r, r)))[0] for _ in range(ROTATIONS)]
    return np.stack(turns).astype(np.float32)


def bounded(matrix: Float[Array, "r r"], *, inverted: bool = False) -> Float[Array, "r r"]:
    """A covariance with eigenvalues from `NARROWEST` to `WIDEST`; or an inverse, up to `WIDEST`."""
    values, vectors = lapack.eigh(matrix)
    if inverted:
        values = jnp.minimum(1 / jnp.maximum(values, NARROWEST), WIDEST)
    else:
        values = jnp.clip(values, NARROWEST, WIDEST)
    return (vectors * values[None]) @ vectors.T


def moved(
    new: Float[Array, "r d"], old: Float[Array, "r d"], covariance: Float[Array, "r r"]
) -> Float[Array, ""]:
    """‖Û_t − Û_{t−1}‖/‖Û_t‖, without the tremor of directions that are recovered exactly.

    There C is as narrow as can be, and Û never moves by less than that.
    """
    values, vectors = lapack.eigh(covariance)
    sizes = jnp.linalg.norm(vectors.T @ (new - old), axis=1)
    exact = values < EXACT * NARROWEST
    sizes = jnp.where(exact & (sizes < EXACT * NARROWEST**0.5), 0.0, sizes)
    return jnp.linalg.norm(sizes) / jnp.linalg.norm(new)


def informed_start(
    key: Array, overlap: Any, directions: Float[Array, "r d"]
) -> Float[Array, "r d"]:
    """Û with Û Uᵀ = Û Ûᵀ = Q up to 1/√d: Q U + (Q − Q²)^{1/2} noise."""
    r, d = directions.shape
    q = overlap_matrix(overlap, r, key="algorithm.start_overlap")
    values, vectors = np.linalg.eigh(q)
    spread = np.sqrt(np.clip(values * (1 - values), 0, None))
    noise = jnp.asarray((vectors * spread) @ vectors.T, jnp.float32)
    return jnp.asarray(q, jnp.float32) @ directions + noise @ (
        jax.random.normal(key, (r, d), jnp.float32) / d**0.5
    )
