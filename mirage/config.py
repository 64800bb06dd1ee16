"""Configs: Hydra composes them, this module checks them and builds the objects they name.

Schemas are read off the constructors of the options (`Option.settings`), so an option and its
schema cannot disagree. `+key=value` goes past Hydra's schema; `build` looks for such keys.
"""

import contextlib
import dataclasses
import difflib
import importlib.util
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from mirage.experiments.experiment import GROUPS, SAMPLES, Experiment
from mirage.experiments.search import Search
from mirage.experiments.tune import Tune
from mirage.options import Option
from mirage.runtime import Runtime

OPTION_GROUPS: dict[str, type[Option]] = {
    **GROUPS,
    "runtime": Runtime,
    "search": Search,
    "tune": Tune,
}
# Groups of which a config need not name an option.
OPTIONAL_GROUPS = ("search", "tune")
# Groups whose files set keys at the top level instead of naming a class.
FILE_GROUPS = ("samples", "experiment")
# Keys whose value is a mapping that an override replaces, where Hydra would merge the two.
MAPPING_KEYS = ("tune.settings", "tune.within")
# Keys whose value is a formula, quoted for Hydra's grammar where the user did not.
FORMULA_KEYS = ("target.expr", "loss.transform")


class ConfigError(ValueError):
    """A mistake in a config, in one or two lines: the key, the value, what is accepted."""


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
    save_weights: bool = False
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
    search: Any = None
    tune: Any = None
    runtime: Any = None


def folder(name: str) -> Path:
    """The folder `conf` or `sweeps`: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside, beside = package / name, package.parent / name
    return inside if inside.is_dir() else beside


def schema(option: type[Option]) -> type:
    """A dataclass with the option's settings, typed as far as OmegaConf can check them."""
    fields: list[tuple[str, Any, Any]] = [
        ("name", str, dataclasses.field(default=option.name())),
    ]
    for key, parameter in option.settings().items():
        kind = parameter.annotation if _checkable(parameter.annotation) else Any
        fields.append((key, kind, dataclasses.field(default_factory=_constant(parameter.default))))
    return dataclasses.make_dataclass(f"{option.__name__}Config", fields)


def _constant(value: Any):
    if value is inspect.Parameter.empty:
        value = "???"
    listed = _listed(value)
    return lambda: listed


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def _checkable(kind: Any) -> bool:
    simple = (int, float, bool, str)
    if isinstance(kind, types.UnionType):
        rest = [k for k in typing.get_args(kind) if k is not type(None)]
        return len(rest) == 1 and rest[0] in simple
    return kind in simple


