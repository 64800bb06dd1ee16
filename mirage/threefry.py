"""JAX's random numbers on a CPU, the same bits, by a hash that is written out."""

import functools
import math

import jax
import jax.numpy as jnp
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

    Where JAX loops over the rounds, each of which reads and writes all numbers: written out it
    takes half of the time, to compile too.
    """
    rule = mlir.lower_fun(hashed, multiple_results=True)
    mlir.register_lowering(threefry2x32_p, rule, platform="cpu", inline=False)


def hashed(key_1, key_2, count_1, count_2):
    """Threefry-2x32 of two counters under a key of two words, all uint32."""
    a, b, *keys = jnp.broadcast_arrays(count_1, count_2, key_1, key_2)
    keys.append(keys[0] ^ keys[1] ^ np.uint32(PARITY))
    state = (a + keys[0], b + keys[1]), (*keys[1:], keys[0]), np.array(ROTATIONS, np.uint32)
    if math.prod(a.shape) < FEW:
        return jax.lax.fori_loop(0, 5, _four_rounds, state)[0]
    for i in range(5):
        state = _four_rounds(i, state)
    return state[0]


def _four_rounds(i, state):
    (a, b), keys, rotations = state
    for bits in rotations[0]:
        a = a + b
        b = a ^ (b << bits | b >> (np.uint32(32) - bits))
    mixed = a + keys[0], b + keys[1] + jnp.uint32(i + 1)
    return mixed, (*keys[1:], keys[0]), rotations[::-1]
