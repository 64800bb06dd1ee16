"""The hidden directions U."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mirage import lapack
from mirage.inputs.base import normal
from mirage.inputs.file import read_matrix, single_precision
from mirage.options import Option, require


class Directions(Option, abc.ABC):
    """U (r, d): a target sees h = U x."""

    group: ClassVar[str] = "directions"
    # Whether the rows of U are orthonormal by construction.
    orthonormal: ClassVar[bool] = True

    def check_size(self, *, r: int, d: int) -> None:
        """Raise ValueError where there is no such U; any 1 ≤ r ≤ d by default."""
        return

    @abc.abstractmethod
    def draw(self, key: Key[Array, ""], r: int, d: int) -> Float[Array, "r d"]:
        """U for one seed."""


class Axes(Directions):
    """The first r coordinates. On isotropic Gaussian inputs every U is as good as this one."""

    def draw(self, key, r, d):
        return jnp.eye(r, d, dtype=jnp.float32)


class Random(Directions):
    """r orthonormal directions, uniformly at random for each seed."""

    def draw(self, key, r, d):
        return lapack.qr(normal(key, (d, r)))[0].T


class Given(Directions):
    """U from a `.npy` file, (r, d), one for all seeds; its rows need not be orthonormal."""

    orthonormal: ClassVar[bool] = False
    path: str = eqx.field(static=True)

    def __check_init__(self):
        rank = np.linalg.matrix_rank(matrix := self._matrix())
        accepted = "its rows must be linearly independent"
        require(rank == matrix.shape[0], "directions.path", self.path, accepted)

    def _matrix(self) -> np.ndarray:
        matrix = read_matrix(self.path, "directions.path")
        return single_precision(matrix, self.path, "directions.path")

    def check_size(self, *, r, d):
        shape = read_matrix(self.path, "directions.path").shape
        accepted = f"it has shape {shape}; this target at this d needs ({r}, {d})"
        require(shape == (r, d), "directions.path", self.path, accepted)

    def draw(self, key, r, d):
        return jnp.asarray(self._matrix())
