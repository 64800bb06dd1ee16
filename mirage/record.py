"""The state of a run in its folder: who writes there, how far it is, how it ended."""

import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

FILE, LOCK = "status.json", ".lock"
# Seconds that a lock is waited for: others may be trying for a moment whether it is free.
PATIENCE = 0.5
# Seconds between two reports of progress.
INTERVAL = 1.0


class FolderInUseError(Exception):
    """Another process writes to the folder of a run."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Alone in a run folder; FolderInUseError where another process is there.

    The system takes a lock back when its process ends, however it ends.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        one = read(folder)
        who = f"process {one.get('pid', '?')} on {one.get('host', '?')}"
        words = f"{folder}: {who} is running there; wait for it or take another hydra.run.dir"
        raise FolderInUseError(words) from None
    try:
        yield
    finally:
        lock.release()


def read(folder: Path) -> dict[str, Any]:
    """What `status.json` says; nothing where there is none, or none that can be read.

    Its `state` is `running`, `finished`, `failed` or `interrupted`, and `killed` where it says that
    it is running and no process holds the folder, here or on another machine.
    """
    try:
        said = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return {}
    if said.get("state") == "running" and not _in_use(folder):
        said["state"] = "killed"
    return said


def _in_use(folder: Path) -> bool:
    """Whether a process holds the folder, as far as its lock can be tried."""
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


class Record:
    """Writes `status.json` of a run: the cells that are done, of how many, since when."""

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        figure: str,
        total: int | None,
        command: str = "",
    ):
        self.folder = folder
        self._start = time.monotonic()
        self._last = -INTERVAL
        self.status: dict[str, Any] = {
            "state": "running",
            "fingerprint": fingerprint,
            "figure": figure,
            "command": command,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _now(),
            "total": total,
            "done": 0,
            "kept": 0,
            "failed": 0,
        }
        self.write()

    def advance(self, cells: int, *, kept: bool = False, failed: bool = False) -> None:
        """Count finished cells: computed now, `kept` from before, or `failed`."""
        self.status["done"] += cells
        self.status["kept"] += cells if kept else 0
        self.status["failed"] += cells if failed else 0
        if time.monotonic() - self._last >= INTERVAL:
            self.write()

    def end(self, state: str, **facts: Any) -> None:
        """How it ended."""
        self.status |= {"state": state, **facts}
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self._last = time.monotonic()
        self.status |= {"updated": _now(), "seconds": round(self._last - self._start, 1)}
        write_text(self.folder / FILE, json.dumps(self.status, indent=1))


def write_text(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
