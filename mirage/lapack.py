"""Decompositions of small matrices inside compiled functions, one matrix at a time on a CPU.

jaxlib's LAPACK kernels share a batch out over the thread pool that also runs them, and wait for
it there: with two devices at work both threads of a two-core pool wait for ever. A batch of one
runs where it is called, so under `vmap` these go through matrices in turn.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, mapped in turn over what `vmap` batches where the backend is a CPU."""
    in_turn = jax.custom_batching.sequential_vmap(function)

    def either(*arrays):
        return (in_turn if jax.default_backend() == "cpu" else function)(*arrays)

    return either


# Functions of arrays alone: settings with defaults would be taken for arrays too.
eigh = one_at_a_time(lambda a: tuple(jnp.linalg.eigh(a)))
eigvalsh = one_at_a_time(lambda a: jnp.linalg.eigvalsh(a))
cholesky = one_at_a_time(lambda a: jnp.linalg.cholesky(a))
solve = one_at_a_time(lambda a, b: jnp.linalg.solve(a, b))
solve_positive = one_at_a_time(lambda a, b: jax.scipy.linalg.solve(a, b, assume_a="pos"))
qr = one_at_a_time(lambda a: tuple(jnp.linalg.qr(a)))
triangular_factor = one_at_a_time(lambda a: jnp.linalg.qr(a, mode="r"))
solve_lower = one_at_a_time(lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True))
