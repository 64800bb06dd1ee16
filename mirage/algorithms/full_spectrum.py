"""Every eigenvalue of the label-weighted covariance, from the matrix itself."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mirage import lapack
from mirage.algorithms.base import Algorithm, Cost
from mirage.algorithms.bulk import bulk_edge


class State(eqx.Module):
    """The eigenvectors of the largest eigenvalues, all eigenvalues, and how many stand out."""

    weights: Float[Array, "m d"]
    eigenvalues: Float[Array, " d"]
    found: Int[Array, ""]
    memory: Any


class FullSpectrum(Algorithm):
    """All eigenvalues of D = (1/n) Σ_i T(y_i) x_i x_iᵀ with T(y) = −ℓ'(0, y), ascending, and the
    eigenvectors of the `components` largest that lie beyond the bulk (`bulk_edge`).

    D is summed over one pass of the rows, which `deferred` draws there, and diagonalised: time n d²
    and memory d² besides. For the largest eigenvalues alone `Spectral` is faster. `centred`
    subtracts the mean of ℓ'(0, y).
    """

    side_by_side = False
    components: int = eqx.field(static=True, default=20)
    centred: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        self.check("components", self.components >= 1, "expected a whole number ≥ 1")

    @property
    def steps(self):
        """One: the matrix."""
        return 1

    def queries(self, network, rank):
        return 0, 0

    def check_cell(self, *, n, d, network, rank):
        self.check("components", self.components < d, f"expected fewer than d = {d}")

    def init(self, key, problem, memory):
        d = problem.directions.shape[1]
        nothing = jnp.zeros((self.components, d), jnp.float32)
        return State(nothing, jnp.zeros((d,), jnp.float32), jnp.zeros((), jnp.int32), memory)

    def step(self, state, problem):
        d = state.weights.shape[1]
        centre = problem.centre() if self.centred else jnp.zeros((), state.weights.dtype)
        count = problem.matrix.rows.count.astype(state.weights.dtype)

        labels = problem.labels
        t = centre - problem.loss.slope(jnp.zeros_like(labels), labels)
        square = problem.matrix.covariance(lambda t: t / count, (t,), state.memory)
        values, vectors = lapack.eigh((square + square.T) / 2)
        edge = bulk_edge(problem.matrix.rows, t, d)
        found = edge.found(values[::-1][: self.components])
        weights = vectors[:, ::-1][:, : self.components].T
        weights = jnp.where((jnp.arange(self.components) < found)[:, None], weights, 0)
        return State(weights, values, found, state.memory)

    def outcome(self, state):
        return {"ritz_value": state.eigenvalues, "features_found": state.found}

    def cost(self, *, n, d, network, rank):
        return Cost(n, 2 * n * d**2)
