"""Random numbers on a CPU: JAX's own programs for them against the hash that is written out.

    python benchmarks/random_numbers.py [--rounds 3] [--wait 60]

In turns, in processes of their own: a million numbers, with and without compilation; then one-pass
SGD on 400,000 samples, whose rows are drawn once, and GD on 8000 streamed rows, drawn again for
every product; and whether both forms give the same bits.
"""

import argparse
import json
import statistics

from report import header, line, run

PROGRAM = """
import hashlib, json, sys, time
import jax, jax.numpy as jnp
from mirage import Experiment, simulate, threefry
from mirage.algorithms import LayerwiseGd, OnlineSgd
from mirage.designs import Streamed
from mirage.runtime import Default
if sys.argv[1] == "jax":
    threefry.write_out = lambda: None
runtime = Default(progress=False, compilation_cache="off")
runtime.configure()
laws = {"normal": jax.random.normal, "rademacher": jax.random.rademacher}
found, bits = {}, hashlib.sha256()
for name, law in laws.items():
    key = jax.random.key(0)
    lowered = jax.jit(lambda key, law=law: law(key, (1000, 1000), jnp.float32)).lower(key)
    start = time.perf_counter()
    drawn = lowered.compile()
    found[f"{name}, to compile, ms"] = 1e3 * (time.perf_counter() - start)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        drawn(key).block_until_ready()
        times.append(time.perf_counter() - start)
    found[f"{name}, a million, ms"] = 1e3 * min(times)
    bits.update(bytes(drawn(key)))
for name, settings in {
    "one-pass SGD, d = 300": {"d": 300, "n": 400_000, "algorithm": OnlineSgd()},
    "streamed GD, d = 1000": {
        "d": 1000, "n": 8000, "design": Streamed(),
        "algorithm": LayerwiseGd(steps=10, readout_steps=2),
    },
}.items():
    results = simulate(Experiment(**settings, seeds=4, runtime=runtime))
    found[f"{name}, 4 seeds, s"] = json.loads(results.attrs["times_s"])["train"]
    bits.update(results.overlap.values.tobytes())
print(json.dumps([found, bits.hexdigest()]))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wait", type=float, default=60)
    options = parser.parse_args()
    words = f"--rounds {options.rounds} --wait {options.wait:g}"
    print(header(f"python benchmarks/random_numbers.py {words}"))
    print("\nmedian of JAX's / written out, and their ratio")
    taken: dict[str, list[dict[str, float]]] = {"jax": [], "mirage": []}
    digests = set()
    for _ in range(options.rounds):
        for form, values in taken.items():
            found, digest = json.loads(run(["-c", PROGRAM, form], wait=options.wait).output)
            values.append(found)
            digests.add(digest)
    for name in taken["jax"][0]:
        theirs, ours = (statistics.median(one[name] for one in v) for v in taken.values())
        line(name, f"{theirs:.3g} / {ours:.3g}  {theirs / ours:.1f}")
    line("the same bits", "yes" if len(digests) == 1 else "NO")


if __name__ == "__main__":
    main()
