"""Targets and labels at many points, in float64: one compilation a target, whatever the shape."""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from mirage import threefry
from mirage.precision import double_precision
from mirage.targets.base import Target

BLOCK = 2**16
SMALL = 2**10


def values(target: Target, h: Float[np.ndarray, "*batch r"]) -> Float[np.ndarray, "*batch"]:
    """g(h) = E[y | h]."""
    return _in_blocks(lambda block, _: _values(target, block), h)[..., 0]


def labels(
    target: Target, h: Float[np.ndarray, "*batch r"], *, seed: int
) -> Float[np.ndarray, "*batch"]:
    """A label for each h; the same seed and shape give the same noise."""
    key = np.array([0, seed], np.uint32)

    def draw(block, place):
        return _labels(target, threefry.fold_in(key, np.array(place, np.uint32)), block)

    return _in_blocks(draw, h)[..., 0]


def gradients(target: Target, h: Float[np.ndarray, "*batch r"]) -> Float[np.ndarray, "*batch r"]:
    """∇g(h)."""
    return _in_blocks(lambda block, _: _gradients(target, block), h)


def _in_blocks(function: Callable, h: np.ndarray) -> np.ndarray:
    """A function of (points, place) at all points; blocks are filled up to one of two sizes."""
    flat = np.asarray(h, np.float64).reshape(-1, h.shape[-1])
    size = SMALL if len(flat) <= SMALL else BLOCK
    parts = []
    with double_precision():
        for place in range(0, len(flat), size):
            block = flat[place : place + size]
            filled = np.concatenate([block, np.repeat(block[:1], size - len(block), axis=0)])
            parts.append(np.asarray(function(jax.device_put(filled), place))[: len(block)])
    result = np.concatenate(parts) if parts else np.zeros((0, 1))
    return result.reshape(*h.shape[:-1], result.shape[-1])


@eqx.filter_jit
def _values(target, block):
    return target(block)[:, None]


@eqx.filter_jit
def _labels(target, key_data, block):
    return target.draw(jax.random.wrap_key_data(key_data), block)[:, None]


@eqx.filter_jit
def _gradients(target, block):
    return jax.vmap(jax.grad(target))(block)
