"""Lazy methods learn a target degree by degree: the error against log n / log d."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirage.figures.recovery import HIGH, LOW
from mirage.figures.style import STYLE, axis_label, shades


def lazy_limit(dataset: xr.Dataset) -> Figure:
    """E(f − f⋆)² as a share of the target's variance against κ = log n / log d, by algorithm.

    Points are medians over seeds with their 30th-70th percentiles, lines what theory says at the
    same d; dashed what it says of the kernel at larger d, and the staircase that these approach:
    from each integer κ on, the variance in the degrees up to κ is learnt. Of several d the last
    is drawn.
    """
    if not {"exponent", "seed"} <= set(dataset.dims) or "test_error" not in dataset:
        raise ValueError("figure=lazy_limit: expected simulated cells along exponent, found none")
    dataset = dataset.isel(d=-1)
    scale = float(dataset["plateau"].sel(degree=0)) if "plateau" in dataset else 1.0
    error = dataset["test_error"]
    groups = [str(dim) for dim in error.dims if dim not in ("exponent", "seed")]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
        low, high = float(dataset["exponent"].min()) - 0.1, float(dataset["exponent"].max()) + 0.25
        if "plateau" in dataset:
            _staircase(axes, dataset["plateau"] / scale, low, high)
        choices = list(itertools.product(*(dataset[g].values for g in groups)))
        for hue, (choice, words) in enumerate(zip(choices, _names(choices), strict=True)):
            place = dict(zip(groups, choice, strict=True))
            colour = shades(hue, 3)[1]
            _points(axes, error.sel(place) / scale, colour, words)
            _curves(axes, dataset, place, scale, colour, words)
        axes.set_xlim(low, high)
        axes.set_ylim(0, 1.45)
        axes.set_xlabel(rf"$\kappa$ = {axis_label('exponent')}")
        axes.set_ylabel("population error / variance of the target")
        axes.legend(fontsize=8, loc="upper right")
        seeds, d, width = dataset.sizes["seed"], int(dataset["d"]), dataset.sizes.get("neuron", 0)
        neurons = f", m = {width} = $d^{{{np.log(width) / np.log(d):.2f}}}$" if width > 1 else ""
        axes.set_title(
            f"d = {d}{neurons}; median, 30th-70th percentile over {seeds} seeds; lines: theory",
            fontsize=8,
        )
        return figure


def _names(choices: list[tuple]) -> list[str]:
    """What each curve is called; settings are left out where names alone tell curves apart."""
    full = [", ".join(map(str, choice)) for choice in choices]
    short = [", ".join(str(one).split("(")[0] for one in choice) for choice in choices]
    return [words.replace("_", " ") for words in (short if len({*short}) == len(short) else full)]


def _staircase(axes: Axes, plateau: xr.DataArray, low: float, high: float) -> None:
    """1 − the variance learnt, stepping down at each integer."""
    degrees = [int(k) for k in plateau["degree"].values if k < high]
    edges = np.array([low, *degrees[1:], high])
    steps = plateau.sel(degree=degrees).values
    axes.stairs(
        steps,
        edges,
        baseline=None,
        color="0.8",
        lw=5,
        zorder=0,
        label="d → ∞: degrees below κ are learnt",
    )
    for degree in degrees[1:]:
        axes.axvline(degree, color="0.6", lw=0.8, ls=":", zorder=0)


def _points(axes: Axes, error: xr.DataArray, colour: tuple[float, ...], words: str) -> None:
    error = error.dropna("exponent", how="all")
    if not error.sizes["exponent"]:
        return
    low, middle, high = error.quantile([LOW, 0.5, HIGH], dim="seed").values
    axes.errorbar(
        error["exponent"],
        middle,
        [middle - low, high - middle],
        fmt="o",
        color=colour,
        capsize=2,
        lw=1,
        label=words,
    )


def _curves(
    axes: Axes,
    dataset: xr.Dataset,
    place: dict,
    scale: float,
    colour: tuple[float, ...],
    name: str,
) -> None:
    """What theory says; medians joined where it is silent."""
    if "test_error_predicted" not in dataset:
        return
    predicted, large = (
        dataset[name].sel({k: v for k, v in place.items() if k in dataset[name].dims}) / scale
        for name in ("test_error_predicted", "test_error_limit")
    )
    x = dataset["exponent_theory"]
    if bool(predicted.notnull().any()):
        axes.plot(x, predicted, color=colour, lw=1.2)
    elif bool(dataset["test_error"].sel(place).notnull().any()):
        middle = dataset["test_error"].sel(place).median("seed") / scale
        axes.plot(middle["exponent"], middle, color=colour, lw=1.2)
    if bool(large.notnull().any()):
        for shade, d in zip(("0.55", "0.25"), large["d_theory"].values, strict=True):
            words = f"{name}, theory at d = $10^{{{round(np.log10(d))}}}$"
            axes.plot(x, large.sel(d_theory=d), color=shade, lw=1, ls="--", label=words)
