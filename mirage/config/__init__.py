"""Configs: Hydra composes them, this package checks them and builds the objects they name."""

from mirage.config.build import build, build_all, build_options
from mirage.config.composition import compose_config
from mirage.config.errors import ConfigError
from mirage.experiments.experiment import Experiment

__all__ = ["ConfigError", "build", "build_all", "build_options", "compose", "compose_config"]


def compose(*overrides: str, config_dir: str | None = None) -> Experiment | dict[str, Experiment]:
    """The experiment that `python -m mirage OVERRIDES...` would run; those of its parts by name.

    `compose("+experiment=huber_vs_mse", "d=[200]", "loss.delta=2")`; `config_dir` is a folder
    with config groups of your own. Raises ConfigError for anything that cannot be run.
    """
    every = build_all(compose_config(overrides, config_dir=config_dir))
    return every[""] if list(every) == [""] else every
