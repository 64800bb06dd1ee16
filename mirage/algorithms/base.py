"""What an algorithm is: `init`, `step`, and what it says of itself."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage.activations import Activation
from mirage.designs import Matrix, Memory
from mirage.losses import Loss
from mirage.network import TwoLayer
from mirage.options import Option
from mirage.targets import Target


class Problem(eqx.Module):
    """All that an algorithm is given: the samples (X through its products, y) and the model.

    `directions` is U, whose rows the target sees; algorithms use it for fresh samples and
    measures only. `labels` has the blocks of the matrix's rows.
    """

    matrix: Matrix
    labels: Float[Array, "blocks size"]
    directions: Float[Array, "r d"]
    target: Target
    loss: Loss
    activation: Activation
    network: TwoLayer

    def centre(self) -> Float[Array, ""]:
        """The sample mean of ℓ'(0, y)."""
        slopes = lambda y: self.loss.slope(jnp.zeros_like(y), y)  # noqa: E731
        return self.matrix.rows.mean(slopes, self.labels)


class Algorithm(Option, abc.ABC):
    """Training as `init` and `step`; the loop, the data and the measures live elsewhere."""

    group: ClassVar[str] = "algorithm"
    steps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def queries(self, network: TwoLayer) -> tuple[int, int]:
        """How many columns it multiplies X and Xᵀ with in all, for `steps` steps."""

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], problem: Problem, memory: Memory) -> Any:
        """The state before the first step; it has `weights` (m, d) and the matrix's `memory`."""

    @abc.abstractmethod
    def step(self, state: Any, problem: Problem) -> Any:
        """One step."""

    def finish(self, key: Key[Array, ""], state: Any, problem: Problem) -> dict[str, Array]:
        """What follows the last step, as named results; nothing by default."""
        return {}


def draw_problem(
    key: Key[Array, ""],
    matrix: Matrix,
    directions: Float[Array, "r d"],
    target: Target,
    **model: Any,
) -> tuple[Problem, Memory]:
    """Labels for a matrix: h = U X asked first, then y given h, block by block."""
    h, memory = matrix.forward(directions, matrix.memory())

    def label(block, h_block):
        return target.draw(jax.random.fold_in(key, block), h_block.T)

    labels = matrix.rows.map(label, h)
    return Problem(matrix, labels, directions, target=target, **model), memory
