"""The design matrix as its two products, which is all that an algorithm may ask of it."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage.designs.rows import Rows
from mirage.designs.windows import BlockOfRows, Window
from mirage.inputs import Inputs
from mirage.options import Option
from mirage.places import at, put

# What a matrix remembers of the products asked so far: nothing for a stored one.
Memory = Any
# A function of a block of rows, each array with the rows last: (V Xᵀ, row data ...) → G, whatever
# else is to be summed over rows (any tree of arrays, or None) and, for `sweep`, what is to be kept.
RowFunction = Callable[..., tuple[Any, ...]]


class Matrix(eqx.Module):
    """X with rows x_i ~ N(0, I_d), known only through `V Xᵀ` and `G X`.

    Both products take and return the matrix's memory. V and what comes back are `(k, d)`; an
    array over rows, such as V Xᵀ or G, has the blocks of `rows`: `(blocks, k, size)`.
    """

    rows: eqx.AbstractVar[Rows]

    @abc.abstractmethod
    def memory(self) -> Memory:
        """The memory before any product."""

    @abc.abstractmethod
    def forward(
        self, v: Float[Array, "k d"], memory: Memory
    ) -> tuple[Float[Array, "blocks k size"], Memory]:
        """V Xᵀ."""

    @abc.abstractmethod
    def backward(
        self, g: Float[Array, "blocks k size"], memory: Memory
    ) -> tuple[Float[Array, "k d"], Memory]:
        """G X. Rows of G beyond the sample size must be zero."""

    @abc.abstractmethod
    def covariance(
        self, weight: Callable[..., Float[Array, " size"]], data: tuple[Array, ...], memory: Memory
    ) -> Float[Array, "d d"]:
        """Σ_i w_i x_i x_iᵀ over rows, with w = weight(*data) row by row: all of X at once."""

    @abc.abstractmethod
    def window(self, window: Window, v: Float[Array, "k d"]) -> BlockOfRows:
        """The block of a window for V, of rows that are seen once."""

    def pull_back(
        self, function: RowFunction, v: Float[Array, "k d"], data: tuple[Array, ...], memory: Memory
    ) -> tuple[Float[Array, "l d"], Any, Memory]:
        """G X and sums over rows, with (G, summed) = function(V Xᵀ, *data) row by row."""

        def nothing_kept(*arrays):
            return *function(*arrays), None

        product, sums, _, memory = self.sweep(nothing_kept, v, data, memory)
        return product, sums, memory

    def sweep(
        self, function: RowFunction, v: Float[Array, "k d"], data: tuple[Array, ...], memory: Memory
    ) -> tuple[Float[Array, "l d"], Any, Any, Memory]:
        """G X, sums over rows, and what is kept of every row: a tree of `(blocks, ..., size)`.

        (G, summed, kept) = function(V Xᵀ, *data) row by row: a forward and a backward product. A
        drawn matrix overrides it to read each block of X once for both.
        """
        z, memory = self.forward(v, memory)
        like, summed, kept = jax.eval_shape(function, z[0], *(array[0] for array in data))
        in_place = like.shape == z.shape[1:]  # G takes the place of V Xᵀ where it can

        def visit(b, carry):
            g, sums, held = carry
            block, summed, kept = function(
                at(g if in_place else z, b), *(at(array, b) for array in data)
            )
            g = put(g, b, self.rows.keep(b, block))
            return g, self.rows.add(b, sums, summed), self.rows.put(b, held, kept)

        start = z if in_place else jnp.zeros((self.rows.blocks, *like.shape), like.dtype)
        start = (start, self.rows.no_sums(summed), self.rows.nothing_held(kept))
        g, sums, held = self.rows.fold(visit, start)
        product, memory = self.backward(g, memory)
        return product, sums, held, memory

    def gram(
        self,
        function: Callable[..., Float[Array, "l size"]],
        v: Float[Array, "k d"],
        data: tuple[Array, ...],
        memory: Memory,
    ) -> tuple[Float[Array, "l l"], Memory]:
        """Σ_i φ_i φ_iᵀ over rows, with φ = function(V Xᵀ, *data) row by row: a forward product.

        A drawn matrix overrides it to make φ block by block.
        """
        z, memory = self.forward(v, memory)
        return self.rows.gram_of(
            lambda b: function(at(z, b), *(at(array, b) for array in data))
        ), memory


class DesignChoice(Option, abc.ABC):
    """What a config names: a design, or a rule by which one is chosen for each cell."""

    group: ClassVar[str] = "design"

    @abc.abstractmethod
    def resolve(
        self,
        inputs: Inputs,
        *,
        n: int,
        d: int,
        right: int,
        left: int,
        steps: int,
        fits: Callable[["Design"], bool],
    ) -> "Design":
        """The design for n samples and so many query columns, asked in `steps` steps.

        `fits` says whether a design's X can be held in memory.
        """


class Design(DesignChoice, abc.ABC):
    """How X is come by. `draw` makes what every sample size shares, `matrix` the X of one."""

    def resolve(self, inputs, *, n, d, right, left, steps, fits):
        return self

    # Whether products leave no memory, so that several algorithms can share each of them.
    memoryless: ClassVar[bool] = True

    @abc.abstractmethod
    def draw(self, key: Key[Array, ""], inputs: Inputs, *, n_max: int, d: int) -> Any:
        """The random arrays of one seed, for all sample sizes up to `n_max`."""

    @abc.abstractmethod
    def matrix(
        self,
        drawn: Any,
        seed: Any,
        n: Any,
        inputs: Inputs,
        *,
        n_max: int,
        d: int,
        right: int,
        left: int,
        bound: Any = None,
    ) -> Matrix:
        """X of one seed among those drawn (stacked along the leading axis), its first `n` rows.

        Good for `right` columns of V and `left` of G in all. `bound` is where loops over rows
        end (`Rows`), if not at n.
        """

    def check_size(self, inputs: Inputs, *, n_min: int, d: int, right: int, left: int) -> None:
        """Raise ValueError where the design cannot serve such a problem; it can by default."""
        return

    @abc.abstractmethod
    def seconds(self, *, n: int, d: int, right: int, left: int, steps: int) -> float:
        """Seconds a seed on one core, within a factor of two: what `design=auto` compares.

        The constants are those of the machine in `benchmarks/results/deferred.txt`.
        """

    @abc.abstractmethod
    def bytes_drawn(self, *, n_max: int, d: int) -> int:
        """Bytes of what `draw` makes, a seed."""

    @abc.abstractmethod
    def bytes_working(self, *, n_max: int, d: int, right: int, left: int) -> int:
        """Bytes that one run of an algorithm needs besides."""
