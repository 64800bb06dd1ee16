"""The design matrix as its two products, which is all that an algorithm may ask of it."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float, Key

from mirage.designs.rows import Rows
from mirage.options import Option

# What a matrix remembers of the products asked so far: nothing for a stored one.
Memory = Any
# A function of a block of rows: (V Xᵀ, row data ...) → G, each with the rows last.
RowFunction = Callable[..., Array]


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

    def pull_back(
        self, function: RowFunction, v: Float[Array, "k d"], data: tuple[Array, ...], memory: Memory
    ) -> tuple[Float[Array, "l d"], Memory]:
        """G X with G = function(V Xᵀ, *data) row by row: a forward and a backward product.

        A stored matrix overrides it to read each block of X once for both.
        """
        z, memory = self.forward(v, memory)
        g = self.rows.map(lambda _, *block: function(*block), z, *data)
        return self.backward(g, memory)


class Design(Option, abc.ABC):
    """How X is come by. `draw` makes what every sample size shares, `matrix` the X of one."""

    group: ClassVar[str] = "design"

    @property
    @abc.abstractmethod
    def stored(self) -> bool:
        """Whether X lies in memory, so that several algorithms share each read of it."""

    @abc.abstractmethod
    def draw(self, key: Key[Array, ""], *, n_max: int, d: int) -> Any:
        """The random arrays of one seed, for all sample sizes up to `n_max`."""

    @abc.abstractmethod
    def matrix(
        self, drawn: Any, seed: Any, n: Any, *, n_max: int, d: int, right: int, left: int
    ) -> Matrix:
        """X of one seed among those drawn (stacked along the leading axis), its first `n` rows.

        Good for `right` columns of V and `left` of G in all.
        """

    @abc.abstractmethod
    def check_size(self, *, n_min: int, d: int, right: int, left: int) -> None:
        """Raise ValueError where the design cannot serve such a problem."""

    @abc.abstractmethod
    def bytes_drawn(self, *, n_max: int, d: int) -> int:
        """Bytes of what `draw` makes, a seed."""

    @abc.abstractmethod
    def bytes_working(self, *, n_max: int, d: int, right: int, left: int) -> int:
        """Bytes that one run of an algorithm needs besides."""

    @abc.abstractmethod
    def seconds(self, *, n: int, d: int, right: int, left: int) -> float:
        """Seconds a seed on one core, within a factor of two: what design=auto compares."""
