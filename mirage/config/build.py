"""A composed config in, the objects it names out.

`+key=value` goes past Hydra's schema; `build` looks for such keys.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mirage.config.errors import ConfigError, suggest
from mirage.config.plugins import check_named
from mirage.config.schema import KEYS, OPTION_GROUPS, OPTIONAL_GROUPS
from mirage.experiments.experiment import GROUPS, SAMPLES, Experiment
from mirage.measures import Measure
from mirage.options import Option

MEASURES = Measure.group


def build_all(config: DictConfig) -> dict[str, Experiment]:
    """The experiment of every part of a composed config, by name; one, named "", without parts.

    A part is the config with some of its keys changed; one that names another option of a
    group takes that with its own settings alone.
    """
    if not config.parts:
        return {"": build(config)}
    found = {}
    for name, changes in config.parts.items():
        if not isinstance(changes, Mapping | DictConfig):
            raise ConfigError(f"parts.{name}={changes!r}: expected keys of the config to change")
        part = config.copy()
        part.parts = {}
        for key, value in changes.items():
            if key not in KEYS:
                raise ConfigError(f"parts.{name}.{key}: unknown key{suggest(str(key), KEYS)}")
            other = isinstance(value, DictConfig) and "name" in value
            merged = value if other or not isinstance(value, DictConfig) else None
            OmegaConf.set_struct(part, False)
            part[key] = OmegaConf.merge(part[key] or {}, value) if merged is None else merged
        try:
            found[str(name)] = build(part)
        except ConfigError as error:
            raise ConfigError(f"parts.{name}: {error}") from error
    return found


def build(config: DictConfig) -> Experiment:
    """The experiment a composed config describes; ConfigError names what is wrong with it."""
    values = _checked(config)
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
            simulate=values["simulate"],
            save_weights=values["save_weights"],
            measures=[_measure(entry) for entry in values["measures"]],
            name=values["name"],
            config=OmegaConf.to_yaml(config, resolve=True),
        )
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def build_options(config: DictConfig, groups: Sequence[str]) -> dict[str, Any]:
    """The options a composed config names in some groups; ConfigError as for `build`."""
    for group in groups:
        if group not in OPTION_GROUPS:
            accepted = f"expected some of {', '.join(OPTION_GROUPS)}"
            raise ConfigError(f"groups={group!r}: {accepted}{suggest(str(group), OPTION_GROUPS)}")
    values = _checked(config)
    try:
        return {group: _option(group, values[group], group) for group in groups}
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def _checked(config: DictConfig) -> dict[str, Any]:
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"unknown key {key!r}{suggest(key, KEYS)}")
    if not re.fullmatch(r"[\w.+-]+", values["name"]):
        raise ConfigError(f"name={values['name']!r}: expected letters, digits and . _ + - alone")
    check_named(values["plugins"])
    return values


def _chosen(node: Any) -> bool:
    """Whether an optional group has an option, and not none or `name: null`."""
    return node is not None and not (isinstance(node, Mapping) and node.get("name", "") is None)


def _option(group: str, node: Any, where: str) -> Option:
    """Build the option that a config node names."""
    if not isinstance(node, Mapping) or "name" not in node:
        raise ConfigError(f"{where}={node!r}: expected an option of the group {group!r}")
    settings = {str(k): v for k, v in node.items() if k != "name"}
    known = {**OPTION_GROUPS, MEASURES: Measure}[group].options()
    if node["name"] not in known:
        raise ConfigError(
            f"{where}={node['name']}: unknown option{suggest(str(node['name']), known)}; "
            f"expected one of {', '.join(known) or 'none: a file of plugins defines them'}"
        )
    option = known[node["name"]]
    for key in settings:
        if key not in option.settings():
            accepted = ", ".join(option.settings()) or "no settings"
            raise ConfigError(
                f"{where}.{key}: {group}={node['name']} has no such setting; it has {accepted}"
            )
    return option(**settings)


def _measure(entry: Any) -> Any:
    """A measure that `measures` lists, by its name or with settings as {name: ..., key: ...}."""
    return _option(MEASURES, entry if isinstance(entry, Mapping) else {"name": entry}, MEASURES)


def _compared(group: str, listed: Any, values: Mapping[str, Any]) -> dict[str, Option]:
    """The options that `compare.group` lists, by name.

    An entry is an option's name or {name: ..., setting: ...}. One that names the option chosen
    for the group itself takes over its settings, so that `loss.delta=2` reaches it.
    """
    if group not in GROUPS:
        raise ConfigError(
            f"compare.{group}: unknown group{suggest(group, GROUPS)}; "
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
                f"vary.{group}: unknown group{suggest(group, GROUPS)}; "
                f"expected one of {', '.join(GROUPS)}"
            )
        if not isinstance(settings, Mapping):
            raise ConfigError(f"vary.{group}={settings!r}: expected {{setting: [values]}}")
        for setting, values in settings.items():
            if not isinstance(values, list):
                raise ConfigError(f"vary.{group}.{setting}={values!r}: expected a list of values")
            varied[f"{group}.{setting}"] = values
    return varied
