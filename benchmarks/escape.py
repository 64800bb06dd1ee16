"""Fitted escape exponents of a run, with their standard errors, as a table.

    python benchmarks/escape.py FOLDER [FOLDER ...]

FOLDER is that of a run of `information_exponent` or `hard_parity`. For each part or algorithm: the
power of d in the median samples to escape, and the slope of n/d in log d, which is 0 for n of order
d and not for d log d.
"""

import argparse
import itertools

import mirage
from mirage.analysis.escape import escape_exponents


def table(folder: str) -> None:
    dataset = mirage.load(folder)
    print(f"\ncommand:  {dataset.attrs['command']}")
    samples = dataset["escape_samples"]
    single = [k for k in samples.dims if samples.sizes[k] == 1 and k not in ("d", "seed")]
    samples = samples.squeeze(single, drop=True)
    groups = [str(k) for k in samples.dims if k not in ("d", "seed")]
    for choice in itertools.product(*(samples[g].values for g in groups)):
        place = dict(zip(groups, choice, strict=True))
        one = samples.sel(place).dropna("d", how="all")
        found = escape_exponents(one)
        print(
            f"{', '.join(map(str, choice))}: n of order "
            f"d^({float(found.exponent):.3f} ± {float(found.exponent_error):.3f}), n/d with "
            f"{float(found.log_slope):.3g} ± {float(found.log_slope_error):.2g} of log d"
        )
        predicted = dataset.get("escape_samples_predicted")
        for d in one["d"].values:
            words = f"  d = {d}: median {float(found['median'].sel(d=d)):.4g}"
            if predicted is not None:
                at = {k: v for k, v in {**place, "d": d}.items() if k in predicted.dims}
                words += f", ODE {float(predicted.sel(at).squeeze()):.4g}"
            print(words)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fitted escape exponents.")
    parser.add_argument("folders", nargs="+")
    for given in parser.parse_args().folders:
        table(given)
