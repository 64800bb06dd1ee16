"""What a channel is: the belief on h after a label, for a Gaussian belief before it."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage.arguments import shaped


class Output(NamedTuple):
    """Of log Z(y; ω, V) = log E[P(y|h)], h ~ N(ω, V): the value and two derivatives in ω.

    `score` is g_out = V⁻¹(E[h|y] − ω), `curvature` ∂g_out/∂ω = V⁻¹ Cov[h|y] V⁻¹ − V⁻¹.
    Directions come first, the batch last.
    """

    log_evidence: Float[Array, "*batch"]
    score: Float[Array, " r *batch"]
    curvature: Float[Array, " r r *batch"]


class Information(NamedTuple):
    """Averages over ω ~ N(0, Q), h | ω ~ N(ω, I − Q), y ~ P(·|h).

    `score` is E[g_out g_outᵀ], `log_evidence` E[log Z(y; ω, I − Q)], `square` E[E[y|ω]²].
    """

    score: Float[Array, "r r"]
    log_evidence: Float[Array, ""]
    square: Float[Array, ""]


class Channel(eqx.Module):
    """P(y|h) seen through Gaussian beliefs on h; all methods are differentiable and jittable.

    In `output` and `predict` the belief is h ~ N(ω, V) with one V for the whole batch, and any
    float dtype. In float32 beliefs narrower than 1e-3 (eigenvalues of V below 1e-6) are not to
    be trusted; in float64 1e-6.
    """

    @property
    @abc.abstractmethod
    def rank(self) -> int:
        """r, the number of directions."""

    def prepare(self, y: Float[Array, "*batch"]) -> Float[Array, " p *batch"]:
        """What `output` needs of the labels alone, computed once; the labels by default."""
        return y[None]

    @abc.abstractmethod
    def output(
        self,
        prepared: Float[Array, " p *batch"],
        omega: Float[Array, " r *batch"],
        covariance: Float[Array, "r r"],
    ) -> Output:
        """The channel at prepared labels."""

    @abc.abstractmethod
    def predict(
        self, omega: Float[Array, " r *batch"], covariance: Float[Array, "r r"]
    ) -> Float[Array, "*batch"]:
        """E[y | ω, V]."""

    @abc.abstractmethod
    def information(self, overlap: Float[Array, "r r"]) -> Information:
        """The averages at the overlap matrix Q; at its diagonal where `diagonal_only`."""

    @property
    def diagonal_only(self) -> bool:
        """Whether `information` is for a diagonal Q, which the map of such targets keeps so."""
        return False

    def for_any_overlap(self) -> "Channel":
        """The channel with an `information` for every Q, slower where it is `diagonal_only`."""
        return self

    def __call__(
        self,
        y: Float[Array, "*batch"],
        omega: Float[Array, " r *batch"],
        covariance: Float[Array, "r r"],
    ) -> Output:
        """The channel at labels y."""
        return self.output(self.prepare(y), omega, covariance)


def posterior(
    out: Output, omega: Float[Array, " r *batch"], covariance: Float[Array, "r r"]
) -> tuple[Float[Array, " r *batch"], Float[Array, " r r *batch"]]:
    """E[h|y] and Cov[h|y]; ValueError for shapes that do not belong together."""
    shaped((..., None), omega=omega)
    r = len(omega)
    shaped(omega.shape, **{"out.score": out.score})
    shaped((r, *omega.shape), **{"out.curvature": out.curvature})
    shaped((r, r), covariance=covariance)
    v = covariance
    mean = omega + jnp.tensordot(v, out.score, axes=1)
    right = jnp.einsum("ij...,jk->ik...", out.curvature, v)
    return mean, v.reshape(*v.shape, *(1,) * (omega.ndim - 1)) + jnp.tensordot(v, right, axes=1)


def mixture(
    log_weights: Float[Array, " k *batch"],
    scores: Float[Array, " r k *batch"],
    curvatures: Float[Array, " r r k *batch"],
) -> Output:
    """The channel Z = Σ_k Z_k from log Z_k and its derivatives; a weight of −∞ is no component.

    ValueError for shapes that do not belong together.
    """
    shaped((..., None, None), scores=scores)
    r, *rest = scores.shape
    shaped(tuple(rest), log_weights=log_weights)
    shaped((r, r, *rest), curvatures=curvatures)
    top = jax.lax.stop_gradient(log_weights.max(axis=0))
    top = jnp.where(jnp.isfinite(top), top, 0)
    weights = jnp.exp(log_weights - top[None])
    total = weights.sum(axis=0)
    share = (weights / total[None])[None]
    score = (share * scores).sum(axis=1)
    outer = scores[:, None] * scores[None]
    curvature = (share[None] * (curvatures + outer)).sum(axis=2) - score[:, None] * score[None]
    return Output(top + jnp.log(total), score, curvature)
