"""How every figure looks: sizes, fonts, and one hue family a compared option."""

from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

# Sequential maps that stay apart for colour-blind readers, lightest third left out.
HUES = ("Blues", "Oranges", "Greens", "Purples", "Greys", "Reds")
Colour = tuple[float, float, float, float]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
}


def shades(hue: int, count: int) -> list[Colour]:
    """`count` colours of one hue family, from light to dark."""
    colours = mpl.colormaps[HUES[hue % len(HUES)]]
    every = colours(np.linspace(0.45, 0.95, max(count, 1)))
    return [(float(r), float(g), float(b), float(a)) for r, g, b, a in every]


def axis_label(kind: str) -> str:
    """What an axis of sample sizes says."""
    labels = {"alpha": "n / d", "exponent": "log n / log d", "n": "samples n"}
    return labels.get(kind, kind)


def option_words(values: Iterable[Any]) -> str:
    """Compared options as a reader would say them: `tanh(h1), full batch gd, fresh=True`."""
    words = []
    for value in map(str, values):
        name, _, inside = value.partition("(")
        inside = inside.removesuffix(")")
        if name == "expression" and inside.startswith("expr="):
            words.append(inside.removeprefix("expr="))
        else:
            words.append(name.replace("_", " ") + (f" ({inside})" if inside else ""))
    return ", ".join(words)


def plain_log(axes: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic axis, `x` or `y`, from low to high with ticks as plain numbers."""
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(low, high)
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 8 else (1, 2, 3, 4, 5, 6, 8)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
