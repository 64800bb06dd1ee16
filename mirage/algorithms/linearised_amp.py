"""The spectral method that Bayes-AMP is near the origin: optimal weak recovery."""

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage import lapack
from mirage.algorithms.base import Algorithm
from mirage.channels.channel import Channel
from mirage.channels.registry import channel_of
from mirage.targets import Target


class State(eqx.Module):
    """Several iterates Û_k side by side, with the scores g_k that each was made of.

    `weights` are the r directions that the iterates span most, `gains` G(y_i) for every sample,
    `growth` how much each iterate grew in the last step.
    """

    weights: Float[Array, "r d"]
    iterates: Float[Array, "k r d"]
    scores: Float[Array, "blocks kr size"]
    gains: Float[Array, "blocks rr size"]
    drift: Float[Array, "r r"]
    growth: Float[Array, " k"]
    memory: Any


class WithChannel(Algorithm, abc.ABC):
    """An algorithm that knows the target's channel, which is found for it and is no setting."""

    uses_model: ClassVar[bool] = False
    channel: eqx.AbstractVar[Channel | None]

    @classmethod
    def settings(cls):
        return {key: kind for key, kind in super().settings().items() if key != "channel"}

    def made_for(self, target: Target) -> "WithChannel":
        return dataclasses.replace(self, channel=channel_of(target))


class LinearisedAmp(WithChannel):
    """Power iteration with Bayes-AMP linearised at the origin, for r iterates Û_k (r × d) at once:

        Ω_k = Û_k Xᵀ − g_k,    g_k ← G(y) Ω_k,    Û_k ← g_k X/d + A Û_k,    A = −mean_i G(y_i) n/d,

    then all orthonormalised. G(y) = E[hhᵀ|y] − I − E[h|y] E[h|y]ᵀ comes from the target's
    channel at ω = 0, V = I. Its outliers leave the bulk at alpha_c (Defilippis et al., "Optimal
    spectral transitions in high-dimensional multi-index models", arXiv 2502.02545, the asymmetric
    method), where `growth` passes 1: no spectral method that is told less of the target starts
    lower. For targets with E[h|y] = 0.
    """

    steps: int = eqx.field(static=True, default=40)
    channel: Channel | None = None

    def __check_init__(self):
        self.check("steps", self.steps >= 1, "expected a whole number ≥ 1")

    def queries(self, network, rank):
        return rank**2 * self.steps, rank**2 * self.steps

    def columns(self, network, rank):
        return rank**2

    def init(self, key, problem, memory):
        channel = self.channel or channel_of(problem.target)
        r, d = problem.directions.shape
        rows = problem.matrix.rows

        def gain(_, y):
            origin = jnp.zeros((r, *y.shape), y.dtype)
            out = channel(y, origin, jnp.eye(r, dtype=y.dtype))
            return out.curvature.reshape(r * r, *y.shape)

        gains = rows.map(gain, problem.labels)
        drift = -rows.mean(lambda g: g, gains).reshape(r, r) * (rows.count / d).astype(gains.dtype)
        iterates = jax.random.normal(key, (r, r, d), jnp.float32)
        iterates, _, norms = orthonormal(iterates)
        return State(
            weights=spanned(iterates)[0],
            iterates=iterates,
            scores=jnp.zeros((rows.blocks, r * r, rows.size), jnp.float32),
            gains=gains,
            drift=drift,
            growth=jnp.ones_like(norms),
            memory=memory,
        )

    def step(self, state, problem):
        k, r, d = state.iterates.shape

        def pull(z, gains, before):
            field = (z - before).reshape(k, r, -1)
            score = jnp.einsum("ijn,kjn->kin", gains.reshape(r, r, -1), field)
            score = score.reshape(k * r, -1)
            return score, None, score

        product, _, scores, memory = problem.matrix.sweep(
            pull, state.iterates.reshape(k * r, d), (state.gains, state.scores), state.memory
        )
        product = product.reshape(k, r, d) / d
        iterates = product + jnp.einsum("ij,kjd->kid", state.drift, state.iterates)
        iterates, undo, growth = orthonormal(iterates)
        scores = jnp.einsum("kl,blrs->bkrs", undo, scores.reshape(-1, k, r, scores.shape[-1]))
        return State(
            weights=spanned(iterates)[0],
            iterates=iterates,
            scores=scores.reshape(state.scores.shape),
            gains=state.gains,
            drift=state.drift,
            growth=growth,
            memory=memory,
        )

    def observe(self, state):
        return {"growth": state.growth}


def orthonormal(
    iterates: Float[Array, "k r d"],
) -> tuple[Float[Array, "k r d"], Float[Array, "k k"], Float[Array, " k"]]:
    """Iterates orthonormal as vectors of r d numbers, the k × k matrix that made them so, norms."""
    flat = iterates.reshape(len(iterates), -1)
    gram = flat @ flat.T
    small = 1e-6 * jnp.trace(gram) * jnp.eye(len(gram), dtype=gram.dtype)
    root = lapack.cholesky(gram + small)
    undo = lapack.solve_lower(root, jnp.eye(len(gram), dtype=gram.dtype))
    return (undo @ flat).reshape(iterates.shape), undo, jnp.diag(root)


def spanned(iterates: Float[Array, "k r d"]) -> tuple[Float[Array, "r d"], Float[Array, "r kr"]]:
    """The r directions of unit norm along which the iterates extend most, and what makes them."""
    k, r, d = iterates.shape
    rows = iterates.reshape(k * r, d)
    values, vectors = lapack.eigh(rows @ rows.T)
    scale = jax.lax.rsqrt(jnp.maximum(values[::-1][:r], 1e-12))
    combine = scale[:, None] * vectors.T[::-1][:r]
    return combine @ rows, combine
