"""`python -m mirage.diagnose target=... loss=... activation=...`: one page, before any run."""

import json
import signal
import sys
import types
from pathlib import Path
from typing import Any

from mirage.config import ConfigError, build_options, compose_config

USAGE = """python -m mirage.diagnose [KEY=VALUE ...] [format=text|json] [output=DIR]

How hard a target is, and what a loss and an activation see of it, for d → ∞:

  python -m mirage.diagnose target=expression target.expr="He4(h1) + sign(h1*h2*h3)"
  python -m mirage.diagnose target=parity target.k=2 loss=mse activation=relu
  python -m mirage.diagnose target=hermite loss=huber loss.delta=0.5 format=json output=here

Keys are those of `python -m mirage`; format=json prints one object, output=DIR writes a figure.
"""


class _Callable(types.ModuleType):
    """Lets `mirage.diagnose(target, ...)` be called although `python -m` needs a module there."""

    def __call__(self, *options: Any, **named: Any) -> Any:
        from mirage.diagnosis import diagnose

        return diagnose(*options, **named)


sys.modules[__name__].__class__ = _Callable


def main() -> None:
    """Entry point. Exit code 0 with a page on stdout, 2 with a line on stderr for a mistake."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # for `| head`
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Diagnose what the arguments describe and print it; the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    try:
        own, overrides = _split(arguments)
        options = build_options(
            compose_config(overrides), ("target", "loss", "activation", "network")
        )
        from mirage.diagnosis import diagnose, page, record

        try:
            found = diagnose(**options)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if own["output"] is not None:
            drawn = _draw(found, Path(own["output"]))
    except ConfigError as error:
        print(f"mirage: {error}", file=sys.stderr)
        return 2
    if own["format"] == "json":
        print(json.dumps(record(found), ensure_ascii=False, allow_nan=False))
        return 0
    print(page(found))
    if own["output"] is not None:
        print(f"\nfigure: {drawn}")
    return 0


def _split(arguments: list[str]) -> tuple[dict[str, str | None], list[str]]:
    own: dict[str, str | None] = {"format": "text", "output": None}
    rest = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-") or not equals:
            raise ConfigError(f"{argument!r}: expected key=value; see --help")
        if key in own:
            own[key] = value
        else:
            rest.append(argument)
    if own["format"] not in ("text", "json"):
        raise ConfigError(f"format={own['format']!r}: expected text or json")
    return own, rest


def _draw(found, folder: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from mirage import figures
    from mirage.diagnosis import dataset

    if found.bins is None:
        raise ConfigError("output: the label does not depend on h, so there is nothing to draw")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return figures.write(figures.draw_diagnosis(dataset(found)), folder, "diagnosis")[0]
    except OSError as error:
        where = error.filename or folder
        raise ConfigError(f"output={folder}: cannot write {where}: {error.strerror}") from error


if __name__ == "__main__":
    main()
