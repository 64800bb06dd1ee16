"""What the benchmarks share: a subprocess timed and weighed, and the machine in words."""

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


@dataclass(frozen=True)
class Run:
    """A finished subprocess; `others` is how many cores other work kept busy meanwhile."""

    output: str
    seconds: float
    peak_gb: float
    others: float


def _busy_cores_time() -> float:
    """CPU seconds spent on this machine since it started, all processes together (Linux)."""
    ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")


def run(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """`python <arguments>`, with `environment` on top of this process's own."""
    busy, start = _busy_cores_time(), time.perf_counter()
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
    others = _busy_cores_time() - busy - usage.ru_utime - usage.ru_stime
    return Run(output, seconds, usage.ru_maxrss * 1024 / 1e9, max(0.0, others / seconds))


def spread(values: Sequence[float]) -> str:
    """`best / median` of repeated timings."""
    return f"{min(values):.2f} / {median(values):.2f}"


def header(command: str) -> str:
    """The command, the date and the machine."""
    listed = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.+)", listed)
    cpu = model[1] if model else platform.processor()
    return "\n".join(
        [
            f"command:  {command}",
            f"date:     {datetime.now(UTC):%Y-%m-%d}",
            f"machine:  {cpu}, {os.cpu_count()} cores",
            f"versions: python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "mirage")),
        ]
    )
