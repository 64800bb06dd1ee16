"""SIGKILL at random moments to a sweep that is started again each time, until none is left to give.

    python benchmarks/kills.py [--kills 50] [--seed 0]

After each kill every file that results and units are kept in is read. A sweep that ends is
compared with one that nothing interrupted, variable by variable and bit by bit, and if kills are
left it starts anew in another folder.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from report import header, line

import mirage
from mirage import record

SWEEP = [
    *(sys.executable, "-m", "mirage", "-m", "+experiment=huber_vs_mse", "theory=null"),
    *("d=20,30,40,50", "alpha=[3,6,9,12,15,20]", "seeds=64", "algorithm.steps=400"),
    *("runtime.memory=16 MB", "runtime.seeds_at_once=1", "runtime.progress=false"),
]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def unreadable(folder: Path) -> int:
    """Files that are not whole; hidden ones are what a kill left of one that was being written."""
    bad = 0
    for file in folder.rglob("[!.]*"):
        try:
            if file.suffix == ".npz":
                with np.load(file, allow_pickle=False) as stored:
                    _ = [stored[name] for name in stored.files]
            elif file.suffix == ".nc":
                xr.load_dataset(file)
            elif file.name == record.FILE:
                bad += not record.read(file.parent)
        except Exception:
            bad += 1
    return bad


def units(folder: Path) -> set[tuple[Path, str]]:
    """What has been written of the jobs that have not finished: each unit's arrays by name."""
    return {
        (file.parent, name)
        for file in folder.rglob("[!.]*.npz")
        for name in np.load(file, allow_pickle=False).files
    }


def unfinished(place: Path) -> bool:
    """Whether units are of a job that has not ended: one that has removes them."""
    return record.read(place.parents[1]).get("state") != "finished"


def differing(a: xr.Dataset, b: xr.Dataset) -> int:
    """Variables that are not the same bits, or not in both."""
    names = set(map(str, a.data_vars)) | set(map(str, b.data_vars))
    return sum(name not in a or name not in b or not _same(a[name], b[name]) for name in names)


def _same(a: xr.DataArray, b: xr.DataArray) -> bool:
    return np.array_equal(a.values, b.values, equal_nan=a.dtype.kind == "f")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(header(f"python benchmarks/kills.py --kills {given.kills} --seed {given.seed}"), "\n")
    rng = np.random.default_rng(given.seed)
    os.chdir(tempfile.mkdtemp())
    start = time.monotonic()
    subprocess.run([*SWEEP, "hydra.sweep.dir=whole"], check=True, **QUIET)
    length = time.monotonic() - start
    whole = mirage.load("whole")
    killed = corrupt = lost = different = finished = 0
    before: set[tuple[Path, str]] = set()
    while killed < given.kills or not finished:
        place = Path(f"sweep_{finished}")
        process = subprocess.Popen([*SWEEP, f"hydra.sweep.dir={place}"], **QUIET)
        try:
            process.wait(rng.uniform(0.5, 10.0) if killed < given.kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            corrupt += unreadable(place)
            written = units(place)
            lost += sum(unfinished(unit[0]) for unit in before - written)
            before = written
            continue
        assert process.returncode == 0
        different += differing(whole, mirage.load(place))
        corrupt += unreadable(place)
        finished += 1
        before = set()
    cells = whole["cos_best"].size
    print(f"a sweep of 4 jobs, {cells} cells, {length:.0f} s uninterrupted")
    line("SIGKILLs", str(killed))
    line("sweeps that ended", str(finished))
    line("files that cannot be read", str(corrupt), "0")
    line("written arrays that were lost", str(lost), "0")
    line("variables that differ from the whole sweep's", str(different), "0")


if __name__ == "__main__":
    main()
