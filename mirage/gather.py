"""The results of all runs below a folder in one file: `python -m mirage.gather DIR`."""

import argparse
import sys
from pathlib import Path

from mirage import record
from mirage.experiments.store import gather

WORDS = "Write the results of every finished run below a folder into one netCDF file."


def main() -> None:
    """Exit code 0 with the path of the file on stdout, 1 if runs are missing, 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m mirage.gather", description=WORDS)
    parser.add_argument("folder", type=Path, help="a folder with runs in or below it")
    parser.add_argument("--output", type=Path, help="the file; DIR/gathered.nc by default")
    given = parser.parse_args()
    try:
        file = gather(given.folder, given.output)
    except (OSError, ValueError) as error:
        print(f"mirage: {error}", file=sys.stderr)
        sys.exit(2)
    print(file)
    states = {f.parent: record.read(f.parent).get("state") for f in given.folder.rglob(record.FILE)}
    missing = {place: state for place, state in states.items() if state != "finished"}
    for place, state in sorted(missing.items()):
        print(f"mirage: {place} is missing: {state}", file=sys.stderr)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
