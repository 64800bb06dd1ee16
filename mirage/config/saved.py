"""`saved=PATH`: the config that a run left, one's own or someone else's, as an experiment."""

import hashlib
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from mirage.config.errors import ConfigError, explain, suggest
from mirage.config.plugins import plugins_in
from mirage.config.schema import KEYS, OPTION_GROUPS, OPTIONAL_GROUPS

PREFIX = "saved="
FILE, GROUP = "config.yaml", "experiment"


def restore(overrides: Sequence[str]) -> list[str]:
    """Every `saved=PATH` as an experiment that Hydra knows; what else is said changes it.

    PATH is a run folder or a file like its `config.yaml`, which is read as data. ConfigError
    where it is neither, or needs plugins that nobody has named.
    """
    named = bool(plugins_in(overrides))
    other = {one.split("=")[0] for one in overrides} & set(OPTION_GROUPS)
    return [
        f"+{GROUP}={_register(one, named=named, other=other)}" if one.startswith(PREFIX) else one
        for one in overrides
    ]


def _register(override: str, *, named: bool, other: Set[str]) -> str:
    """Make a saved config an experiment, and return its name.

    In the groups `other` the user chooses an option, whose settings are not those of the saved one.
    """
    path = Path(override.removeprefix(PREFIX)).expanduser()
    file = path / FILE if path.is_dir() else path
    accepted = f"expected the folder of a run or its {FILE}"
    try:
        text = file.read_text()
        content = yaml.safe_load(text)
    except (yaml.YAMLError, OSError, ValueError) as error:
        reason = explain(error, KEYS)
        raise ConfigError(f"{override}: cannot be read: {reason}; {accepted}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{override}: holds no keys; {accepted}")
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{override}: unknown key {key!r}{suggest(str(key), KEYS)}")
    if content.get("plugins") and not named:
        raise ConfigError(
            f"{override}: it needs the code in {content['plugins']}, which is not run unless you "
            "say so; expected plugins=[FILE] with files that you trust"
        )
    kept = {key: value for key, value in _kept(content).items() if key not in other}
    node = {"defaults": [*_chosen(content), "_self_"], **kept}
    name = f"saved_{hashlib.sha256(repr((text, sorted(other))).encode()).hexdigest()[:10]}"
    ConfigStore.instance().store(group=GROUP, name=name, node=node, package="_global_")
    return name


def restored() -> set[str]:
    """The experiments that are saved configs."""
    return {file.removesuffix(".yaml") for file in ConfigStore.instance().repo.get(GROUP, ())}


def _chosen(content: dict[str, Any]) -> list[dict[str, str]]:
    """The options that a config names, as a defaults list: their settings are checked."""
    names = {
        group: node["name"]
        for group in OPTION_GROUPS
        if isinstance(node := content.get(group), dict) and node.get("name") is not None
    }
    added = [{f"/{group}": name} for group, name in names.items() if group in OPTIONAL_GROUPS]
    other = {group: name for group, name in names.items() if group not in OPTIONAL_GROUPS}
    # Hydra wants the overrides of other choices last.
    return [*added, *({f"override /{group}": name} for group, name in other.items())]


def _kept(content: dict[str, Any]) -> dict[str, Any]:
    """All of a config but the optional groups it leaves out and the folders of its machine."""
    kept = {
        key: value
        for key, value in content.items()
        if key not in OPTIONAL_GROUPS or (isinstance(value, dict) and value.get("name"))
    }
    if isinstance(kept.get("runtime"), dict):
        kept["runtime"] = {k: v for k, v in kept["runtime"].items() if k != "compilation_cache"}
    return kept
