"""What an algorithm is: `init`, `step`, and what it says of itself."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mirage.activations import Activation
from mirage.arguments import shaped
from mirage.designs import BlockOfRows, Matrix, Memory, Rows, Window
from mirage.inputs import Inputs
from mirage.losses import Loss
from mirage.network import TwoLayer
from mirage.options import Option
from mirage.targets import Target


class Problem(eqx.Module):
    """All that an algorithm is given: the samples (X through its products, y) and the model.

    `directions` is U, whose rows the target sees; algorithms use it for fresh samples and
    measures only, and so `inputs` with the key that X is drawn from. `labels` has the blocks of
    the matrix's rows; a one-pass algorithm has none, and draws those of its `window` by
    `labels_key`.
    """

    matrix: Matrix
    labels: Float[Array, "blocks size"]
    directions: Float[Array, "r d"]
    inputs: Inputs
    inputs_key: Key[Array, ""]
    target: Target
    loss: Loss
    activation: Activation
    network: TwoLayer
    labels_key: Key[Array, ""] | None = None
    window: Window | None = None

    def samples(
        self, weights: Float[Array, "m d"]
    ) -> tuple[Window, BlockOfRows, Float[Array, "m size"], Float[Array, " size"]]:
        """What a one-pass algorithm is to see now: its window, the block of rows, W Xᵀ and y."""
        window, rank = self.current_window(), len(self.directions)
        rows = self.matrix.window(window, jnp.concatenate([self.directions, weights]))
        y = self.draw_labels(window.block, rows.products[:rank].T)
        return window, rows, rows.products[rank:], y

    def current_window(self) -> Window:
        """What a one-pass algorithm is to see now."""
        assert self.window is not None
        return self.window

    def draw_labels(self, block: Any, h: Float[Array, "size r"]) -> Float[Array, " size"]:
        """The labels of a block of rows, given h."""
        assert self.labels_key is not None
        return self.target.draw(jax.random.fold_in(self.labels_key, block), h)

    def centre(self) -> Float[Array, ""]:
        """The sample mean of ℓ'(0, y); zero for a loss whose mean is not to be taken off."""
        slopes = lambda y: self.loss.slope(jnp.zeros_like(y), y)  # noqa: E731
        mean = self.matrix.rows.mean(slopes, self.labels)
        return self.loss.centring().astype(mean.dtype) * mean


class Trained(eqx.Module):
    """A trained network f(x) = Σ_j a_j σ(w_j·x + b_j) + c, whose population error is asked for.

    Weights of None are those of the last state, known by their order parameters.
    """

    weights: Float[Array, "m d"] | None
    biases: Float[Array, " m"]
    readout: Float[Array, " m"]
    intercept: Float[Array, ""]


class Cost(NamedTuple):
    """What a run costs: gradients of one sample's loss, and floating-point operations."""

    gradient_evaluations: int
    flops: int


