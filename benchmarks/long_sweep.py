"""What the engine costs of a long sweep: all that is not compiling, drawing and training.

    python benchmarks/long_sweep.py [--seeds 1600]

Nine jobs, a (d, loss) each; 1600 seeds take about an hour on two cores. What is left of the wall
time is starting Python, composing configs, measures, journal, tables and figures.
"""

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import xarray as xr
from report import header, line, run

SWEEP = ["-m", "+sweep=phase_diagram", "d=500,1000,2000", "alpha=[2,5,10,20]"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1600)
    parser.add_argument("--wait", type=float, default=60)
    said = parser.parse_args()
    print(header(f"python benchmarks/long_sweep.py --seeds {said.seeds}"), "\n")
    parts: Counter[str] = Counter()
    cells = 0
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        settings = [f"seeds={said.seeds}", "runtime.progress=false", "hydra.sweep.dir=sweep"]
        whole = run(["-m", "mirage", *SWEEP, *settings], wait=said.wait)
        for file in Path("sweep").glob("*/results.nc"):
            with xr.open_dataset(file) as results:
                parts.update(json.loads(results.attrs["times_s"]))
                cells += results["cos_best"].size
    work = sum(parts[name] for name in ("compile", "draw", "train"))
    rest = whole.seconds - work
    print(f"{' '.join(SWEEP)} seeds={said.seeds}, {cells} cells")
    line("the whole command", f"{whole.seconds:.0f} s")
    line("compiling", f"{parts['compile']:.0f} s")
    line("drawing, training", f"{parts['draw'] + parts['train']:.0f} s")
    line("the rest", f"{rest:.1f} s")
    line("the rest, a cell", f"{1e3 * rest / cells:.2f} ms", "5 ms")
    line("the rest, of the whole", f"{rest / whole.seconds:.2%}", "1 % of an hour")
    line("cores that other work kept busy", f"{whole.others:.2f}")


if __name__ == "__main__":
    main()
