"""Gram matrices of Gaussian vectors, drawn without the vectors: the cost knows no dimension."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

# The smallest uniform number: half a step of float32's 2^-23.
SMALLEST = 2.0**-24


def chi_square(
    key: Key[Array, ""], freedom: np.ndarray | int, shape: tuple[int, ...]
) -> Float[Array, "*shape"]:
    """χ² with so many degrees of freedom, whole numbers ≥ 0 that broadcast to `shape`.

    Twice a Gamma variable of shape a = freedom/2, by Marsaglia and Tsang (2000): a cube of a
    normal number, drawn anew for all until every one is accepted, which at large a is at once.
    For a < 1 it is that of a + 1 times U^(1/a).
    """
    freedom = np.broadcast_to(np.asarray(freedom, np.float64), shape)
    a = freedom / 2
    raised = np.where(a < 1, a + 1, a)
    c = 1 / np.sqrt(9 * (raised - 1 / 3))
    rest, c = (jnp.asarray(v, jnp.float32) for v in (raised - 1 / 3, c))

    def unfinished(carry):
        return ~carry[1].all()

    def again(carry):
        count, done, value = carry
        # One drawing for both: calls of the generator take long to compile.
        both = jax.random.uniform(
            jax.random.fold_in(key, count), (2, *shape), jnp.float32, minval=SMALLEST
        )
        x, log_u = jax.scipy.special.ndtri(both[0]), jnp.log(both[1])
        t = jnp.maximum(c * x, -1 + 1e-7)  # v = (1 + t)³
        more = t * (3 + t * (3 + t))  # v − 1
        # v − 1 − log v; at large a, t is small and the difference would cancel.
        series = t**2 * (4.5 + t**2 * (0.75 - 0.6 * t))
        excess = jnp.where(jnp.abs(t) < 0.03, series, more - 3 * jnp.log1p(t))
        good = (t > -1 + 2e-7) & (log_u < x**2 / 2 - rest * excess)
        value = jnp.where(done, value, rest * (1 + more))
        return count + 1, done | good, value

    start = (jnp.zeros((), jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))
    value = jax.lax.while_loop(unfinished, again, start)[2]
    if (a < 1).any():
        power = np.divide(1, a, out=np.zeros(shape), where=a > 0)
        key_power = jax.random.fold_in(key, 2**31)
        uniform = jax.random.uniform(key_power, shape, jnp.float32, minval=SMALLEST)
        small = jnp.exp(jnp.log(uniform) * jnp.asarray(power, jnp.float32))
        value = jnp.where(a < 1, jnp.where(a > 0, value * small, 0), value)
    return 2 * value


def wishart_root(
    key: Key[Array, ""], *, size: int, freedom: int, count: int
) -> Float[Array, "count size size"]:
    """T, lower triangular, with T Tᵀ the Gram matrix of `size` vectors N(0, I_freedom).

    Bartlett (1933): T_ii² is χ² with freedom − i degrees, i = 0, 1, ..., and what lies below is
    N(0, 1). With fewer dimensions than vectors the columns beyond are zero. `count` of them.
    """
    key_diagonal, key_below = jax.random.split(key)
    degrees = np.maximum(freedom - np.arange(size), 0)
    diagonal = jnp.sqrt(chi_square(key_diagonal, degrees, (count, size)))
    if size == 1:
        return diagonal[:, :, None]
    below = jax.random.normal(key_below, (count, size, size), jnp.float32)
    kept = np.tril(np.ones((size, size)), -1) * (degrees > 0)
    return below * jnp.asarray(kept[None], jnp.float32) + diagonal[:, :, None] * jnp.eye(size)[None]
