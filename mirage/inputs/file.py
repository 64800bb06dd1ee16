"""Rows from a user's own file."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mirage.inputs.base import PARTS, Inputs
from mirage.options import require


def read_matrix(path: str, key: str) -> np.ndarray:
    """The matrix in a `.npy` file, memory-mapped; ValueError naming `key` if there is none."""
    accepted = "expected the path of a .npy file with a matrix of numbers"
    require(Path(path).is_file() and path.endswith(".npy"), key, path, accepted)
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}={path!r}: cannot be read: {error}") from error
    good = matrix.ndim == 2 and matrix.dtype.kind in "fiu"
    require(good, key, path, f"{accepted}; it holds {matrix.dtype} of shape {matrix.shape}")
    return matrix


def single_precision(matrix: np.ndarray, path: str, key: str) -> np.ndarray:
    """The matrix in float32; ValueError naming `key` unless all of it is finite there."""
    with np.errstate(over="ignore"):
        matrix = np.asarray(matrix, np.float32)
    require(bool(np.isfinite(matrix).all()), key, path, "it holds NaN or infinite numbers")
    return matrix


class File(Inputs):
    """Rows of the matrix in a `.npy` file, (rows, d), in an order of its own for each seed.

    The rows are cut in three, for the first layer, the readout and the error, so n is at most
    a third of them. With `standardise` every column is brought to mean 0 and variance 1, a
    constant one to 0.
    """

    path: str = eqx.field(static=True)
    standardise: bool = eqx.field(static=True, default=True)
    matrix: Float[Array, "rows d"] | None = eqx.field(init=False)

    def __post_init__(self):
        self.matrix = None  # until `load`; a default would stay with the class

    def __check_init__(self):
        read_matrix(self.path, "inputs.path")

    def check_size(self, *, n_max, d):
        rows, columns = read_matrix(self.path, "inputs.path").shape
        require(d == columns, "d", d, f"{self.path} has {columns} columns")
        most = rows // len(PARTS)
        accepted = f"{self.path} has {rows} rows, a third of which serve each sample: n ≤ {most}"
        require(n_max <= most, "n", n_max, accepted)

    def load(self, *, d):
        matrix = single_precision(read_matrix(self.path, "inputs.path"), self.path, "inputs.path")
        if self.standardise:
            mean, spread = (f(matrix, axis=0, dtype=np.float64) for f in (np.mean, np.std))
            # The spread of a constant column is rounding, or nothing.
            varies = spread > 1e-6 * np.abs(matrix).max(axis=0, initial=0)
            centred = matrix - mean.astype(np.float32)
            matrix = centred * np.where(varies, 1 / np.where(varies, spread, 1), 0).astype("f4")
        return eqx.tree_at(lambda f: f.matrix, self, matrix, is_leaf=lambda x: x is None)

    def source(self, key, part):
        assert self.matrix is not None
        third = self.matrix.shape[0] // len(PARTS)
        order = jax.random.permutation(key, self.matrix.shape[0])
        return jax.lax.dynamic_slice(order, (PARTS.index(part) * third,), (third,))

    def block(self, source, index, *, size, d):
        """Rows beyond the end of a part repeat its first: the designs leave them out."""
        assert self.matrix is not None
        place = (index * size + jnp.arange(size)) % source.shape[0]
        return self.matrix[source[place]]
