"""What a config may make Hydra call and start, which is no code of a stranger's."""

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

# Keys whose values reach a shell, or the environment, of the processes that Hydra starts.
COMMANDS = ("setup", "srun_args", "additional_parameters", "runtime_env", "env_set")


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


def has_commands(node: Any) -> bool:
    """Whether a node of Hydra's settings has commands or an environment for jobs."""
    return any(True for _ in _commands(node, "hydra"))


def check_said(node: Any, said: Any) -> None:
    """ConfigError where commands or an environment for jobs are not those that the user `said`.

    `said` is Hydra's node of what the command line says of Hydra and of the runtime alone, without
    experiment and sweep. Such commands run as they stand, as the lines of a Slurm job do.
    """
    known = dict(_commands(said, "hydra"))
    for where, value in _commands(node, "hydra"):
        if known.get(where) != value:
            raise ConfigError(
                f"{where}={value!r}: a config file has commands for jobs, which are not run unless "
                f"you say so; expected {where}=... or a launcher of yours on the command line"
            )


def _commands(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if value and (key in COMMANDS or key.endswith("_commands")):
                yield f"{where}.{key}", value
            else:
                yield from _commands(value, f"{where}.{key}")
    elif isinstance(node, str) and "\n" in node and where.startswith("hydra.launcher."):
        yield where, node  # more than one line of a script


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
