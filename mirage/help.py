"""What `python -m mirage --help` prints, from the config files alone: without loading JAX."""

import textwrap
from pathlib import Path

import yaml

from mirage.folders import folder

WIDTH = 100


def page() -> str:
    """The commands, every group with its options, and the top-level config."""
    conf = folder("conf")
    config = (conf / "config.yaml").read_text()
    words = yaml.safe_load(config)["hydra"]["help"]
    own = config[: config.index("\nhydra:")]
    text = words["template"].replace("${hydra.help.header}", words["header"])
    text = text.replace("$APP_CONFIG_GROUPS", "\n".join(_groups(conf)))
    return text.replace("$CONFIG", own.strip() + "\n")


def _groups(conf: Path) -> list[str]:
    """`group: option, option`, folded; the sweeps of the working directory too."""
    options = {
        place.name: {file.stem for file in place.glob("*.yaml")}
        for place in sorted(conf.iterdir())
        if place.is_dir() and place.name != "hydra"
    }
    sweeps = (folder("sweeps"), Path.cwd() / "sweeps")
    options["sweep"] = {file.stem for place in sweeps for file in place.glob("*.yaml")}
    return [
        textwrap.fill(f"{group}: {', '.join(sorted(names))}", WIDTH, subsequent_indent="  ")
        for group, names in sorted(options.items())
    ]
