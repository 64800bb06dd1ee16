"""What a report says of a folder: runs, cells, figures, config, where it comes from."""

import dataclasses
import inspect
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
import yaml
from omegaconf import OmegaConf

from mirage import figures, record
from mirage.config import compose_config
from mirage.experiments import load, store
from mirage.experiments.store import FILE

# What a table of cells shows, where there is such a variable: medians over seeds.
MEASURES = ("cos_best", "test_error", "generalisation_error", "weighted_mse")
Cells = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure as SVG, and what its function says of it."""

    name: str
    svg: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder: its path below the report's, its status, and what came of it."""

    name: str
    status: dict[str, Any]
    state: str
    failures: list[dict[str, str]]
    settings: str


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a page shows."""

    title: str
    state: str
    runs: list[Run]
    drawings: list[Drawing]
    cells: Cells
    columns: list[str]
    differences: list[tuple[str, str, str]]
    provenance: list[tuple[str, str]]
    command: str
    words: list[str]


def collect(folder: Path, *, figure: str | None = None) -> Report:
    """What there is in a run folder, or in all runs below one.

    FileNotFoundError where there is none. `figure` draws another figure than the config names;
    nothing is run again.
    """
    places = sorted({f.parent for name in (record.FILE, FILE) for f in folder.rglob(name)})
    if not places:
        raise FileNotFoundError(f"no run in {folder} or below it")
    finished = [place for place in places if (place / FILE).exists()]
    words: list[str] = []
    results = _results(folder, finished, words)
    configs = {place: _config(place) for place in places}
    config = next((c for c in configs.values() if c), {})
    runs = [_run(folder, place, configs[place]) for place in places]
    states = [run.state for run in runs]
    whole = all(state == "finished" for state in states)
    columns, cells = table(results) if results is not None else ([], [])
    drawings = []
    if results is not None:
        drawings = _drawings(results, figure or str(config.get("figure", "recovery")), words)
    attrs = results.attrs if results is not None else {}
    return Report(
        title=str(config.get("name") or attrs.get("experiment") or folder.name),
        state="finished" if whole else ", ".join(dict.fromkeys(s for s in states)),
        runs=runs,
        drawings=drawings,
        cells=cells,
        columns=columns,
        differences=differences(config) if config else [],
        provenance=_provenance(attrs),
        command=_command(attrs, runs),
        words=words,
    )


def _results(folder: Path, finished: list[Path], words: list[str]) -> xr.Dataset | None:
    if not finished:
        words.append("No run has finished yet.")
        return None
    try:
        return load(folder if len(finished) > 1 else finished[0])
    except ValueError as error:
        words.append(f"The runs cannot be shown as one: {str(error).splitlines()[0]}")
        return load(finished[0])


def _config(place: Path) -> dict[str, Any]:
    try:
        return store.config((place / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}


def _run(folder: Path, place: Path, config: dict[str, Any]) -> Run:
    status = record.read(place)
    state = str(status.get("state", "")) or ("finished" if (place / FILE).exists() else "unknown")
    failures = []
    for name in ("failures.txt", "failure.txt"):
        if state == "failed" and (place / name).exists():
            text = (place / name).read_text()
            failures.append({"words": status.get("error", name), "traceback": text})
    own = [o for o in _overrides(place) if not o.startswith(("+experiment", "hydra."))]
    return Run(str(place.relative_to(folder)), status, state, failures, " ".join(own))


def _overrides(place: Path) -> list[str]:
    try:
        return list(yaml.safe_load((place / ".hydra" / "overrides.yaml").read_text()) or [])
    except (OSError, yaml.YAMLError):
        return []


def table(results: xr.Dataset) -> tuple[list[str], Cells]:
    """A row for every cell, its seeds together: where it is, its state and medians of measures."""
    if "seed" not in results.dims or "diverged" not in results:
        return [], []
    axes = [str(dim) for dim in results["diverged"].dims if dim != "seed"]
    measures = [name for name in MEASURES if name in results]
    measures = [name for name in measures if set(results[name].dims) == {*axes, "seed"}]
    count = int(results.sizes["seed"])
    rows = []
    flat = {name: results[name].transpose(*axes, "seed").values for name in measures}
    diverged = results["diverged"].transpose(*axes, "seed").values
    failed = results["failed"].transpose(*axes, "seed").values if "failed" in results else None
    for place in itertools.product(*(range(results.sizes[axis]) for axis in axes)):
        lost = int(diverged[place].sum())
        raised = 0 if failed is None else int(failed[place].sum())
        state = "failed" if raised else f"{lost} diverged" if lost else "done"
        where = {a: results[a].values[i] for a, i in zip(axes, place, strict=True)}
        seen = {name: _median(values[place]) for name, values in flat.items()}
        if not raised and not lost and flat and all(v is None for v in seen.values()):
            continue  # a cell that nobody asked for
        rows.append(
            {**{k: _plain(v) for k, v in where.items()}, "seeds": count, "state": state, **seen}
        )
    return [*axes, "seeds", "state", *measures], rows


def _median(values: np.ndarray) -> float | None:
    met = values[np.isfinite(values)]
    return float(np.median(met)) if len(met) else None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _drawings(results: xr.Dataset, name: str, words: list[str]) -> list[Drawing]:
    drawn = []
    for one in dict.fromkeys((name, "recovery")):
        try:
            svg = _svg(results, one)
        except (ValueError, KeyError, StopIteration) as error:
            if one == name:
                words.append(f"No figure: {error}")
            continue
        caption = inspect.getdoc(figures.FIGURES[one]) or ""
        drawn.append(Drawing(one, svg, " ".join(caption.split())))
        break
    return drawn


def _svg(results: xr.Dataset, name: str) -> str:
    drawn = figures.draw(results, name)
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        drawn.savefig(stream, format="svg", metadata={"Date": None})
    plt.close(drawn)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def differences(config: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The keys of a config that are not as in the defaults: key, default, value."""
    default = dict(_flat(OmegaConf.to_container(compose_config([]), resolve=True)))
    own = dict(_flat(config))
    return [
        (key, _shown(default.get(key)), _shown(value))
        for key, value in own.items()
        if default.get(key) != value
    ]


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _shown(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _provenance(attrs: dict[str, Any]) -> list[tuple[str, str]]:
    words = {
        "created": "finished",
        "device": "device",
        "git_commit": "commit",
        "python": "Python",
        "root_seed": "root seed",
        "wall_time_s": "wall time, s",
        "compile_time_s": "of which compiling, s",
        "compute_time_s": "of which computing, s",
    }
    found = [(text, str(attrs[key])) for key, text in words.items() if str(attrs.get(key, ""))]
    versions = json.loads(attrs.get("versions", "{}"))
    if versions:
        found.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    return found


def _command(attrs: dict[str, Any], runs: list[Run]) -> str:
    """The command that gives these results again, as it was typed."""
    typed = [str(run.status["command"]) for run in runs if run.status.get("command")]
    return typed[0] if typed else str(attrs.get("command", ""))
