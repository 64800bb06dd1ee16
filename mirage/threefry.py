"""Threefry, the hash behind JAX's random numbers: written out for a CPU, with the same bits."""

import functools
import math

import jax
import numpy as np
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

# Threefry-2x32 with 20 rounds: Salmon, Moraes, Dror and Shaw (2011), table 2 and section 3.3.
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
# Of fewer numbers, mostly keys, the hash would be done again in the kernel of each that needs one.
FEW = 256


@functools.cache
def write_out() -> None:
    """From now on, programs for a CPU draw many random numbers in one kernel.

    Where JAX loops over the rounds, each of which reads and writes all numbers: written out, rows
    are drawn up to twice as fast (`benchmarks/random_numbers.py`).
    """
    rule = mlir.lower_fun(hashed, multiple_results=True)
    mlir.register_lowering(threefry2x32_p, rule, platform="cpu", inline=False)


def hashed(key_1, key_2, count_1, count_2):
    """The two words that Threefry-2x32 makes of two counters under a key of two words.

    All are uint32, of NumPy's or JAX's, in shapes that broadcast together.
    """
    words = count_1 + key_1, count_2 + key_2
    keys = key_2, key_1 ^ key_2 ^ np.uint32(PARITY), key_1
    state = words, keys, np.array(ROTATIONS, np.uint32)
    if isinstance(words[0], jax.Array) and math.prod(words[0].shape) < FEW:
        return jax.lax.fori_loop(np.uint32(0), np.uint32(5), _four_rounds, state)[0]
    for i in range(5):
        state = _four_rounds(np.uint32(i), state)
    return state[0]


def _four_rounds(i, state):
    (a, b), keys, rotations = state
    for bits in rotations[0]:
        a = a + b
        b = a ^ (b << bits | b >> (np.uint32(32) - bits))
    mixed = a + keys[0], b + keys[1] + i + np.uint32(1)
    return mixed, (*keys[1:], keys[0]), rotations[::-1]


def fold_in(key: np.ndarray, number: np.ndarray) -> np.ndarray:
    """What `jax.random.fold_in` makes of keys (*shape, 2) and numbers (*shape), without a program.

    Both are uint32; the keys are their data, as of `jax.random.key_data`.
    """
    with np.errstate(over="ignore"):  # single numbers warn where arrays wrap around
        words = hashed(key[..., 0], key[..., 1], np.zeros_like(number), number)
    return np.stack(words, axis=-1)
