"""What inputs are: blocks of rows, drawn by key."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mirage.options import Option

# The independent samples of one seed: for the first layer, for the readout, and for the error.
PARTS = ("train", "readout", "test")


class Inputs(Option, abc.ABC):
    """The law of the rows of X, centred and of unit variance on average.

    Rows come in blocks, each by its own key: a block is the same whoever asks for it, and
    however many there are.
    """

    group: ClassVar[str] = "inputs"
    # Whether rows are N(0, I_d): what the `deferred` design and integrals over (M, Q) rely on.
    standard_gaussian: ClassVar[bool] = False

    def check_size(self, *, n_max: int, d: int) -> None:
        """Raise ValueError where there are no such rows; any n and d by default."""
        return

    def load(self, *, d: int) -> "Inputs":
        """The inputs with all the data that they need; called once for each d."""
        return self

    def source(self, key: Key[Array, ""], part: str) -> Any:
        """What the blocks of one seed and one part are drawn from."""
        return jax.random.fold_in(key, PARTS.index(part))

    @abc.abstractmethod
    def block(self, source: Any, index: Any, *, size: int, d: int) -> Float[Array, "size d"]:
        """The `index`-th block of `size` rows."""


class Drawn(Inputs, abc.ABC):
    """Inputs given by a law for independent rows."""

    def block(self, source, index, *, size, d):
        return self.rows(jax.random.fold_in(source, index), (size, d))

    @abc.abstractmethod
    def rows(self, key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "size d"]:
        """Independent rows."""


def normal(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normals in single precision."""
    return jax.random.normal(key, shape, jnp.float32)
