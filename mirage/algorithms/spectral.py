"""The spectral estimator: extreme eigenvectors of the label-weighted covariance, by Lanczos."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mirage import lapack
from mirage.algorithms.base import Algorithm
from mirage.algorithms.bulk import Edge, bulk_edge
from mirage.options import require

ENDS = ("upper", "lower", "both")
SELECTIONS = ("all", "outliers")
# Below this share of ‖D q‖, what is left of D q outside the basis is rounding.
ROUNDING = 1e-5
# Ritz vectors are looked at after every step up to here, and after so many steps beyond.
CLOSELY, SELDOM = 64, 32


class State(eqx.Module):
    """The Krylov basis Q, D = Q T Qᵀ on it, and the Ritz vectors of the ends asked for.

    `edge` is that of the bulk and `found` how many of the eigenvalues lie beyond it.
    """

    weights: Float[Array, "m d"]
    eigenvalues: Float[Array, " m"]
    found: Int[Array, ""]
    basis: Float[Array, "k d"]
    tridiagonal: Float[Array, "k k"]
    edge: Edge
    taken: Int[Array, ""]
    centre: Float[Array, ""]
    memory: Any


class Spectral(Algorithm):
    """Eigenvectors of D = (1/n) Σ_i T(y_i) x_i x_iᵀ with T(y) = −ℓ'(0, y).

    Lanczos with every new vector orthogonalised twice against all others, so that it is the same
    few lines whatever the design: `deferred` keeps state between products and fits no library's
    matvec. `components` eigenvectors of each end (`upper`, `lower` or `both`) take the place of
    neurons, repeated while there are fewer steps than that; with `steps` = d the Ritz values are
    the whole spectrum. `centred` subtracts the mean of ℓ'(0, y), as in `LayerwiseGd`.

    With `select="outliers"` only those of the `upper` end beyond the bulk are kept, whose edge the
    labels tell (`bulk_edge`): `features_found` of them; the others are zero.
    """

    steps: int = eqx.field(static=True, default=40)
    components: int = eqx.field(static=True, default=2)
    end: str = eqx.field(static=True, default="both")
    centred: bool = eqx.field(static=True, default=True)
    select: str = eqx.field(static=True, default="all")

    def __check_init__(self):
        self.check("steps", self.steps >= 1, "expected a whole number ≥ 1")
        self.check("components", self.components >= 1, "expected a whole number ≥ 1")
        self.check("end", self.end in ENDS, f"expected one of {', '.join(ENDS)}")
        self.check("select", self.select in SELECTIONS, f"expected one of {', '.join(SELECTIONS)}")
        outliers = self.select == "outliers"
        words = "select=outliers looks at the upper end: expected upper"
        self.check("end", not outliers or self.end == "upper", words)

    def check_cell(self, *, n, d, network, rank):
        words = f"expected at least as many samples as the target has directions, {rank}"
        require(self.select == "all" or n >= rank, "n", n, words)

    def queries(self, network, rank):
        return self.steps, self.steps

    def init(self, key, problem, memory):
        d = problem.directions.shape[1]
        start = jax.random.normal(key, (d,), jnp.float32)
        start = start / jnp.linalg.norm(start)
        basis = jnp.zeros((self.steps, d), start.dtype).at[0].set(start)
        m = self.components * (2 if self.end == "both" else 1)
        centre = problem.centre() if self.centred else jnp.zeros((), start.dtype)
        return State(
            weights=jnp.tile(start, (m, 1)),
            eigenvalues=jnp.zeros((m,), start.dtype),
            found=jnp.zeros((), jnp.int32),
            basis=basis,
            tridiagonal=jnp.zeros((self.steps, self.steps), start.dtype),
            edge=self._edge(problem, centre, d),
            taken=jnp.zeros((), jnp.int32),
            centre=centre,
            memory=memory,
        )

    def _edge(self, problem, centre, d):
        if self.select == "all":
            return Edge(*jnp.zeros((2,), centre.dtype))
        labels = problem.labels
        slope = problem.loss.slope(jnp.zeros_like(labels), labels)
        return bulk_edge(problem.matrix.rows, centre - slope, d)

    def step(self, state, problem):
        k, last = state.taken, self.steps - 1
        count = problem.matrix.rows.count.astype(state.basis.dtype)

        def weighted(z, y):  # T(y_i) (x_i·q) / n, a block of rows
            weight = state.centre - problem.loss.slope(jnp.zeros_like(y), y)
            return weight[None] * z / count, None

        image, _, memory = problem.matrix.pull_back(
            weighted, state.basis[k][None], (problem.labels,), state.memory
        )
        image = image[0]
        rest = image - state.basis.T @ (state.basis @ image)
        rest = rest - state.basis.T @ (state.basis @ rest)
        beside = jnp.linalg.norm(rest)
        beside = jnp.where(beside > ROUNDING * jnp.linalg.norm(image), beside, 0)
        following = jnp.where(beside > 0, rest / jnp.where(beside > 0, beside, 1), 0)
        following = jnp.where(k == last, state.basis[last], following)  # the last has no next
        beside = jnp.where(k == last, 0, beside)
        up = jnp.minimum(k + 1, last)
        tridiagonal = state.tridiagonal.at[k, k].set(state.basis[k] @ image)
        tridiagonal = tridiagonal.at[k, up].add(beside).at[up, k].add(beside)
        state = State(
            weights=state.weights,
            eigenvalues=state.eigenvalues,
            found=state.found,
            basis=state.basis.at[up].set(following),
            tridiagonal=tridiagonal,
            edge=state.edge,
            taken=k + 1,
            centre=state.centre,
            memory=memory,
        )
        if self.steps <= CLOSELY:
            return self._ritz(state)
        look = (state.taken % (self.steps // SELDOM) == 0) | (state.taken == self.steps)
        return jax.lax.cond(look, self._ritz, lambda s: s, state)

    def _ritz(self, state):
        """The Ritz pairs of the ends, from the part of T that is filled."""
        steps = jnp.arange(self.steps)
        filled = steps < state.taken
        # What is not filled yet goes above everything, so that it sorts last.
        above = 2 * jnp.abs(state.tridiagonal).sum() + 1
        part = jnp.where(filled[:, None] & filled[None], state.tridiagonal, 0)
        values, vectors = lapack.eigh(part + jnp.diag(jnp.where(filled, 0, above)))
        rank = jnp.arange(self.components)
        places = {
            "upper": jnp.maximum(state.taken - 1 - rank, 0),
            "lower": jnp.minimum(rank, state.taken - 1),
        }
        ends = ("upper", "lower") if self.end == "both" else (self.end,)
        chosen = jnp.concatenate([places[end] for end in ends])
        weights, found = vectors[:, chosen].T @ state.basis, state.found
        if self.select == "outliers":
            found = state.edge.found(values[chosen])
            weights = jnp.where((rank < found)[:, None], weights, 0)
        return eqx.tree_at(
            lambda s: (s.weights, s.eigenvalues, s.found),
            state,
            (weights, values[chosen], found),
        )

    def observe(self, state):
        return {"eigenvalue": state.eigenvalues}

    def outcome(self, state):
        found = {"features_found": state.found} if self.select == "outliers" else {}
        return {"ritz_value": lapack.eigvalsh(state.tridiagonal), **found}
