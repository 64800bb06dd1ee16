"""Options: the classes a user can name, found by being subclasses.

A file that defines `class Huber(Loss)` has thereby defined the option `loss=huber`;
nothing else needs to know about it.
"""

import abc
import dataclasses
import inspect
import math
import re
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

# A numerical setting: given as a number, and traced where setups share one compiled function.
Number = float | Float[Array, ""]


def require(condition: bool, key: str, value: object, accepted: str) -> None:
    """Raise the one `ValueError` of a static mistake: the key, its value, what is accepted."""
    if not condition:
        raise ValueError(f"{key}={value!r}: {accepted}")


class Option(eqx.Module):
    """Base of everything that a config group can name: immutable, its fields are the settings."""

    group: ClassVar[str] = "option"

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
