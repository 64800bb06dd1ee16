"""Where the config files are."""

from pathlib import Path


def folder(name: str) -> Path:
    """The folder `conf` or `sweeps`: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside, beside = package / name, package.parent / name
    return inside if inside.is_dir() else beside
