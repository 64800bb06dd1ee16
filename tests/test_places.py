"""Places known at run time: the same numbers as JAX's own indexing, in fewer operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage.places import at, diagonal, full_pieces, piece, pieces, put, replace

ARRAY = np.arange(4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5)


def test_every_place_of_an_array_is_read_and_written():
    for i, j in np.ndindex(4, 3):
        read = jax.jit(lambda a, i, j: (at(a, i), at(a, i, j)))(ARRAY, i, j)
        np.testing.assert_array_equal(read[0], ARRAY[i])
        np.testing.assert_array_equal(read[1], ARRAY[i, j])
        expected = ARRAY.copy()
        expected[i] = -1
        np.testing.assert_array_equal(jax.jit(put)(ARRAY, i, -jnp.ones((3, 5))), expected)
    places = jnp.asarray([2, 0, 2])
    np.testing.assert_array_equal(
        jax.vmap(at, (None, 0))(jnp.asarray(ARRAY), places), ARRAY[[2, 0, 2]]
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_piece_is_read_and_replaced(axis):
    size = 2
    for first in range(ARRAY.shape[axis] - size + 1):
        places = np.arange(first, first + size)
        read = jax.jit(lambda a, first: piece(a, first, size, axis=axis))(ARRAY, first)
        np.testing.assert_array_equal(read, ARRAY.take(places, axis))
        written = jax.jit(lambda a, first, v: replace(a, first, v, axis=axis))(ARRAY, first, -read)
        expected = ARRAY.copy()
        np.moveaxis(expected, axis, 0)[first : first + size] *= -1
        np.testing.assert_array_equal(written, expected)


@given(st.integers(0, 2**31 - 5000), st.integers(1, 5000))
def test_pieces_hold_a_count(count, size):
    number = jnp.asarray(count, jnp.int32)
    assert int(pieces(number, size)) == -(-count // size)
    assert int(full_pieces(number, size)) == count // size


def test_a_diagonal_is_that_of_the_matrix_whatever_stands_beside_it():
    matrix = np.full((3, 3), np.nan, np.float32)
    np.fill_diagonal(matrix, [1.5, np.inf, -2.0])
    np.testing.assert_array_equal(diagonal(jnp.asarray(matrix)), [1.5, np.inf, -2.0])
    slope = jax.jacobian(diagonal)(jnp.ones((3, 3)))
    np.testing.assert_array_equal(slope, np.einsum("ij,ik->ijk", np.eye(3), np.eye(3)))


def test_programs_hold_slices_alone():
    """Nothing about places before the first or beyond the last, for which the module is there."""
    i = jnp.asarray(1)
    for function in (at, lambda a, i: put(a, i, a[0]), lambda a, i: piece(a, i, 2, axis=0)):
        program = str(jax.make_jaxpr(function)(ARRAY, i))
        assert "dynamic" in program
        assert not any(word in program for word in ("select_n", "lt ", "gather", "scatter"))
    assert "rem" not in str(jax.make_jaxpr(lambda n: pieces(n, 7))(i))
