"""Overrides in, a composed config out."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from mirage.config.errors import ConfigError, explain, suggest
from mirage.config.overrides import prepare
from mirage.config.plugins import import_plugins, plugins_in
from mirage.config.saved import restored
from mirage.config.schema import (
    FILE_GROUPS,
    KEYS,
    OPTION_GROUPS,
    OPTIONAL_GROUPS,
    register,
)
from mirage.config.trust import check_called, check_said, has_commands
from mirage.folders import folder


def compose_config(overrides: Sequence[str], *, config_dir: str | None = None) -> DictConfig:
    """Compose a config without building it; ConfigError where Hydra refuses."""
    return compose_with_mode(overrides, config_dir=config_dir)[0]


def compose_with_mode(
    overrides: Sequence[str], *, config_dir: str | None = None
) -> tuple[DictConfig, RunMode | None]:
    """What `compose_config` gives, and `hydra.mode`: RUN or MULTIRUN where the config says it."""
    for override in overrides:
        if not isinstance(override, str):
            raise ConfigError(f"overrides={override!r}: expected text such as 'd=200'")
    overrides = prepare(overrides)
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    import_plugins(plugins_in(overrides))
    register()
    _check_choices(overrides, config_dir)
    if config_dir is not None:
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    config = _composed(overrides)
    check_called(_hydra(config))
    if has_commands(_hydra(config)):  # of the user's own, or of an experiment or a sweep
        said = [o for o in overrides if re.match(r"\+*(hydra[./]|runtime=)", o)]
        check_said(_hydra(config), _hydra(_composed(said)))
    mode = config.hydra.mode
    with open_dict(config):
        del config["hydra"]
    for key in KEYS:
        if key not in config and key not in OPTIONAL_GROUPS:
            raise ConfigError(f"~{key}: every config has this key; expected a value for it")
    return config, mode


def _composed(overrides: Sequence[str]) -> DictConfig:
    try:
        with initialize_config_dir(str(folder("conf")), version_base="1.3", job_name="mirage"):
            return hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
    except Exception as error:  # Hydra, OmegaConf and YAML each raise families of their own
        raise ConfigError(explain(error, KEYS)) from error


def _hydra(config: DictConfig) -> Any:
    return OmegaConf.to_container(config.hydra, resolve=False)


# Launchers that are optional extras: the plugin that each needs, and the extra that brings it.
LAUNCHERS = {
    "hydra/launcher=joblib": ("hydra_joblib_launcher", "joblib"),
    "hydra/launcher=submitit_local": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_slurm": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=slurm": ("hydra_submitit_launcher", "slurm"),
    "hydra/launcher=ray": ("hydra_ray_launcher", "ray"),
    "hydra/launcher=ray_tasks": ("hydra_ray_launcher", "ray"),
    "runtime=slurm": ("hydra_submitit_launcher", "slurm"),
    "runtime=ray": ("hydra_ray_launcher", "ray"),
}


def _check_launcher(override: str) -> None:
    """Say what to install where a launcher is missing."""
    plugin, extra = LAUNCHERS.get(override, ("", ""))
    try:
        found = not plugin or importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:  # no plugin of Hydra at all
        found = False
    if not found:
        raise ConfigError(f'{override}: not installed; expected pip install "mirage[{extra}]"')


def _check_choices(overrides: Sequence[str], config_dir: str | None) -> None:
    """Refuse unknown groups and options with a better message than Hydra's."""
    for override in overrides:
        _check_launcher(override)
        match = re.fullmatch(r"(\+{0,2})([\w/]+)=([\w,]+)", override)
        if not match or "/" in match[2]:
            continue
        plus, group, values = match.groups()
        keys = {*KEYS, *FILE_GROUPS, "sweep"}
        if plus and group not in keys:
            raise ConfigError(f"{override}: unknown key {group!r}{suggest(group, keys)}")
        if group in (*OPTION_GROUPS, *FILE_GROUPS, "sweep"):
            known = _choices(group, config_dir)
            known |= {"null"} if group in OPTIONAL_GROUPS else set()
            for value in values.split(","):
                if value not in known:
                    raise ConfigError(
                        f"{group}={value}: unknown option{suggest(value, known)}; "
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
            raise ConfigError(
                f"sweep={name}: {file} cannot be read: {explain(error, KEYS)}"
            ) from error
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
    if group == "experiment":
        known |= restored()
    return known
