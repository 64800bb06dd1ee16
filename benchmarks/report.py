"""What the benchmarks share: a subprocess timed and weighed, and the machine in words (Linux)."""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

# Cores that other work may keep busy before a timing counts as disturbed.
CALM = 0.1


@dataclass(frozen=True)
class Run:
    """A finished subprocess; `others` is how many cores other work kept busy meanwhile."""

    output: str
    seconds: float
    peak_gb: float
    others: float


def busy_seconds() -> float:
    """CPU seconds spent on this machine since it started, by all processes together."""
    ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = ticks[3:5]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def wait_until_calm(limit: float) -> None:
    """Wait until other work has left the cores alone for two seconds, at most `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        busy = busy_seconds()
        time.sleep(2)
        if busy_seconds() - busy < 2 * CALM:
            return


def run(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, *, wait: float = 0
) -> Run:
    """`python <arguments>`, with `environment` on top of this process's own."""
    wait_until_calm(wait)
    busy, start = busy_seconds(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {process.returncode}")
    others = busy_seconds() - busy - usage.ru_utime - usage.ru_stime
    return Run(output, seconds, usage.ru_maxrss * 1024 / 1e9, max(0.0, others / seconds))


def spread(values: Sequence[float]) -> str:
    """`best / median` of repeated timings."""
    return f"{min(values):.2f} / {median(values):.2f}"


def line(name: str, value: str, target: str = "") -> None:
    """One row of a table: what, how much, and what was aimed at."""
    print(f"  {name:<44}{value:>16}   {target and f'target {target}'}".rstrip())


def header(command: str) -> str:
    """The command, the date and the machine."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "mirage"))
    return (
        f"command:  {command}\n"
        f"date:     {datetime.now(UTC):%Y-%m-%d}\n"
        f"machine:  {model[1] if model else platform.processor()}, {os.cpu_count()} cores\n"
        f"versions: python {platform.python_version()}, {packages}"
    )
