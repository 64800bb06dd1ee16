"""Kernel ridge regression: random features in the limit of infinitely many."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.special import gammaincinv

from mirage import lapack
from mirage.algorithms.base import Algorithm, Cost
from mirage.algorithms.fresh import mean_square_error
from mirage.kernels import FeatureKernel, Points

# For averages over a Gaussian input: lengths of equal probability, and cosines.
LENGTHS, COSINES = 8, 96


class State(eqx.Module):
    """The linear part of the predictor, its error, and what the matrix remembers."""

    weights: Float[Array, "1 d"]
    test_error: Float[Array, ""]
    key: Key[Array, ""]
    memory: Any


class KernelRidge(Algorithm):
    """f(x) = Σ_i α_i k(x_i, x) + c, the minimiser of Σ_i (f(x_i) − y_i)² + λ ‖f − c‖_k²:

        (H K H + λ I) α = H y,    K_ij = k(x_i, x_j),    H = I − 11ᵀ/n,

    λ the `ridge`. k is the kernel of `random_features` with infinitely many neurons
    (`mirage.kernels`), with the network's `initial_norm` and `bias_scale`; its sum ends at
    `degree`. The loss is of no use, nor the width.

    The n × n matrix is held, so n is bounded by `runtime.memory`. The one row of `weights` is
    E[f(x) x], the linear part of f, for x ~ N(0, I_d); `test_error` is a mean over fresh rows.
    It learns the part of the target of degree below κ from n = d^κ samples (Ghorbani, Mei,
    Misiakiewicz and Montanari 2021, arXiv 1904.12191).
    """

    needs_rows = True
    side_by_side = False
    holds = "the n × n kernel matrix, its factor and its correlations"
    ridge: float = 1e-2
    degree: int = eqx.field(static=True, default=20)

    def __check_init__(self):
        self.check("ridge", self.ridge > 0, "expected a positive number")
        self.check("degree", 1 <= self.degree <= 60, "expected a degree between 1 and 60")

    @property
    def steps(self):
        """One: the solution."""
        return 1

    def queries(self, network, rank):
        return 0, 0

    def bytes_working(self, *, n, network):
        return 12 * n**2

    def init(self, key, problem, memory):
        weights = jnp.zeros((1, problem.directions.shape[1]), jnp.float32)
        return State(weights, jnp.asarray(jnp.nan), key, memory)

    def step(self, state, problem):
        rows, network, d = problem.matrix.rows, problem.network, state.weights.shape[1]
        scales = (network.initial_norm, network.bias_scale)
        kernel = FeatureKernel(problem.activation, *scales, degree=self.degree)
        x, memory = problem.matrix.forward(jnp.eye(d), state.memory)
        x = jnp.moveaxis(x, 1, 0).reshape(d, -1)  # (d, rows); zero beyond the count
        keep = (jnp.arange(x.shape[1]) < rows.count).astype(x.dtype)
        y = problem.labels.reshape(-1)
        samples = kernel.points(x)
        alpha, intercept = self._solution(kernel, samples, y, keep)

        def predict(z):
            return alpha @ kernel.matrix(samples, kernel.points(z)) + intercept

        error = mean_square_error(state.key, problem, jnp.eye(d), predict)
        length = jnp.linalg.norm(x, axis=0)
        direction = x / jnp.where(length > 0, length, 1)[None]
        weights = direction @ (alpha * _linear_part(kernel, samples, length, d))
        return State(weights[None], error, state.key, memory)

    def _solution(self, kernel: FeatureKernel, samples: Points, y, keep):
        """α and c; α is zero for rows that do not count."""
        count = keep.sum()
        matrix = kernel.matrix(samples, samples)
        matrix = jnp.where(jnp.eye(len(y), dtype=bool), samples.square[None], matrix)
        mean = matrix @ keep / count
        # Twice: what rounding leaves of a large mean would be a negative eigenvalue.
        centred = _centred(_centred(matrix, keep), keep)
        label = keep @ y / count
        system = centred + self.ridge * jnp.eye(len(y))
        alpha = lapack.solve_positive(system, keep * (y - label))
        return alpha, label - alpha @ mean

    def outcome(self, state):
        return {"test_error": state.test_error}

    def cost(self, *, n, d, network, rank):
        return Cost(0, 2 * n**2 * (d + self.degree) + n**3 // 3)


def _centred(matrix: Float[Array, "rows rows"], keep: Float[Array, " rows"]):
    """H K H over the rows that count; zero elsewhere."""
    mean = matrix @ keep / keep.sum()
    centred = matrix - mean[:, None] - mean[None] + keep @ mean / keep.sum()
    return keep[:, None] * keep[None] * centred


def _linear_part(
    kernel: FeatureKernel, samples: Points, length: Float[Array, " rows"], d: int
) -> Float[Array, " rows"]:
    """E[x k(x_i, x)] for x ~ N(0, I_d), which lies along x_i: its length.

    E[‖x‖ t k] over the length of x and its cosine t with x_i, of density ∝ (1 − t²)^{(d−3)/2}.
    """
    end = min(1.0, 9 / np.sqrt(d))
    t = (np.arange(COSINES) + 0.5) * (2 * end / COSINES) - end
    shares = (1 - t**2) ** ((d - 3) / 2)
    moments = jnp.asarray(t * shares / shares.sum(), length.dtype)
    total = jnp.zeros_like(length)
    for radius in np.sqrt(2 * gammaincinv(d / 2, (np.arange(LENGTHS) + 0.5) / LENGTHS)):
        x = jnp.zeros((d, 1), length.dtype).at[0].set(radius)
        own = kernel.points(x)
        along = kernel.norm / np.sqrt(d) * length * own.unit[0]
        bias = kernel.bias_scale * own.unit[-1:]
        scale = jnp.sqrt((kernel.norm * length) ** 2 / d + kernel.bias_scale**2)
        cosines = jnp.asarray(t, length.dtype)[None]
        correlation = (along[:, None] * cosines + bias) / jnp.where(scale > 0, scale, 1)[:, None]
        same = Points(own.unit, jnp.tile(own.coefficients, (1, COSINES)), own.square)
        total = total + radius / LENGTHS * kernel.sum(samples, same, correlation) @ moments
    return total
