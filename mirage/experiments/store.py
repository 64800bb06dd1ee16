"""Results on disk: netCDF4 files, written whole or not at all."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from mirage.experiments.combine import combined
from mirage.options import require

# The results of a run, and those of all runs below a folder.
FILE, GATHERED = "results.nc", "gathered.nc"
# Written in C where YAML was built so: ten times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def save(dataset: xr.Dataset, folder: str | os.PathLike) -> Path:
    """Write `results.nc` into a folder atomically: a reader sees the old file or the new one.

    OSError where it cannot be written, ValueError for what is no Dataset.
    """
    require(isinstance(dataset, xr.Dataset), "dataset", dataset, "expected an xarray Dataset")
    return write(dataset, Path(folder) / FILE)


def write(dataset: xr.Dataset, file: Path) -> Path:
    """Write a file whole or not at all; OSError where it cannot be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-", suffix=".nc")
    os.close(handle)
    try:
        try:
            dataset.to_netcdf(temporary, engine="netcdf4")
        except RuntimeError as error:  # what the library makes of a disk that is full
            raise OSError(errno.ENOSPC, f"cannot be written ({error})", str(file)) from error
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return file


def gather(folder: Path, file: Path | None = None) -> Path:
    """Write all results below a folder into one file, by default where `load` looks for it."""
    results = load(folder)
    results.attrs["gathered"] = len(list(folder.rglob(FILE)))
    return write(results, file or folder / GATHERED)


def load(path: str | os.PathLike) -> xr.Dataset:
    """Open a result file, a run folder, or all runs below a folder, as one Dataset in memory.

    Several runs are combined along their coordinates; cells nobody ran are NaN, and what
    differs between runs without being a dimension (`loss`, say, or the setting `loss.delta` as
    `delta`) becomes one. What `python -m mirage.gather` has written is read instead while it is
    newer than all of them. Raises FileNotFoundError where there is no result, ValueError where a
    file cannot be read or runs contradict each other.
    """
    require(isinstance(path, str | os.PathLike), "path", path, "expected a file or a folder")
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.rglob(FILE))
    if not files:
        raise FileNotFoundError(f"no {FILE} in {path} or below it")
    if (gathered := _gathered(path, files)) is not None:
        return gathered
    runs = [_read(file) for file in files]
    if len(runs) == 1:
        return runs[0]
    runs, settings = _with_settings(runs)
    scalars = {name for run in runs for name, c in run.coords.items() if c.ndim == 0}
    for name in sorted(map(str, scalars)):
        values = {str(run[name].item()) if run[name].ndim == 0 else None for run in runs}
        if len(values) > 1:
            runs = [run.expand_dims(name) if run[name].ndim == 0 else run for run in runs]
    try:
        merged = combined(runs)
    except ValueError as error:
        raise ValueError(
            f"the runs below {path} hold different numbers for the same cell; "
            f"load them one by one ({error})"
        ) from error
    for setting, key in settings.items():
        merged[setting].attrs = {"long_name": key, "units": "1"}
    return merged


def _gathered(path: Path, files: list[Path]) -> xr.Dataset | None:
    """What was gathered of these files, unless one is newer or there are others."""
    kept = path / GATHERED
    if not kept.is_file() or any(f.stat().st_mtime_ns > kept.stat().st_mtime_ns for f in files):
        return None
    found = _read(kept)
    return found if found.attrs.pop("gathered", 0) == len(files) else None


def config(text: str) -> dict[str, Any]:
    """A config that was written as YAML; yaml.YAMLError where it is none."""
    return yaml.load(text, LOADER) or {}


def _read(file: Path) -> xr.Dataset:
    try:
        return xr.load_dataset(file, engine="netcdf4")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"path={file}: expected a netCDF4 file of results ({error})") from error


def _with_settings(runs: list[xr.Dataset]) -> tuple[list[xr.Dataset], dict[str, str]]:
    """The runs along the settings of options in which their configs differ, and the keys of these.

    Settings of one option that all runs share; those of different options go by their names.
    """
    keys: dict[str, str] = {}
    configs = [config(str(run.attrs.get("config", ""))) for run in runs]
    for group, first in configs[0].items():
        options = [one for every in configs if isinstance(one := every.get(group), dict)]
        names = {one.get("name") for one in options}
        if len(options) < len(runs) or len(names) > 1 or group == "runtime":
            continue
        for setting in first:
            values = [one.get(setting) for one in options]
            plain = all(isinstance(value, bool | int | float | str) for value in values)
            taken = any(setting in run.variables or setting in run.dims for run in runs)
            if plain and len(set(values)) > 1 and not taken:
                keys[setting] = f"{group}.{setting}"
                pairs = zip(runs, values, strict=True)
                runs = [run.expand_dims({setting: [value]}) for run, value in pairs]
    return runs, keys
