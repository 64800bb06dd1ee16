"""Checks of what a user hands to a function; ValueError names the argument and what is accepted.

Arguments go in by their names, `positive(alpha=alpha, n=n)`. Of what is traced the shape alone is
known, and checked.
"""

import contextlib
import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from mirage.options import require

# How far overlaps may be from symmetric, and their eigenvalues from 0 and 1.
ROUNDING = 1e-6


def _is_traced(value: Any) -> bool:
    """Whether the shape alone is known."""
    return isinstance(value, Tracer)


def finite(**arguments: Any) -> None:
    """Each is a finite number."""
    _numbers(arguments, "expected a finite number", math.isfinite)


def positive(**arguments: Any) -> None:
    """Each is a finite number > 0."""
    _numbers(arguments, "expected a number > 0", lambda value: 0 < value < math.inf)


def non_negative(**arguments: Any) -> None:
    """Each is a finite number ≥ 0."""
    _numbers(arguments, "expected a number ≥ 0", lambda value: 0 <= value < math.inf)


def cosine(**arguments: Any) -> None:
    """Each lies between 0 and 1."""
    _numbers(arguments, "expected a cosine between 0 and 1", lambda value: 0 < value < 1)


def whole(at_least: int, /, **arguments: Any) -> None:
    """Each is a whole number, no less than told."""

    def good(value: float) -> bool:
        return at_least <= value < math.inf and value == math.floor(value)

    _numbers(arguments, f"expected a whole number ≥ {at_least}", good)


def _numbers(arguments: dict[str, Any], accepted: str, good: Callable[[float], bool]) -> None:
    for key, value in arguments.items():
        if _is_traced(value):
            require(value.shape == (), f"{key}.shape", value.shape, accepted)
        else:
            require(_is_number(value) and good(_plain(value)), key, value, accepted)


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray | jax.Array):
        return value.shape == () and np.issubdtype(value.dtype, np.number)
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _plain(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def shaped(shape: tuple[Any, ...], /, **arrays: Any) -> None:
    """Each is an array of a shape: of any length where that is None, any batch before `...`."""
    batched = shape[:1] == (...,)
    wanted = shape[1:] if batched else shape
    accepted = ", ".join({None: "any", ...: "..."}.get(size, str(size)) for size in shape)
    accepted += "," if len(shape) == 1 else ""
    for key, array in arrays.items():
        require(hasattr(array, "shape"), key, array, f"expected an array ({accepted})")
        found = tuple(array.shape)
        last = found[len(found) - len(wanted) :] if batched else found
        good = len(last) == len(wanted) <= len(found)
        same = all(want in (None, size) for size, want in zip(last, wanted, strict=False))
        require(good and same, f"{key}.shape", found, f"expected ({accepted})")


def as_array(key: str, value: Any) -> Float[np.ndarray, "..."]:
    """The value in float64; ValueError where it is no array of numbers."""
    array = None
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        array = np.asarray(value, np.float64)
    require(array is not None, key, value, "expected an array of numbers")
    return np.asarray(array)


def finite_array(shape: tuple[Any, ...], /, **arrays: Any) -> None:
    """Each is an array of a shape (`shaped`), of finite numbers."""
    shaped(shape, **arrays)
    for key, array in arrays.items():
        if not _is_traced(array):
            require(bool(np.isfinite(array).all()), key, array, "expected finite numbers")


def positive_vector(key: str, value: Any) -> Float[np.ndarray, " n"]:
    """The value as a vector in float64; ValueError unless it has finite numbers > 0, and some."""
    vector = as_array(key, value)
    good = vector.ndim == 1 and vector.size > 0
    good = good and bool(((vector > 0) & (vector < math.inf)).all())
    require(good, key, vector, "expected a vector of numbers > 0")
    return vector


def overlap_matrix(rank: int | None, /, **matrices: Any) -> None:
    """Each is a Q of so many directions, symmetric with 0 ≤ Q ≤ I up to rounding, or a batch."""
    for key, matrix in matrices.items():
        shaped((..., rank, rank), **{key: matrix})
        shaped((..., *matrix.shape[-1:] * 2), **{key: matrix})
        if _is_traced(matrix):
            continue
        q = np.asarray(matrix, np.float64)
        good = q.size > 0 and np.isfinite(q).all()
        good = good and np.abs(q - np.swapaxes(q, -1, -2)).max() <= ROUNDING
        values = np.linalg.eigvalsh(q) if good else np.full(1, np.nan)
        inside = (values >= -ROUNDING) & (values <= 1 + ROUNDING)
        accepted = "expected a symmetric matrix with eigenvalues from 0 to 1"
        require(bool(inside.all()), key, matrix, accepted)