def register() -> None:
    """Make schemas, options without a file of their own, and named sweeps known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    conf = folder("conf")
    for group, base in OPTION_GROUPS.items():
        for name, option in base.options().items():
            store.store(group=group, name=f"base_{name}", node=schema(option))
            if not (conf / group / f"{name}.yaml").exists():
                store.store(group=group, name=name, node=schema(option))
    for place in (folder("sweeps"), Path.cwd() / "sweeps"):
        for file in sorted(place.glob("*.yaml")) if place.is_dir() else []:
            # One broken file must not break every command, only the one that names it.
            with contextlib.suppress(yaml.YAMLError, OSError, ValueError):
                content = yaml.safe_load(file.read_text())
                store.store(group="sweep", name=file.stem, node=content, package="_global_")


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
            reason = f"{type(error).__name__}: {_first_line(error)}"
            raise ConfigError(f"plugins={path!r}: importing it raised {reason}") from error


def plugins_in(overrides: Iterable[str]) -> list[str]:
    """The files that `plugins=[...]` among the overrides names."""
    found = []
    for override in overrides:
        match = re.fullmatch(r"\+{0,2}plugins=\[?(.*?)\]?", override)
        if match:
            found += [p.strip().strip("'\"") for p in match[1].split(",") if p.strip()]
    return found


def prepare(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra wants them.

    Formulas are quoted; of `alpha`, `exponent` and `n` the one that is given takes the place of
    the one in the config, a search that of them all; `search.at_least` that of `at_most`; the
    settings and limits of a `tune` are replaced as a whole.
    """
    # Any setting may be varied, so that it is added where the config does not have it yet.
    ready = [re.sub(r"^vary\.", "++vary.", _quoted(override)) for override in overrides]
    dropped = [f"{group}=null" for group in OPTIONAL_GROUPS if f"{group}=null" in ready]
    ready = [f"~{o.removesuffix('=null')}" if o in dropped else o for o in ready]
    for key in MAPPING_KEYS:
        place = next((i for i, o in enumerate(ready) if o.startswith(f"{key}={{")), None)
        if place is not None:
            ready.insert(place, f"{key}=null")
    # An experiment's own settings of the group stay behind: the name says that it is not chosen.
    added = [f"++{o.removesuffix('=null')}.name=null" for o in dropped]
    keys = [o.split("=")[0].lstrip("+") for o in ready]
    if "search.at_least" in keys and "search.at_most" not in keys:
        added.append("search.at_most=null")
    if "search" in keys:
        added += [f"{kind}=null" for kind in SAMPLES if kind not in keys]
    given = {m[1] for o in ready if (m := re.match(r"\+{0,2}(alpha|exponent|n)=", o))}
    nulled = {
        o.split("=")[0].lstrip("+") for o in [*ready, *added] if re.fullmatch(r"\+{0,2}\w+=null", o)
    }
    if given - nulled:
        added += [f"{kind}=null" for kind in SAMPLES if kind not in given]
    # Next to an override of the user's: argparse takes overrides in one piece only.
    first = next((i for i, o in enumerate(ready) if re.match(r"[+~\w]", o) and "=" in o), -1)
    return [*ready[: first + 1], *added, *ready[first + 1 :]]


def _quoted(override: str) -> str:
    match = re.fullmatch(r"(\+{0,2}([\w.]+))=(.+)", override, re.DOTALL)
    if not match or match[2] not in FORMULA_KEYS:
        return override
    key, value = match[1], match[3].strip()
    if value[0] in "\"'" or re.match(r"(choice|range|interval|glob|sort|shuffle)\(", value):
        return override
    # Hydra takes a backslash as an escape only where a quote follows.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'{key}="{escaped}"'


def compose(*overrides: str, config_dir: str | None = None) -> Experiment:
    """The experiment that `python -m mirage OVERRIDES...` would run.

    `compose("+experiment=huber_vs_mse", "d=[200]", "loss.delta=2")`; `config_dir` is a folder
    with config groups of your own. Raises ConfigError for anything that cannot be run.
    """
    return build(compose_config(overrides, config_dir=config_dir))


def compose_config(overrides: Sequence[str], *, config_dir: str | None = None) -> DictConfig:
    """Compose a config without building it; ConfigError where Hydra refuses."""
    overrides = prepare(overrides)
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    import_plugins(plugins_in(overrides))
    register()
    _check_choices(overrides, config_dir)
    if config_dir is not None:
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    try:
        with initialize_config_dir(str(folder("conf")), version_base="1.3", job_name="mirage"):
            return hydra_compose("config", overrides=list(overrides))
    except Exception as error:  # Hydra, OmegaConf and YAML each raise families of their own
        raise ConfigError(explain(error)) from error


