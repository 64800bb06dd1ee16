"""Places that are known at run time only, and are neither negative nor beyond the end.

There `array[place]` and `array.at[place].set(value)` are a slice. JAX, which cannot know, also
counts from the end, looks whether there is such a place, and rounds quotients down where they are
negative: a fifth to a third of all operations, which took time to compile.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def at(array: Array, *places: Any) -> Array:
    """`array[places]`, along the first axes: one slice, so that no more of it is copied."""
    rest = array.shape[len(places) :]
    start = [jnp.asarray(place, jnp.int32) for place in places] + [np.int32(0)] * len(rest)
    shape = (*[1] * len(places), *rest)
    return jax.lax.dynamic_slice(array, start, shape, allow_negative_indices=False).reshape(rest)


def put(array: Array, place: Any, value: Array) -> Array:
    """The array with `array[place] = value`, along the first axis."""
    return jax.lax.dynamic_update_index_in_dim(array, value, place, 0, allow_negative_indices=False)


def piece(array: Array, first: Any, size: int, *, axis: int) -> Array:
    """`size` entries along an axis, from the `first` on."""
    return jax.lax.dynamic_slice_in_dim(array, first, size, axis, allow_negative_indices=False)


def replace(array: Array, first: Any, values: Array, *, axis: int) -> Array:
    """The array with other values along an axis, from the `first` on."""
    return jax.lax.dynamic_update_slice_in_dim(
        array, values, first, axis, allow_negative_indices=False
    )


def full_pieces(count: Int[Array, ""], size: int) -> Int[Array, ""]:
    """⌊count / size⌋ for a count ≥ 0."""
    return jax.lax.div(count, np.asarray(size, count.dtype))


def pieces(count: Int[Array, ""], size: int) -> Int[Array, ""]:
    """⌈count / size⌉ for a count ≥ 0."""
    return full_pieces(count + (size - 1), size)


def diagonal(matrix: Float[Array, "m m"]) -> Float[Array, " m"]:
    """The diagonal of a matrix, whatever else it holds."""
    own = jnp.arange(len(matrix))
    return jnp.where(own[:, None] == own[None], matrix, 0).sum(axis=1)
