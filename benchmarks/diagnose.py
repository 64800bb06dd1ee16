"""`python -m mirage.diagnose` from a cold start, what it finds beside what is known, and a curve.

    python benchmarks/diagnose.py [--wait 60]

Every target is a process of its own, imports and compilations included. Then, in one process, a
spectral prediction curve of 100 values of n/d, after a first one.
"""

import argparse
import json
import math

from report import header, line, run

QUARTER = math.pi**2 / 4
# Expression, what is known of alpha_c step by step, and how long it may take.
TARGETS = [
    ("h**2", [0.5], 10),
    ("abs(h)", [0.5], 10),
    ("He3(h)", [0.0], 10),
    ("h**2*exp(-h**2)", [math.inf], 10),
    ("h1**2 + h2**2", [1.0], 10),
    ("sign(h1*h2)", [QUARTER], 10),
    ("He4(h1) + He4(h2)", [None], 10),
    ("sign(h1*h2*h3)", [math.inf], 60),
    ("h1**2 + sign(h1*h2*h3)", [0.575, QUARTER], 60),
    ("He4(h1) + sign(h1*h2*h3)", [None, QUARTER], 60),
]
CURVE = """
import time, numpy as np
from mirage.channels.labels import label_bins, label_table
from mirage.channels.preprocessing import law_of
from mirage.losses import Huber
from mirage.targets import Hermite
from mirage.theory.spectral import predict
slopes = law_of(Huber(), label_bins(label_table(Hermite()))).negated()
alpha = np.linspace(1, 100, 100)
predict(slopes, alpha)
start = time.perf_counter()
predict(slopes, alpha)
print(time.perf_counter() - start)
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--wait", type=float, default=60)
    wait = parser.parse_args().wait
    print(header(f"python benchmarks/diagnose.py --wait {wait:g}"))
    print("\nseconds from the shell to the page, and alpha_c of each step (known value)")
    for text, known, limit in TARGETS:
        words = ["-m", "mirage.diagnose", "target=expression", f"target.expr={text}"]
        done = run([*words, "format=json"], wait=wait)
        steps = json.loads(done.output)["staircase"]
        found = []
        for step, value in zip(steps, known, strict=True):
            alpha = float(step["alpha_c"])
            beside = "" if value is None else f" ({value:.4g})"
            found.append(f"{alpha:.4g} ± {float(step['alpha_c_error']):.1g}{beside}")
        busy = f"  [{done.others:.1f} cores busy with other work]" if done.others > 0.1 else ""
        line(text, f"{done.seconds:.1f} s", f"{limit} s; {', '.join(found)}{busy}")
    curve = run(["-c", CURVE], wait=wait)
    print("\nspectral prediction, h4(h1) + h4(h2) with Huber's loss")
    line("a curve of 100 values of n/d, after the first", f"{float(curve.output):.2f} s", "2 s")


if __name__ == "__main__":
    main()
