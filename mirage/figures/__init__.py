"""Figures: a Dataset in, a matplotlib Figure out."""

import inspect
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from mirage.config.errors import first_line
from mirage.figures.amp_transition import amp_transition
from mirage.figures.compute import compute
from mirage.figures.depth_advantage import depth_advantage
from mirage.figures.diagnosis import diagnosis as draw_diagnosis
from mirage.figures.error_surface import error_surface
from mirage.figures.escape_times import escape_times
from mirage.figures.finite_size import finite_size
from mirage.figures.gd_to_spectral import gd_to_spectral
from mirage.figures.gd_vs_power_iteration import gd_vs_power_iteration
from mirage.figures.giant_step import giant_step
from mirage.figures.hierarchical_spectrum import feature_selection, hierarchical_spectrum
from mirage.figures.label_information import label_information
from mirage.figures.lazy_limit import lazy_limit
from mirage.figures.learning_curves import learning_curves
from mirage.figures.log_d_steps import log_d_steps
from mirage.figures.loss_design import loss_design
from mirage.figures.minimal_samples import minimal_samples, minimal_samples_vs_steps
from mirage.figures.networks_vs_amp import networks_vs_amp
from mirage.figures.recovery import recovery
from mirage.figures.reusing_batch import reusing_batch, reusing_batch_dmft
from mirage.figures.scaling_laws import hierarchical_scaling_law, readout_risk
from mirage.figures.spectral_transition import spectral_transition
from mirage.figures.state_evolution import state_evolution
from mirage.figures.stopping_time import stopping_time
from mirage.figures.tree_features import tree_features
from mirage.figures.universality import universality
from mirage.options import require

FIGURES: dict[str, Callable[..., Figure]] = {
    "recovery": recovery,
    "readout_risk": readout_risk,
    "amp_transition": amp_transition,
    "compute": compute,
    "depth_advantage": depth_advantage,
    "error_surface": error_surface,
    "escape_times": escape_times,
    "feature_selection": feature_selection,
    "finite_size": finite_size,
    "gd_to_spectral": gd_to_spectral,
    "giant_step": giant_step,
    "hierarchical_scaling_law": hierarchical_scaling_law,
    "hierarchical_spectrum": hierarchical_spectrum,
    "label_information": label_information,
    "learning_curves": learning_curves,
    "log_d_steps": log_d_steps,
    "lazy_limit": lazy_limit,
    "loss_design": loss_design,
    "minimal_samples": minimal_samples,
    "minimal_samples_vs_steps": minimal_samples_vs_steps,
    "gd_vs_power_iteration": gd_vs_power_iteration,
    "networks_vs_amp": networks_vs_amp,
    "reusing_batch": reusing_batch,
    "reusing_batch_dmft": reusing_batch_dmft,
    "spectral_transition": spectral_transition,
    "state_evolution": state_evolution,
    "stopping_time": stopping_time,
    "tree_features": tree_features,
    "universality": universality,
}


Draw = Callable[[xr.Dataset], Figure]
# What a figure raises for a variable or an attribute that is not there.
LACKING = (AttributeError, KeyError, StopIteration)


def figure(function: Draw) -> Draw:
    """Decorator by which a user's own function is a figure like any other, `figure=its_name`.

    It draws a Dataset, and raises ValueError where it cannot; its docstring is the caption. Its
    name must not be that of another figure (ValueError).
    """
    name = function.__name__
    require(name not in FIGURES, "figure", name, "there is one of this name; expected another")
    FIGURES[name] = function
    return function


def draw(dataset: xr.Dataset, figure: str = "recovery") -> Figure:
    """The figure of that name; ValueError lists the names there are, or says why there is none."""
    require(isinstance(dataset, xr.Dataset), "dataset", dataset, "expected an xarray Dataset")
    require(figure in FIGURES, "figure", figure, f"expected one of {', '.join(FIGURES)}")
    if figure == "recovery":
        figure = _fitting(dataset)
    function = FIGURES[figure]
    try:
        drawn = function(dataset)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"figure={figure}: {_reason(error, function)}") from error
    require(isinstance(drawn, Figure), "figure", figure, f"it returned {drawn!r}, not a Figure")
    return drawn


def _reason(error: Exception, function: Draw) -> str:
    """Why a figure was not drawn: of a user's own, what was raised and on which line."""
    if function.__module__.startswith("mirage.") and isinstance(error, LACKING):
        return f"the dataset does not have what it shows ({first_line(error)})"
    frames = traceback.extract_tb(error.__traceback__)
    file, line = inspect.getfile(function), inspect.unwrap(function).__code__.co_firstlineno
    for frame in frames:  # none of them where it cannot be called
        if frame.filename == file:
            line = frame.lineno
    return f"{type(error).__name__}: {first_line(error)} ({Path(file).name}, line {line})"


def _fitting(dataset: xr.Dataset) -> str:
    """The figure of a dataset for which none was asked."""
    if "status" in dataset:
        return "minimal_samples"  # a search has thresholds and no curves
    if "cos_best" in dataset:
        return "recovery"
    theory = {
        "start": "state_evolution",
        "family": "loss_design",
        "place": "label_information",
    }
    return next((name for dim, name in theory.items() if dim in dataset.dims), "recovery")


def write(figure: Figure, folder: str | os.PathLike, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.pdf`, each whole or not at all."""
    paths = []
    for suffix in ("png", "pdf"):
        path = Path(folder) / f"{name}.{suffix}"
        temporary = path.with_name(f".{path.name}.tmp")
        figure.savefig(temporary, format=suffix)
        os.replace(temporary, path)
        paths.append(path)
    return paths


__all__ = ["FIGURES", "draw", "draw_diagnosis", "figure", "recovery", "write"]
