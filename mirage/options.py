"""Options: the classes a user can name, found by being subclasses.

A file that defines `class Huber(Loss)` has thereby defined the option `loss=huber`;
nothing else needs to know about it.
"""

import abc
import dataclasses
import inspect
import math
import numbers
import re
import types
import typing
from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

# A numerical setting: given as a number, and traced where setups share one compiled function.
Number = float | Float[Array, ""]
# Letters of a value that a message shows.
SHOWN = 200
# Whole numbers beyond what a register holds are none of a setting.
LARGEST = 2**63
# The simple types of settings, as a user would call them.
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def require(condition: bool, key: str, value: object, accepted: str) -> None:
    """Raise the one `ValueError` of a static mistake: the key, its value, what is accepted."""
    if not condition:
        shown = " ".join(repr(value).split())
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
        raise ValueError(f"{key}={shown}: {accepted}")


def checkable(kind: Any) -> bool:
    """Whether values of this kind can be checked: a simple type, or one and None."""
    if isinstance(kind, types.UnionType):
        rest = [k for k in typing.get_args(kind) if k is not type(None)]
        return len(rest) == 1 and rest[0] in KINDS
    return kind in KINDS


def check_type(key: str, value: Any, kind: Any) -> None:
    """ValueError unless a value is of a kind that is `checkable`; of numbers NaN is none."""
    if not checkable(kind):
        return
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    expected = " or ".join(KINDS.get(k, "null") for k in kinds)
    require(any(_is_a(value, k) for k in kinds), key, value, f"expected {expected}")


def _is_a(value: Any, kind: type) -> bool:
    if kind not in (int, float):
        return isinstance(value, kind)
    if kind is float and isinstance(value, float | jax.Array):
        return isinstance(value, jax.Array) or not math.isnan(value)
    number = isinstance(value, numbers.Integral if kind is int else numbers.Real)
    small = number and abs(value) < LARGEST  # type: ignore[operator]
    return small and not isinstance(value, bool)


class Option(eqx.Module):
    """Base of everything that a config group can name: immutable, its fields are the settings."""

    group: ClassVar[str] = "option"

    def __new__(cls, *args: Any, **settings: Any):
        """ValueError names a setting of another type than it is declared with."""
        signature = inspect.signature(cls)
        for key, value in signature.bind_partial(*args, **settings).arguments.items():
            check_type(f"{cls.group}.{key}", value, signature.parameters[key].annotation)
        return super().__new__(cls)

    def __check_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                self.check(field.name, math.isfinite(value), "expected a finite number")

    def check(self, field: str, condition: bool, accepted: str) -> None:
        """Raise ValueError, naming `group.field` and its value, unless the condition holds."""
        require(condition, f"{self.group}.{field}", getattr(self, field), accepted)

    @classmethod
    def name(cls) -> str:
        """The option as a user types it: the class name in snake case (`phase_retrieval`)."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def options(cls) -> dict[str, type["Option"]]:
        """All concrete subclasses by name, those of a user's own files included."""
        found: dict[str, type[Option]] = {}
        for sub in cls.__subclasses__():
            if abc.ABC not in sub.__bases__:
                found[sub.name()] = sub
            found.update(sub.options())
        return dict(sorted(found.items()))

    @classmethod
    def settings(cls) -> dict[str, inspect.Parameter]:
        """The keyword arguments of the constructor, which are what a config may set, by name."""
        return dict(inspect.signature(cls).parameters)
