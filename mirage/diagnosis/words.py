"""Options and directions as a user would write them."""

from typing import Any

import numpy as np


def described(option: Any) -> str:
    """An option as a user would write it: `huber(delta=1)`, an expression as its formula."""
    if "expr" in option.settings():
        return str(option.expr) + (f" + noise {option.noise:g}" if option.noise else "")
    values = {key: getattr(option, key) for key in option.settings()}
    settings = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
        if key != "noise" or value
    ]
    return option.name() + (f"({', '.join(settings)})" if settings else "")


def named(directions: np.ndarray) -> str:
    """Directions in words: `h1, 0.6 h2 + 0.8 h3`."""

    def one(row):
        terms = [(c, f"h{i + 1}") for i, c in enumerate(row) if abs(c) > 5e-3]
        if len(terms) == 1:
            return terms[0][1]
        return " + ".join(f"{c:.2g} {name}" for c, name in terms).replace("+ -", "- ")

    return ", ".join(one(row) for row in directions)
