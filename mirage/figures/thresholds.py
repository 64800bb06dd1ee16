"""Theory over n/d as the figures of AMP share it: curves, thresholds and the hard phase."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mirage.figures.style import axis_label, shades

# Directions whose overlaps differ by no more, all along, are one curve.
SAME = 1e-6
# Where state evolution starts from: its line, and what the legend calls it.
STARTS = {
    "uninformed": ("-", "AMP, d → ∞"),
    "informed": ("--", "informed start"),
    "given": ("-.", "given start"),
}
BAYES = {"ls": ":", "lw": 4, "zorder": 1.5}
THRESHOLDS = {
    "alpha_c": r"\alpha_c",
    "alpha_it": r"\alpha_\mathrm{IT}",
    "alpha_alg": r"\alpha_\mathrm{alg}",
}
# Light and dark, as shades of a hue are: what is of no direction.
ERRORS = ("0.7", "0.15")
CURVES = ("overlap", "generalisation_error", "overlap_bayes", "generalisation_error_bayes")
# A direction is found later than at alpha_c where the ratio is larger.
LATER = 1.02
# Labels of thresholds closer than this share of the axis step aside.
CLOSE = 0.1


def each_target(dataset: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """The name and the part of every compared target; one that is alone may have no name."""
    if "target" in dataset.dims:
        names = dataset["target"].values
        return [(_plain(name), dataset.sel(target=name)) for name in names]
    return [(_plain(dataset["target"].item()) if "target" in dataset.coords else "", dataset)]


def _plain(name: object) -> str:
    return str(name).replace("_", " ")


def theory_beside(dataset: xr.Dataset) -> xr.Dataset:
    """Theory that was saved beside simulations, under the names that it has alone."""
    curves = {name: f"{name}_predicted" for name in CURVES if f"{name}_predicted" in dataset}
    found = {
        name: dataset[saved].rename(alpha_theory="alpha").drop_vars("alpha_theory", errors="ignore")
        for name, saved in curves.items()
    }
    alone = {name: dataset[name] for name in (*THRESHOLDS, "alpha_found") if name in dataset}
    return xr.Dataset({**found, **alone})


def diagonal(overlap: xr.DataArray, other: str = "direction_2") -> xr.DataArray:
    """The entries (k, k), along `direction`; a target of lower rank lacks the last ones."""
    places = xr.DataArray(
        range(min(overlap.sizes["direction"], overlap.sizes[other])), dims="direction"
    )
    entries = overlap.drop_vars(["direction", other], errors="ignore")
    return entries.isel({"direction": places, other: places}).dropna("direction", how="all")


def alike(theory: xr.Dataset) -> list[list[int]]:
    """Directions that theory cannot tell apart, in groups; no groups without theory."""
    overlaps = [diagonal(theory[name]) for name in ("overlap", "overlap_bayes") if name in theory]
    groups: list[list[int]] = []
    for k in range(min((overlap.sizes["direction"] for overlap in overlaps), default=0)):
        for group in groups:
            if all(_same(overlap, k, group[0]) for overlap in overlaps):
                group.append(k)
                break
        else:
            groups.append([k])
    return groups


def _same(overlap: xr.DataArray, k: int, other: int) -> bool:
    first, second = (overlap.isel(direction=place).values for place in (k, other))
    return np.allclose(first, second, rtol=0, atol=SAME, equal_nan=True)


def named(group: list[int]) -> str:
    """What the legend calls a group of directions, counted from 1."""
    numbers = [str(k + 1) for k in group]
    if len(numbers) == 1:
        return f"direction {numbers[0]}"
    return f"directions {', '.join(numbers[:-1])} and {numbers[-1]}"


def draw_overlaps(axes: Axes, theory: xr.Dataset, groups: list[list[int]]) -> None:
    """Q_kk of every start, and the Bayes-optimal one, a colour for each group of directions."""
    for hue, group in enumerate(groups):
        branches, best = (
            diagonal(theory[name]).isel(direction=group[0]) if name in theory else None
            for name in ("overlap", "overlap_bayes")
        )
        _draw(axes, branches, best, shades(hue, 3))
    axes.set_ylim(-0.02, 1.03)  # curves at 0 and 1 are seen whole


def draw_errors(axes: Axes, theory: xr.Dataset) -> None:
    """The generalisation error of every start, and the Bayes-optimal one."""
    names = ("generalisation_error", "generalisation_error_bayes")
    branches, best = (theory.get(name) for name in names)
    _draw(axes, branches, best, ERRORS)
    axes.set_ylabel("generalisation error")


def _draw(
    axes: Axes,
    branches: xr.DataArray | None,
    best: xr.DataArray | None,
    colours: Sequence[Any],
) -> None:
    if best is not None:
        best = best.dropna("alpha")
        axes.plot(best["alpha"].values, best.values, color=colours[0], **BAYES)
    if branches is None:
        return
    for start in map(str, branches["start"].values):
        one = branches.sel(start=start).dropna("alpha")
        axes.plot(one["alpha"].values, one.values, STARTS[start][0], color=colours[1])


def theory_handles(theory: xr.Dataset, groups: list[list[int]]) -> list[Line2D]:
    """Entries of a legend: a colour for each group of directions, a line for each start."""
    handles = [entry(named(group), color=shades(k, 3)[1], lw=3) for k, group in enumerate(groups)]
    for start in map(str, theory["start"].values if "start" in theory else []):
        style, words = STARTS[start]
        handles.append(entry(words, color=ERRORS[1], ls=style))
    if "overlap_bayes" in theory or "generalisation_error_bayes" in theory:
        handles.append(entry("Bayes-optimal", color=ERRORS[0], **BAYES))
    return handles


def entry(label: str, **style: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=label, **style)


def draw_thresholds(axes: Axes, theory: xr.Dataset, *, low: float, high: float) -> None:
    """Lines at the thresholds that lie on the axis, set from low to high, and the hard phase.

    A threshold that is absent, NaN or infinite has no line; a hard phase without an end reaches
    the right of the axis. Directions that are found later than at alpha_c have lines of their own,
    named α with their numbers. Thresholds that coincide share a label.
    """
    axes.set_xlim(low, high)
    axes.set_xlabel(axis_label("alpha"))
    values = {name: float(theory[name]) for name in THRESHOLDS if name in theory}
    start, end = values.get("alpha_it", np.nan), values.get("alpha_alg", np.nan)
    left, right = max(start, low), min(end, high)
    if start < end and left < right:
        axes.axvspan(left, right, color="0.91", lw=0, zorder=0)
        narrow = _place(axes, right) - _place(axes, left) < 0.12
        _word(axes, left, right, narrow=narrow)
    named = {THRESHOLDS[name]: value for name, value in values.items()} | _later(theory)
    shown = {name: value for name, value in named.items() if low < value < high and value > 0}
    for name, value in shown.items():
        dotted = name not in (THRESHOLDS["alpha_it"], THRESHOLDS["alpha_alg"])
        axes.axvline(value, color="0.4" if dotted else "0.6", ls=":" if dotted else "-", lw=1)
    _labels(axes, shown)


def _later(theory: xr.Dataset) -> dict[str, float]:
    """Where directions are found that are found later than others, by their label."""
    if "alpha_found" not in theory:
        return {}
    values = theory["alpha_found"].values.astype(float)
    first = max(float(theory["alpha_c"]) if "alpha_c" in theory else 0.0, values.min(initial=0))
    later: dict[str, list[int]] = {}
    for k, value in enumerate(values):
        if np.isfinite(value) and value > LATER * first:
            later.setdefault(f"{value:.6g}", []).append(k + 1)
    return {
        rf"\alpha_{{{','.join(map(str, numbers))}}}": float(value)
        for value, numbers in later.items()
    }


def _word(axes: Axes, left: float, right: float, *, narrow: bool) -> None:
    """The word for the hard phase, clear of curves, upright where the phase is narrow."""
    middle = (left * right) ** 0.5 if axes.get_xscale() == "log" else (left + right) / 2
    axes.text(
        middle,
        _clear(axes, left, right),
        "hard",
        transform=axes.get_xaxis_transform(),
        rotation=90 if narrow else 0,
        ha="center",
        va="center",
        color="0.35",
        style="italic",
        fontsize=8,
    )


def _clear(axes: Axes, left: float, right: float) -> float:
    """The height, as a share of the axes, in the middle of the widest gap between curves."""
    low, high = axes.get_ylim()
    taken = [0.0, 1.0]
    for line in axes.lines:
        x, y = (np.asarray(data, float) for data in line.get_data())
        inside = np.linspace(left, right, 12)[1:-1]
        inside = inside[(inside > x.min()) & (inside < x.max())] if x.size else inside[:0]
        taken.extend((np.interp(inside, x, y) - low) / (high - low))
    heights = np.sort(np.clip(taken, 0, 1))
    widest = int(np.diff(heights).argmax())
    return float(heights[widest : widest + 2].mean())


def _place(axes: Axes, value: float) -> float:
    """Where along the axis a value lies, from 0 to 1."""
    return float((axes.transScale + axes.transLimits).transform((value, 1.0))[0])


def _labels(axes: Axes, shown: dict[str, float]) -> None:
    """Names of thresholds over the axes; close neighbours step apart."""
    joined: list[tuple[float, float, list[str]]] = []
    for name, value in sorted(shown.items(), key=lambda item: item[1]):
        place = _place(axes, value)
        if joined and place - joined[-1][0] < 0.005:
            joined[-1][2].append(name)
        else:
            joined.append((place, value, [name]))
    places = [-np.inf, *(place for place, _, _ in joined), np.inf]
    for number, (place, value, words) in enumerate(joined, start=1):
        near_left = place - places[number - 1] < CLOSE
        near_right = places[number + 1] - place < CLOSE
        side = "center" if near_left == near_right else "left" if near_left else "right"
        axes.text(
            value,
            1.01,
            f"${' = '.join(words)}$",
            transform=axes.get_xaxis_transform(),
            ha=side,
            va="bottom",
            fontsize=8,
        )
