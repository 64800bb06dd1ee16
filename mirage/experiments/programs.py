"""Compiled programs, of which the last are kept for whoever asks for the same again.

As a notebook does that runs an experiment with other numbers, or a sweep whose jobs share a
process: tracing and compiling take seconds, and are the same for any seed, step size or noise.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mirage.runtime import compiler_options, release_memory

# How many are kept: each holds a few megabytes.
MOST = 16
# What else of JAX's settings a program depends on.
SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision")
_kept: OrderedDict[Any, Any] = OrderedDict()


def compiled(
    identity: Any, settings: Any, function: Callable[..., Any], arguments: tuple
) -> tuple[Any, bool]:
    """The function compiled for arguments of these shapes, and whether it was now.

    It is a function of the identity and the settings, such as modules, alone. Where these are of
    the user's own classes it is not kept: what they call may change while they stay the same.
    """
    key = None
    if _ours(settings):
        shapes = [
            (a.shape, a.dtype, getattr(a, "sharding", None)) for a in jax.tree.leaves(arguments)
        ]
        of_jax = [getattr(jax.config, name) for name in SETTINGS]
        leaves, structure = jax.tree.flatten(settings)
        key = (identity, structure, *leaves, jax.tree.structure(arguments), *shapes, *of_jax)
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key], False
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


def _ours(settings: Any) -> bool:
    """Whether settings are this package's modules, and plain values, all through."""
    if dataclasses.is_dataclass(settings):
        parts = [getattr(settings, field.name) for field in dataclasses.fields(settings)]
        return type(settings).__module__.startswith("mirage.") and all(map(_ours, parts))
    if isinstance(settings, tuple):
        return all(map(_ours, settings))
    return settings is None or isinstance(settings, bool | int | float | str | np.number)
