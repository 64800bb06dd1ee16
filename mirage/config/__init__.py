"""Configs: Hydra composes them, this package checks them and builds the objects they name."""

from mirage.config.build import build, build_options
from mirage.config.composition import compose_config
from mirage.config.errors import ConfigError
from mirage.experiments.experiment import Experiment

__all__ = ["ConfigError", "build", "build_options", "compose", "compose_config"]


def compose(*overrides: str, config_dir: str | None = None) -> Experiment:
    """The experiment that `python -m mirage OVERRIDES...` would run.

    `compose("+experiment=huber_vs_mse", "d=[200]", "loss.delta=2")`; `config_dir` is a folder
    with config groups of your own. Raises ConfigError for anything that cannot be run.
    """
    return build(compose_config(overrides, config_dir=config_dir))
