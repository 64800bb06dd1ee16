"""A user's own files, whose option classes are then options like any other.

Their code runs because the user names them, on the command line or to `compose`; a config file
alone cannot have them run.
"""

import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from mirage.config.errors import ConfigError, first_line


def import_plugins(paths: Iterable[str]) -> None:
    """Import a user's own files, whose option classes are then options like any other."""
    for path in paths:
        file, name = _module(path)
        if name in sys.modules:
            continue
        if not file.is_file() or file.suffix != ".py":
            raise ConfigError(f"plugins={path!r}: expected the path of a Python file")
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ConfigError(f"plugins={path!r}: cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(f"plugins={path!r}: importing it raised {reason}") from error


def check_named(paths: Iterable[str]) -> None:
    """ConfigError where a config has plugins that nobody has named."""
    for path in paths:
        if _module(path)[1] not in sys.modules:
            raise ConfigError(
                f"plugins: a config file names {path!r}, whose code is not run unless you say so; "
                f"expected plugins=[{path}] on the command line if you trust it"
            )


def _module(path: str) -> tuple[Path, str]:
    """The file of a plugin and the name of its module."""
    file = Path(path).expanduser().resolve()
    return file, f"mirage_plugin_{file.stem}_{abs(hash(str(file))):x}"


def plugins_in(overrides: Iterable[str]) -> list[str]:
    """The files that `plugins=[...]` among the overrides names."""
    found = []
    for override in overrides:
        match = re.fullmatch(r"\+{0,2}plugins=\[?(.*?)\]?", override)
        if match:
            found += [p.strip().strip("'\"") for p in match[1].split(",") if p.strip()]
    return found
