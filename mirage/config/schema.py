"""The shape of a config, and what Hydra knows of it.

Schemas are read off the constructors of the options (`Option.settings`), so an option and its
schema cannot disagree.
"""

import contextlib
import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mirage.experiments.experiment import GROUPS
from mirage.experiments.search import Search
from mirage.experiments.theory import Theory
from mirage.experiments.tune import Tune
from mirage.folders import folder
from mirage.options import Option, checkable
from mirage.runtime import Runtime

OPTION_GROUPS: dict[str, type[Option]] = {
    **GROUPS,
    "runtime": Runtime,
    "search": Search,
    "tune": Tune,
    "theory": Theory,
}
# Groups of which a config need not name an option.
OPTIONAL_GROUPS = ("search", "tune", "theory")
# Groups whose files set keys at the top level instead of naming a class.
FILE_GROUPS = ("samples", "experiment")


@dataclasses.dataclass
class Compare:
    """For each group, the options to run side by side."""

    target: Any = None
    loss: Any = None
    activation: Any = None
    network: Any = None
    algorithm: Any = None
    design: Any = None
    inputs: Any = None
    directions: Any = None


@dataclasses.dataclass
class Config:
    """The top level of a composed config."""

    name: str = "recovery"
    d: Any = 200
    alpha: Any = None
    exponent: Any = None
    n: Any = None
    seeds: int = 10
    root_seed: int = 0
    compare: Compare = dataclasses.field(default_factory=Compare)
    figure: str = "recovery"
    simulate: bool = True
    save_weights: bool = False
    measures: list[Any] = dataclasses.field(default_factory=list)
    plugins: list[str] = dataclasses.field(default_factory=list)
    target: Any = None
    loss: Any = None
    activation: Any = None
    network: Any = None
    algorithm: Any = None
    design: Any = None
    inputs: Any = None
    directions: Any = None
    vary: dict[str, Any] = dataclasses.field(default_factory=dict)
    parts: dict[str, Any] = dataclasses.field(default_factory=dict)
    search: Any = None
    tune: Any = None
    theory: Any = None
    runtime: Any = None


KEYS = tuple(field.name for field in dataclasses.fields(Config))


@functools.cache
def schema(option: type[Option]) -> type:
    """A dataclass with the option's settings, typed as far as OmegaConf can check them."""
    fields: list[tuple[str, Any, Any]] = [
        ("name", str, dataclasses.field(default=option.name())),
    ]
    for key, parameter in option.settings().items():
        kind = parameter.annotation if checkable(parameter.annotation) else Any
        fields.append((key, kind, dataclasses.field(default_factory=_constant(parameter.default))))
    return dataclasses.make_dataclass(f"{option.__name__}Config", fields)


def _constant(value: Any):
    if value is inspect.Parameter.empty:
        value = "???"
    listed = _listed(value)
    return lambda: listed


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def register() -> None:
    """Make schemas, options without a file of their own, and named sweeps known to Hydra."""
    store = ConfigStore.instance()
    if "schema.yaml" not in store.repo:
        store.store(name="schema", node=Config)
    conf = folder("conf")
    for group, base in OPTION_GROUPS.items():
        known = store.repo.get(group, {})
        for name, option in base.options().items():
            held = known.get(f"base_{name}.yaml")
            if held is not None and OmegaConf.get_type(held.node) is schema(option):
                continue  # there are ninety, and composing a config takes as long again
            store.store(group=group, name=f"base_{name}", node=schema(option))
            if not (conf / group / f"{name}.yaml").exists():
                store.store(group=group, name=name, node=schema(option))
    for place in (folder("sweeps"), Path.cwd() / "sweeps"):
        for file in sorted(place.glob("*.yaml")) if place.is_dir() else []:
            # One broken file must not break every command, only the one that names it.
            with contextlib.suppress(yaml.YAMLError, OSError, ValueError):
                content = _read(file, file.stat().st_mtime_ns)
                store.store(group="sweep", name=file.stem, node=content, package="_global_")


@functools.cache
def _read(file: Path, _changed: int) -> Any:
    return OmegaConf.create(yaml.safe_load(file.read_text()))
