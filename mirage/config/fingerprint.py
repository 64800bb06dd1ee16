"""What tells one run from another: all of a config that its numbers depend on."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Where and how fast a run goes, and how it is drawn: nothing that its numbers depend on.
OTHER = ("hydra", "runtime", "figure")
LENGTH = 10


def fingerprint(config: DictConfig) -> str:
    """Of the resolved config, the files that it names and the version of mirage."""
    keys = [str(key) for key in config if key not in OTHER]
    # The copy leaves `hydra` out, whose folders are made of the fingerprint.
    plain = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    files = {path: _content(path) for path in sorted(set(_paths(plain)))}
    return _digest([plain, files, version("mirage")])


def sweep_fingerprint(config: DictConfig, overrides: Iterable[str]) -> str:
    """Of the first job's config and of the overrides, which say what the other jobs are."""
    own = [one for one in overrides if "=" in one and not one.lstrip("+~").startswith(OTHER)]
    return _digest([fingerprint(config), sorted(own)])


def _paths(value: Any) -> Iterator[str]:
    """The plugins of a config, and what its keys `path` name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "plugins" and isinstance(inner, list):
                yield from map(str, inner)
            elif key == "path" and isinstance(inner, str):
                yield inner
            else:
                yield from _paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner)


def _content(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    except OSError:
        return ""


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _of_run(*, _root_: DictConfig) -> str:
    return fingerprint(_root_)


# So that configs can name folders by it, as `${fingerprint:}`. At import, as a worker of a launcher
# imports this and composes nothing itself.
OmegaConf.register_new_resolver("fingerprint", _of_run, replace=True)
