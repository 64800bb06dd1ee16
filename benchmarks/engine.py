"""What the engine costs beside the work: cells, folders, resuming, from the shell.

    python benchmarks/engine.py [--wait 60]

A run of 1000 cells: its own clock says what compiling, drawing and training took, and the rest is
the engine's (measures, journal and tables; not the figure). The same command again does nothing.
Then a thousand run folders of one cell each, as a sweep leaves them, are listed, loaded, gathered.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from report import header, line, run

CELLS = 1000
GRID = [
    *("+experiment=huber_vs_mse", "theory=null", "d=[20,30]", "alpha=[2,4,6,8,10]", "seeds=50"),
    "runtime.progress=false",
]
JOBS = 1000
LOAD = """
import time, mirage
load = mirage.load
start = time.perf_counter()
load({!r})
print(time.perf_counter() - start)
"""


def sweep(folder: Path, template: Path) -> None:
    """Run folders of one cell each, at a d of their own, from a run that was made."""
    whole = xr.load_dataset(template / "results.nc")
    for job in range(JOBS):
        place = folder / str(job)
        place.mkdir(parents=True)
        one = whole.assign_coords(d=whole["d"] + job)
        one.to_netcdf(place / "results.nc")
        for name in ("status.json", "config.yaml"):
            shutil.copy(template / name, place / name)


def loading(place: str, wait: float) -> float:
    """Seconds that `mirage.load` takes in a process that has imported it."""
    return float(run(["-c", LOAD.format(place)], wait=wait).output)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wait", type=float, default=60)
    wait = parser.parse_args().wait
    print(header("python benchmarks/engine.py"), "\n")
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        once = run(["-m", "mirage", *GRID], wait=wait)
        (place,) = Path("outputs/huber_vs_mse").iterdir()
        results = xr.load_dataset(place / "results.nc")
        times = json.loads(results.attrs["times_s"])
        wall = float(results.attrs["wall_time_s"])
        rest = wall - times["compile"] - times["draw"] - times["train"]
        assert results.sizes["seed"] * 2 * 2 * 5 == CELLS
        print(f"a run of {CELLS} cells, caches cold")
        line("the whole command", f"{once.seconds:.1f} s")
        line("compiling, drawing, training", f"{wall - rest:.1f} s")
        line("the engine, a cell", f"{1e3 * rest / CELLS:.2f} ms", "5 ms")
        again = run(["-m", "mirage", *GRID], wait=wait)
        line("the same command again", f"{again.seconds:.1f} s", "5 s")
        line("python -m mirage --help", f"{run(['-m', 'mirage', '--help']).seconds:.2f} s", "1 s")
        line("mirage.load of it", f"{loading(str(place), wait):.2f} s", "2 s")
        small = ["d=20", "alpha=4", "seeds=1", "hydra.run.dir=small"]
        run(["-m", "mirage", *small])
        sweep(Path("jobs"), Path("small"))
        print(f"{JOBS} run folders of one cell each")
        line("mirage.load", f"{loading('jobs', wait):.2f} s")
        line("python -m mirage.status", f"{run(['-m', 'mirage.status', 'jobs']).seconds:.2f} s")
        gathered = run(["-m", "mirage.gather", "jobs"], wait=wait)
        line("python -m mirage.gather", f"{gathered.seconds:.2f} s")
        line("mirage.load after that", f"{loading('jobs', wait):.2f} s", "2 s")
        report = run(["-m", "mirage.report", "jobs"], wait=wait)
        size = Path("jobs/report.html").stat().st_size / 1e6
        line("python -m mirage.report", f"{report.seconds:.2f} s")
        line("its page", f"{size:.2f} MB", "3 MB")
        assert np.isfinite(xr.load_dataset("jobs/gathered.nc")["cos_best"]).all()


if __name__ == "__main__":
    main()