def _check_choices(overrides: Sequence[str], config_dir: str | None) -> None:
    """Refuse unknown groups and options with a better message than Hydra's."""
    for override in overrides:
        match = re.fullmatch(r"(\+{0,2})([\w/]+)=([\w,]+)", override)
        if not match or "/" in match[2]:
            continue
        plus, group, values = match.groups()
        keys = {f.name for f in dataclasses.fields(Config)} | {*FILE_GROUPS, "sweep"}
        if plus and group not in keys:
            raise ConfigError(f"{override}: unknown key {group!r}{_suggest(group, keys)}")
        if group in (*OPTION_GROUPS, *FILE_GROUPS, "sweep"):
            known = _choices(group, config_dir)
            known |= {"null"} if group in OPTIONAL_GROUPS else set()
            for value in values.split(","):
                if value not in known:
                    raise ConfigError(
                        f"{group}={value}: unknown option{_suggest(value, known)}; "
                        f"expected one of {', '.join(sorted(known))}"
                    )
                if group == "sweep":
                    _check_sweep(value)


def _check_sweep(name: str) -> None:
    """Refuse a sweep whose file is broken."""
    for place in (folder("sweeps"), Path.cwd() / "sweeps"):
        file = place / f"{name}.yaml"
        try:
            content = yaml.safe_load(file.read_text()) if file.is_file() else {}
        except (yaml.YAMLError, OSError, ValueError) as error:
            raise ConfigError(f"sweep={name}: {file} cannot be read: {explain(error)}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"sweep={name}: {file} holds no keys")


def _choices(group: str, config_dir: str | None) -> set[str]:
    places = [folder("conf") / group]
    if config_dir is not None:
        places.append(Path(config_dir) / group)
    if group == "sweep":
        places = [folder("sweeps"), Path.cwd() / "sweeps"]
    known = {file.stem for place in places if place.is_dir() for file in place.glob("*.yaml")}
    if group in OPTION_GROUPS:
        known |= set(OPTION_GROUPS[group].options())
    return known


def build(config: DictConfig) -> Experiment:
    """The experiment a composed config describes; ConfigError names what is wrong with it."""
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    known = {field.name for field in dataclasses.fields(Config)}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{_suggest(key, known)}")
    if not re.fullmatch(r"[\w.+-]+", values["name"]):
        raise ConfigError(f"name={values['name']!r}: expected letters, digits and . _ + - alone")
    import_plugins(values["plugins"])
    try:
        options: dict[str, Any] = {
            group: _option(group, values[group], group)
            for group in OPTION_GROUPS
            if group not in OPTIONAL_GROUPS or _chosen(values[group])
        }
        for group, listed in values["compare"].items():
            if listed is not None:
                options[group] = _compared(group, listed, values)
        return Experiment(
            **options,
            **{key: values[key] for key in ("d", *SAMPLES, "seeds", "root_seed")},
            vary=_varied(values["vary"]),
            save_weights=values["save_weights"],
            name=values["name"],
            config=OmegaConf.to_yaml(config, resolve=True),
        )
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def _chosen(node: Any) -> bool:
    """Whether an optional group has an option, and not none or `name: null`."""
    return node is not None and not (isinstance(node, Mapping) and node.get("name", "") is None)


def _option(group: str, node: Any, where: str) -> Option:
    """Build the option that a config node names."""
    if not isinstance(node, Mapping) or "name" not in node:
        raise ConfigError(f"{where}={node!r}: expected an option of the group {group!r}")
    settings = {str(k): v for k, v in node.items() if k != "name"}
    known = OPTION_GROUPS[group].options()
    if node["name"] not in known:
        raise ConfigError(
            f"{where}={node['name']}: unknown option{_suggest(str(node['name']), known)}; "
            f"expected one of {', '.join(known)}"
        )
    option = known[node["name"]]
    for key in settings:
        if key not in option.settings():
            accepted = ", ".join(option.settings()) or "no settings"
            raise ConfigError(
                f"{where}.{key}: {group}={node['name']} has no such setting; it has {accepted}"
            )
    for key, value in settings.items():
        _check_type(f"{where}.{key}", value, option.settings()[key].annotation)
    return option(**settings)


def _check_type(key: str, value: Any, kind: Any) -> None:
    """What OmegaConf checks for settings that come through a schema, for those that do not."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if not _checkable(kind):
        return
    good = any(
        (k is type(None) and value is None)
        or (k is float and isinstance(value, int | float) and not isinstance(value, bool))
        or (k is int and isinstance(value, int) and not isinstance(value, bool))
        or (k in (bool, str) and isinstance(value, k))
        for k in kinds
    )
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if not good or (isinstance(value, float) and math.isnan(value)):
        expected = " or ".join(names.get(k, "null") for k in kinds)
        raise ConfigError(f"{key}={value!r}: expected {expected}")


def _compared(group: str, listed: Any, values: Mapping[str, Any]) -> dict[str, Option]:
    """The options that `compare.group` lists, by name.

    An entry is an option's name or {name: ..., setting: ...}. One that names the option chosen
    for the group itself takes over its settings, so that `loss.delta=2` reaches it.
    """
    if group not in GROUPS:
        raise ConfigError(
            f"compare.{group}: unknown group{_suggest(group, GROUPS)}; "
            f"expected one of {', '.join(GROUPS)}"
        )
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"compare.{group}={listed!r}: expected a list of options to compare")
    options: dict[str, Option] = {}
    for entry in listed:
        changed = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        name = changed.get("name")
        base = values[group] if values[group].get("name") == name else {}
        label = str(name)
        if len(changed) > 1:
            inside = ", ".join(f"{k}={v}" for k, v in changed.items() if k != "name")
            label = f"{name}({inside})"
        if label in options:
            raise ConfigError(f"compare.{group}: {label} is listed twice")
        options[label] = _option(group, {**base, **changed}, f"compare.{group}")
    return options


def _varied(vary: Mapping[str, Any]) -> dict[str, list[Any]]:
    """`{group: {setting: [values]}}` as `{"group.setting": [values]}`."""
    varied = {}
    for group, settings in vary.items():
        if group not in GROUPS:
            raise ConfigError(
                f"vary.{group}: unknown group{_suggest(group, GROUPS)}; "
                f"expected one of {', '.join(GROUPS)}"
            )
        if not isinstance(settings, Mapping):
            raise ConfigError(f"vary.{group}={settings!r}: expected {{setting: [values]}}")
        for setting, values in settings.items():
            if not isinstance(values, list):
                raise ConfigError(f"vary.{group}.{setting}={values!r}: expected a list of values")
            varied[f"{group}.{setting}"] = values
    return varied


def explain(error: BaseException) -> str:
    """An error of Hydra, OmegaConf or YAML in one or two lines that a user can act on."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    for cause in chain:
        if isinstance(cause, yaml.YAMLError):
            mark = getattr(cause, "problem_mark", None)
            where = f"{mark.name}, line {mark.line + 1}" if mark else "a config file"
            return f"{where}: broken YAML: {getattr(cause, 'problem', None) or _first_line(cause)}"
    text = "\n".join(str(cause) for cause in chain)
    if unknown := re.search(r"Could not override '([\w./@+]+)'", text):
        key = unknown[1]
        head, known = key.split(".")[0], {f.name for f in dataclasses.fields(Config)}
        if head in known:
            return f"unknown key {key!r}: no such setting in the chosen {head}"
        return f"unknown key {key!r}{_suggest(head, known)}"
    if wrong := re.search(r"Error merging override (.+)", text):
        kind = re.search(r"could not be converted to (\w+)|is not a valid (\w+)", text)
        words = {"Float": "a number", "Integer": "a whole number", "bool": "true or false"}
        name = (kind[1] or kind[2]) if kind else ""
        expected = words.get(name, f"a {name.lower()}") if name else ""
        return f"{wrong[1]}: " + (f"expected {expected}" if name else _first_line(chain[-1]))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    drop = ("full_key:", "object_type=", "reference_type=", "See https", "To append")
    return " ".join([line for line in lines if not line.startswith(drop)][:3])[:400]


def _suggest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
