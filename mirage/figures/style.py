"""How every figure looks: sizes, fonts, and one hue family a compared option."""

from typing import Any

import matplotlib as mpl
import numpy as np

# Sequential maps that stay apart for colour-blind readers, lightest third left out.
HUES = ("Blues", "Oranges", "Greens", "Purples", "Greys", "Reds")
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


def shades(hue: int, count: int) -> list[tuple[float, ...]]:
    """`count` colours of one hue family, from light to dark."""
    colours = mpl.colormaps[HUES[hue % len(HUES)]]
    return [tuple(colours(v)) for v in np.linspace(0.45, 0.95, max(count, 1))]


def axis_label(kind: str) -> str:
    """What an axis of sample sizes says."""
    labels = {"alpha": "n / d", "exponent": "log n / log d", "n": "samples n"}
    return labels.get(kind, kind)
