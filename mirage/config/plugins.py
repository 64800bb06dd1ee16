"""A user's own files, whose option classes are then options like any other."""

import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from mirage.config.errors import ConfigError, first_line


def import_plugins(paths: Iterable[str]) -> None:
    """Import a user's own files, whose option classes are then options like any other."""
    for path in paths:
        file = Path(path).expanduser().resolve()
        name = f"mirage_plugin_{file.stem}_{abs(hash(str(file))):x}"
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


def plugins_in(overrides: Iterable[str]) -> list[str]:
    """The files that `plugins=[...]` among the overrides names."""
    found = []
    for override in overrides:
        match = re.fullmatch(r"\+{0,2}plugins=\[?(.*?)\]?", override)
        if match:
            found += [p.strip().strip("'\"") for p in match[1].split(",") if p.strip()]
    return found
