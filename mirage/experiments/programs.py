"""Compiled programs, of which the last are kept for whoever asks for the same again.

As a notebook does that runs an experiment with other numbers, or a sweep whose jobs share a
process: tracing and compiling take seconds, and are the same for any seed, step size or noise.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax

from mirage.runtime import compiler_options, release_memory

# How many are kept: each holds a few megabytes.
MOST = 16
# What else of JAX's settings a program depends on.
SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision")
_kept: OrderedDict[Any, Any] = OrderedDict()


def compiled(identity: Any, function: Callable[..., Any], arguments: tuple[Any, ...]):
    """The function compiled for arguments of these shapes, and whether it was now.

    `identity` says what the function does with them: those of equal identity are one. Where it
    cannot be compared the program is not kept.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((a.shape, a.dtype, getattr(a, "sharding", None)) for a in leaves)
    settings = [getattr(jax.config, name) for name in SETTINGS]
    key = (identity, structure, shapes, *settings)
    try:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key], False
    except TypeError:  # a setting without a hash
        key = None
    program = jax.jit(function).lower(*arguments).compile(compiler_options())
    release_memory()
    if key is not None:
        _kept[key] = program
        if len(_kept) > MOST:
            _kept.popitem(last=False)
    return program, True


def forget() -> None:
    """Keep none of them any longer."""
    _kept.clear()
