"""What a config may make Hydra call: classes of Hydra, its launchers and of logging alone."""

from collections.abc import Iterator
from typing import Any

from mirage.config.errors import ConfigError

# Keys by which Hydra and `logging` are told of a class or a function, and what they may name.
CALLED = ("_target_", "()", "class")
MODULES = ("hydra._internal.core_plugins.", "hydra_plugins.", "mirage.")
CLASSES = (
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.Formatter",
    "logging.handlers.RotatingFileHandler",
    "colorlog.ColoredFormatter",
)
# `logging` imports what such a value names.
IMPORTED, STREAMS = "ext://", ("ext://sys.stdout", "ext://sys.stderr")


def check_called(node: Any) -> None:
    """ConfigError where a node of Hydra's settings would call or import anything else.

    Without this whoever writes a config that you run could have Hydra run any code.
    """
    for where, value in _called(node, "hydra"):
        if not (value.startswith(MODULES) or value in (*CLASSES, *STREAMS)):
            raise ConfigError(
                f"{where}={value!r}: this would run code that mirage does not know; expected a "
                "launcher or sweeper of Hydra (your own code goes into plugins=[FILE])"
            )


def _called(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in CALLED:
                yield f"{where}.{key}", str(value)
            else:
                yield from _called(value, f"{where}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _called(value, f"{where}[{i}]")
    elif isinstance(node, str) and node.startswith(IMPORTED):
        yield where, node
