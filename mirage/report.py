"""A page about a finished run or sweep: `python -m mirage.report DIR`."""

import argparse
import sys
from pathlib import Path

import matplotlib

from mirage import figures
from mirage.config import ConfigError
from mirage.config.plugins import import_plugins
from mirage.record import write_text
from mirage.reporting import collect, render

WORDS = (
    "One HTML page with everything inside: figure, cells, config, failures, where it comes from. "
    "Nothing is run again."
)


def main() -> None:
    """Exit code 0 with the path of the page on stdout, 2 with a line on stderr for a mistake."""
    matplotlib.use("Agg")
    parser = argparse.ArgumentParser(prog="python -m mirage.report", description=WORDS)
    parser.add_argument("folder", type=Path, help="a run folder, or one above several")
    parser.add_argument("--figure", help="another figure than the config names")
    parser.add_argument("--plugin", action="append", default=[], help="a file with one of yours")
    parser.add_argument("--output", type=Path, help="the page; DIR/report.html by default")
    given = parser.parse_args()
    page = given.output or given.folder / "report.html"
    try:
        import_plugins(given.plugin)
        if given.figure not in (None, *figures.FIGURES):
            known = ", ".join(figures.FIGURES)
            raise ConfigError(f"--figure {given.figure}: expected one of {known}")
        text = render(collect(given.folder, figure=given.figure))
        write_text(page, text)
    except (OSError, ValueError) as error:  # ConfigError, or results that cannot be read
        print(f"mirage: {error}", file=sys.stderr)
        sys.exit(2)
    print(page)


if __name__ == "__main__":
    main()
