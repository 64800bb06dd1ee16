"""What a run has computed so far, on disk: an interrupted run goes on where it was.

A unit is what one call of a compiled function gives: the cells of a family at some sample sizes,
for a chunk of seeds. Units are written some at a time, each file whole or not at all, and are data
only. A file that cannot be read is set aside, and its units are computed again.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mirage.experiments.store import write

log = logging.getLogger(__name__)
FOLDER = "cells"
# Units are written when the last ones were so many seconds ago: what a kill may cost.
INTERVAL = 2.0
SEPARATOR = "/"

Values = dict[str, Any]  # arrays, or such dictionaries of them


class Journal:
    """The finished units of a run below `folder`; those of another `key` are not looked at."""

    def __init__(self, folder: Path, key: str):
        self._place = folder, key
        self.folder = folder / FOLDER / key
        self._pending: dict[str, Values] = {}
        self._written = time.monotonic()
        self._files = {unit: file for file, units in self._found() for unit in units}
        self._open: tuple[Path | None, dict[str, Values]] = (None, {})

    def part(self, name: str) -> "Journal":
        """The journal of one of several experiments of a run."""
        self.flush()
        folder, key = self._place
        return Journal(folder, f"{key}/{_name(name)}")

    def get(self, unit: str) -> Values | None:
        """What was computed of a unit, or None."""
        if unit in self._pending:
            return self._pending[unit]
        file = self._files.get(_name(unit))
        if file is None:
            return None
        if file != self._open[0]:
            self._open = file, _read(file)
        return self._open[1].get(_name(unit))

    def put(self, unit: str, values: Values) -> None:
        """Keep what was computed of a unit; written now or with the next ones."""
        self._pending[unit] = values
        if time.monotonic() - self._written >= INTERVAL:
            self.flush()

    def dataset(self, name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        """What `compute` gives, or gave before."""
        file = self.folder / f"{_name(name)}.nc"
        if file.exists():
            try:
                return xr.load_dataset(file, engine="netcdf4")
            except (OSError, ValueError, RuntimeError):
                log.warning("%s cannot be read and is computed again", file)
        found = compute()
        write(found, file)
        return found

    def flush(self) -> None:
        """Write what is not written yet."""
        if self._pending:
            flat = {
                f"{_name(unit)}{SEPARATOR}{path}": array
                for unit, values in self._pending.items()
                for path, array in _flat(values)
            }
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".npz")
            try:
                with os.fdopen(handle, "wb") as stream:
                    np.savez(stream, **flat)  # pyright: ignore[reportArgumentType]
                    stream.flush()
                    os.fsync(stream.fileno())
                names = [_name(unit) for unit in self._pending]
                file = self.folder / f"{_name(json.dumps(names))}.npz"
                os.replace(temporary, file)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._files |= dict.fromkeys(names, file)
            self._pending = {}
        self._written = time.monotonic()

    def remove(self) -> None:
        """Forget everything: the results are complete and stored."""
        self._pending, self._files = {}, {}
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # there may be those of other configs
            self.folder.parent.rmdir()

    def _found(self) -> Iterator[tuple[Path, list[str]]]:
        for file in sorted(self.folder.glob("[!.]*.npz")):
            try:
                units = list(_read(file))
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):
                aside = file.with_suffix(".unreadable")
                os.replace(file, aside)
                log.warning("%s cannot be read; its cells are computed again", aside)
                continue
            yield file, units


def _read(file: Path) -> dict[str, Values]:
    """The units of a file by their names; every array is read, so that its checksum is checked."""
    units: dict[str, Values] = {}
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        for key in stored.files:
            *path, last = key.split(SEPARATOR)
            place: Values = units
            for step in path:
                place = place.setdefault(step, {})
            place[last] = stored[key]
    return units


def _flat(values: Values, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}{SEPARATOR}")
        else:
            yield f"{path}{name}", np.asarray(value)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
