"""Puts the page of every experiment into the site's navigation."""

from pathlib import Path


def on_config(config):
    """Called by MkDocs when it has read `mkdocs.yml`."""
    names = sorted(file.stem for file in Path("conf/experiment").glob("*.yaml"))
    pages = ["experiments/index.md", *({name: f"experiments/{name}.md"} for name in names)]
    config.nav = [{"Experiments": pages} if "Experiments" in one else one for one in config.nav]
    return config
