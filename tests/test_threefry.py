"""Random numbers: Threefry by its published answers, and what JAX makes of it."""

import jax
import numpy as np
import pytest

from mirage import threefry

# Of the authors' Random123: key, counter, and what comes out.
ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
SIZES = [1, threefry.FEW - 1, threefry.FEW, 3 * threefry.FEW]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("key", "counter", "expected"), ANSWERS)
def test_the_hash_gives_the_published_answers(key, counter, expected, size):
    words = [np.full(size, word, np.uint32) for word in counter]
    found = jax.jit(threefry.hashed)(*(np.uint32(word) for word in key), *words)
    for word, answer in zip(found, expected, strict=True):
        np.testing.assert_array_equal(word, np.full(size, answer, np.uint32))


@pytest.mark.parametrize("size", SIZES)
def test_jax_draws_by_it_what_it_drew_before(size):
    """32 bits are the two words of the hash of 0, 1, 2, …, each with the other."""
    key, count = jax.random.key(3), np.arange(size, dtype=np.uint32)
    first, second = jax.random.key_data(key)
    words = threefry.hashed(first, second, np.zeros_like(count), count)
    np.testing.assert_array_equal(jax.random.bits(key, (size,)), words[0] ^ words[1])
    keys = jax.random.split(key, 3)
    together = jax.vmap(lambda one: jax.random.bits(one, (size,)))(keys)
    for one, row in zip(keys, together, strict=True):
        np.testing.assert_array_equal(jax.random.bits(one, (size,)), row)
    program = jax.jit(lambda key: jax.random.bits(key, (size,))).lower(key).as_text()
    assert ("while" in program) == (size < threefry.FEW)


def test_numbers_are_those_of_jax_itself():
    """What JAX 0.10.2 gives where this package is not imported."""
    drawn = jax.random.bits(jax.random.key(0), (1000,)).tolist()
    assert drawn[:3] == [4070199207, 4202968722, 1427181096]
    assert drawn[-1] == 1693790770
