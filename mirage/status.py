"""What runs below a folder have done and have left: `python -m mirage.status DIR`."""

import argparse
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from mirage import record

WORDS = (
    "State, cells done of all, failed cells, time so far and time left of every run below a "
    "folder, as its status.json says."
)


def rows(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every run below a folder: its path from there, and its status."""
    found = sorted(folder.rglob(record.FILE), key=lambda f: _natural(f.parent))
    return [(str(f.parent.relative_to(folder)), record.read(f.parent)) for f in found]


def left(status: dict[str, Any]) -> float | None:
    """Seconds that a running run needs yet, from the cells that it has computed."""
    computed = status.get("done", 0) - status.get("kept", 0)
    total = status.get("total")
    if status.get("state") != "running" or not total or computed <= 0:
        return None
    return max(0.0, (total - status["done"]) * status.get("seconds", 0.0) / computed)


def table(found: list[tuple[str, dict[str, Any]]]) -> str:
    """The runs as lines, and their sum."""
    lines = [("run", "state", "cells", "failed", "time", "left")]
    states: dict[str, int] = {}
    for name, status in found:
        state = status.get("state", "unknown")
        states[state] = states.get(state, 0) + 1
        total, failed = status.get("total"), status.get("failed", 0)
        done = total if state == "finished" and total else status.get("done", 0)
        lines.append(
            (
                name,
                state,
                f"{done}/{total}" if total else f"{done}",
                str(failed) if failed else "",
                _words(status.get("seconds")),
                _words(left(status)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return "\n".join([*(line.rstrip() for line in text), "", f"{len(found)} runs: {counts}"])


def _words(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def _natural(path: Path) -> list[Any]:
    """Numbered jobs in the order of their numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.parts]


def main() -> None:
    """Exit code 0 if every run is finished, 1 if not, 2 where there is none."""
    parser = argparse.ArgumentParser(prog="python -m mirage.status", description=WORDS)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # for `| head`
    found = rows(folder) if folder.is_dir() else []
    if not found:
        print(f"mirage: no run in {folder} or below it", file=sys.stderr)
        sys.exit(2)
    print(table(found))
    whole = all(status.get("state") == "finished" for _, status in found)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