class Algorithm(Option, abc.ABC):
    """Training as `init` and `step`; the loop, the data and the measures live elsewhere."""

    group: ClassVar[str] = "algorithm"
    # Whether loss, activation and network matter to it; where not, one run serves all of them.
    uses_model: ClassVar[bool] = True
    # Whether cells of several sample sizes run side by side, to read X once for all of them.
    side_by_side: ClassVar[bool] = True
    # Whether every sample is seen once, in order, in blocks of so many rows.
    one_pass: ClassVar[bool] = False
    block: ClassVar[int] = 0
    # Whether it needs no X and no U: rows N(0, I_d) and orthonormal directions are enough.
    needs_law_alone: ClassVar[bool] = False
    # Whether it asks for X itself: an X that is drawn.
    needs_rows: ClassVar[bool] = False
    # What it holds that grows faster than n, in words: cells of other n do not share its room.
    holds: ClassVar[str] = ""
    # Seeds side by side on a CPU, for an algorithm with little to do in a step.
    seeds_at_once: ClassVar[int] = 1
    steps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def queries(self, network: TwoLayer, rank: int) -> tuple[int, int]:
        """How many columns it multiplies X and Xᵀ with in all, for `steps` steps.

        `rank` is that of the target.
        """

    @property
    def needs_gaussian(self) -> bool:
        """Whether it is for inputs N(0, I_d) alone."""
        return self.needs_law_alone

    def columns(self, network: TwoLayer, rank: int) -> int:
        """How many columns one product takes; those of the network by default."""
        return network.width

    def bytes_working(self, *, n: int, network: TwoLayer) -> int:
        """Bytes besides products with X; by default projections and features of n samples."""
        return 12 * n * network.width

    def made_for(self, target: Target) -> "Algorithm":
        """The algorithm with what it needs to know of the target; ValueError if it cannot serve."""
        return self

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], problem: Problem, memory: Memory) -> Any:
        """The state before the first step; it has `weights` (m, d) and the matrix's `memory`."""

    @abc.abstractmethod
    def step(self, state: Any, problem: Problem) -> Any:
        """One step; of a one-pass algorithm, over the samples of the problem's window."""

    def schedule(self, n: Int[Array, ""]) -> Int[Array, " saves"]:
        """What is done at every save: steps, or the samples seen in one pass over n."""
        return jnp.arange(self.steps + 1, dtype=jnp.int32)

    def check_cell(self, *, n: int, d: int, network: TwoLayer, rank: int) -> None:
        """ValueError where it cannot run on n samples in d dimensions; it can by default."""
        return

    def order_parameters(self, state: Any, problem: Problem) -> dict[str, Array]:
        """`overlap` = W Uᵀ (m, r) and `gram` = W Wᵀ (m, m)."""
        return order_parameters(state.weights, problem.directions)

    def stopped(self, state: Any) -> Bool[Array, ""] | bool:
        """Whether nothing more will change; a rule of the algorithm's own, none by default."""
        return False

    def observe(self, state: Any) -> dict[str, Array]:
        """What to save of every state besides the order parameters; nothing by default."""
        return {}

    def outcome(self, state: Any) -> dict[str, Array]:
        """What to save of the last state besides its weights; nothing by default."""
        return {}

    def finish(self, key: Key[Array, ""], state: Any, problem: Problem) -> Trained | None:
        """What follows the last step, and the network it ends with, if it trains one."""
        return None

    def cost(self, *, n: int, d: int, network: TwoLayer, rank: int) -> Cost:
        """Cost of a run on n samples; by default `steps` gradients of each, in two products."""
        return Cost(n * self.steps, 2 * n * d * sum(self.queries(network, rank)))


def order_parameters(weights: Array, directions: Array) -> dict[str, Array]:
    """`overlap` = W Uᵀ (m, r) and `gram` = W Wᵀ (m, m)."""
    return {"overlap": weights @ directions.T, "gram": weights @ weights.T}


def draw_labels(
    key: Key[Array, ""], target: Target, rows: Rows, block: Any, h: Float[Array, "r size"]
) -> Float[Array, " size"]:
    """The labels of a block of rows, given h."""

    def draw(grain, h):
        return target.draw(jax.random.fold_in(key, grain), h)

    return rows.drawn(draw, block, h.T)


def draw_problem(
    key: Key[Array, ""],
    matrix: Matrix,
    directions: Float[Array, "r d"],
    target: Target,
    *,
    one_pass: bool = False,
    **model: Any,
) -> tuple[Problem, Memory]:
    """Labels for a matrix: h = U X asked first, then y given h, block by block; none in advance
    for `one_pass`. ValueError for another number of directions than the target sees.
    """
    shaped((target.rank, None), directions=directions)
    if one_pass:
        labels = jnp.zeros((0, matrix.rows.size))
        problem = Problem(matrix, labels, directions, target=target, labels_key=key, **model)
        return problem, matrix.memory()
    h, memory = matrix.forward(directions, matrix.memory())

    def label(block, h_block):
        return draw_labels(key, target, matrix.rows, block, h_block)

    labels = matrix.rows.map(label, h)
    return Problem(matrix, labels, directions, target=target, **model), memory
