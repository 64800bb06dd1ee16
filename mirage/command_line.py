"""The command line: Hydra composes a config, this runs it, keeps it, and says what went wrong."""

import contextlib
import gc
import json
import logging
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import hydra
import matplotlib
import xarray as xr
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mirage import figures, record
from mirage.analysis.minimal_samples import searched
from mirage.config import ConfigError, build_all
from mirage.config.composition import compose_with_mode
from mirage.config.errors import explain, first_line
from mirage.config.fingerprint import fingerprint, sweep_fingerprint
from mirage.config.overrides import prepare
from mirage.config.plugins import import_plugins, plugins_in
from mirage.config.schema import KEYS, register
from mirage.experiments import Experiment, load, save, simulate
from mirage.experiments.execute import Keeper
from mirage.experiments.experiment import SAMPLES
from mirage.experiments.journal import Journal
from mirage.experiments.plan import Plan
from mirage.experiments.search import SearchError
from mirage.experiments.store import FILE as RESULTS
from mirage.experiments.tuning import TuningError
from mirage.figures.recovery import sample_axis
from mirage.folders import folder

log = logging.getLogger("mirage")
# Jobs of a multirun whose configs are composed and checked before the first one starts.
CHECKED_JOBS = 64
# Options of Hydra of which a command has one at most.
ALONE = ("run", "multirun", "cfg", "info", "shell_completion")
# Tracebacks: of what ended a run, and of cells.
FAILURE, FAILURES = "failure.txt", "failures.txt"


class RunError(Exception):
    """A run that started and could not end."""


def run(config: DictConfig, command: str) -> None:
    """Run one composed config into Hydra's run folder, or go on with what is there.

    `command` is what was typed.
    """
    parts = build_all(config)
    output = Path(HydraConfig.get().runtime.output_dir)
    runtime = next(iter(parts.values())).runtime
    runtime.configure()
    try:
        if not runtime.writes():
            follow(config, parts, output)
            return
        with record.held(output):
            lead(config, parts, output, command)
    except record.FolderInUseError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"cannot write the results: {_reason(error)}") from error
    except RunError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # Hydra shows the first of a multirun
            log.error("%s", error)
        raise


def follow(config: DictConfig, parts: dict[str, Experiment], output: Path) -> None:
    """Compute with the process that leads, which writes."""
    if finished(output, fingerprint(config)):
        return
    for part in parts.values():
        plan(part)
    simulate(next(iter(parts.values())) if len(parts) == 1 else parts, output)


def lead(config: DictConfig, parts: dict[str, Experiment], output: Path, command: str) -> None:
    """Run in a folder that nobody else runs in."""
    experiment, key = next(iter(parts.values())), fingerprint(config)
    before = record.read(output)
    if finished(output, key) and (results := stored(output)) is not None:
        log.info("finished already: %s; remove the folder to run it again", _shown(output))
        present(results, config, output, experiment, drawn=before.get("figure") == config.figure)
        return
    set_aside(output, str(before.get("fingerprint", "")), key)
    for part in parts.values():
        plan(part)
        if part.simulated:
            where = list(part.dimensions)
            log.info("%s: d=%s, %d seeds", part.name, where, part.seeds)
    total = sum(part.cells for part in parts.values())
    # Several processes would have to agree on what is there: together they start anew.
    journal = None if experiment.runtime.distributed else Journal(output, key)
    status = record.Record(
        output, fingerprint=key, figure=config.figure, total=total or None, command=command
    )
    keeper = Keeper(journal=journal, watch=status.advance, goes_on=journal is not None)
    try:
        (output / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
        results = simulate(experiment if len(parts) == 1 else parts, output, keeper=keeper)
        save(results, output)
        present(results, config, output, experiment)
        failures = json.loads(results.attrs.get("failures", "[]"))
        if not failures:
            status.end("finished")
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or what a cluster's signal made of it
        keeper.flush()
        status.end("interrupted")
        raise
    except Exception as error:
        keeper.flush()
        (output / FAILURE).write_text(traceback.format_exc())
        status.end("failed", error=f"{type(error).__name__}: {error}")
        if isinstance(error, MemoryError | SearchError | TuningError):
            raise RunError(str(error)) from error
        if isinstance(error, OSError):
            raise
        where = _shown(output / FAILURE)
        raise RunError(f"{type(error).__name__}: {error}; the traceback is in {where}") from error
    if failures:
        keeper.flush()
        report_failures(failures, output, status)
    for name in (FAILURE, FAILURES):  # of an earlier try
        (output / name).unlink(missing_ok=True)
    if journal is not None:
        journal.remove()


def finished(output: Path, key: str) -> bool:
    """Whether a folder holds the whole result of the config of this fingerprint."""
    said = record.read(output)
    return said.get("state") == "finished" and said.get("fingerprint") == key


def present(
    results: xr.Dataset,
    config: DictConfig,
    output: Path,
    experiment: Experiment,
    *,
    drawn: bool = False,
) -> None:
    """Draw the figure, unless it is there, and print the summary and where things are."""
    image, reason = output / f"{experiment.name}.png", ""
    if not (drawn and image.exists()):
        try:
            figures.write(figures.draw(results, config.figure), output, experiment.name)
        except ValueError as error:  # results that this figure is not made for
            reason = str(error)
    print(summary(results))
    if experiment.runtime.profile and experiment.simulated:
        print(profile(results, output))
    print(f"\nfigure:  {reason or _shown(image)}\nresults: {_shown(output / RESULTS)}")
    if reason:
        log.warning("no figure: %s; the same command with another figure=... draws one", reason)


def stored(output: Path) -> xr.Dataset | None:
    """The results of a folder, or None where they cannot be read; the file is set aside then."""
    try:
        return load(output / RESULTS)
    except (OSError, ValueError, RuntimeError):
        if (output / RESULTS).exists():
            os.replace(output / RESULTS, output / "results.unreadable")
            log.warning("%s cannot be read; it runs again", _shown(output / RESULTS))
        return None


def set_aside(output: Path, before: str, now: str) -> None:
    """Keep the results of another config that the folder holds, under another name."""
    if before not in ("", now) and (output / RESULTS).exists():
        kept = output / f"results-{before}.nc"
        os.replace(output / RESULTS, kept)
        log.warning("the results of another config that were here are now %s", _shown(kept))


def report_failures(failures: list[dict[str, str]], output: Path, status: record.Record) -> None:
    """Write the tracebacks of cells that raised and end with RunError; the others are kept."""
    file = output / FAILURES
    file.write_text("\n\n".join(f"{one['cells']}\n{one['traceback']}" for one in failures))
    status.end("failed", error=failures[0]["error"])
    raise RunError(
        f"{status.status['failed']} of {status.status['done']} cells failed, the others are kept: "
        f"{failures[0]['cells']}: {failures[0]['error']}; the tracebacks are in {_shown(file)}; "
        "the same command tries them again"
    )


def summary(results: xr.Dataset) -> str:
    """The table that a run ends with: medians of cos(best), or what a search found."""
    if "status" in results:
        over = searched(results)
        parts = [results[f"{over}_min{end}"] for end in ("", "_low", "_high")]
        found = xr.apply_ufunc(_interval, *parts, results["status"], vectorize=True)
        words = f"smallest {over} and its interval ({results.attrs['criterion']})"
        return f"\n{words}\n{found.to_series().unstack('d').to_string()}"
    if "seed" not in results.dims:
        return thresholds(results)
    x = sample_axis(results) if set(SAMPLES) & set(results.dims) else "d"
    seeds = results.sizes["seed"]
    table = results["cos_best"].median("seed").to_series().unstack(x)
    lines = [f"\nmedian cos(best) over {seeds} seeds, by {x}"]
    lines.append(table.to_string(float_format="{:.2f}".format))
    diverged = int(results["diverged"].sum())
    if diverged:
        lines.append(
            f"{diverged} of {results['diverged'].size} cells diverged and count as missing"
        )
    return "\n".join(lines)


def thresholds(results: xr.Dataset) -> str:
    """What theory found where nothing was simulated: its numbers that stand alone."""
    known = [name for name in ("alpha_c", "spectral_threshold") if name in results]
    lines = []
    for name in known:
        table = results[name]
        words = f"\n{table.attrs['long_name']}"
        values = table.to_series().to_string() if table.ndim else f"{float(table):.4g}"
        lines += [words, values]
    return "\n".join(lines)


def profile(results: xr.Dataset, output: Path) -> str:
    """Where the wall time of a run went, and where its trace is."""
    wall = float(results.attrs["wall_time_s"])
    times = json.loads(results.attrs["times_s"])
    times["the rest"] = max(0.0, wall - sum(times.values()))
    lines = [f"  {part:<10}{t:>9.2f} s {t / wall:>6.0%}" for part, t in times.items()]
    trace = f"trace:   {_shown(output / 'profile')} (TensorBoard, Perfetto)"
    return "\n".join([f"\nwhere {wall:.1f} s went", *lines, trace])


def _interval(value: float, low: float, high: float, status: str) -> str:
    if status == "not reached":
        return f"not reached [{low:.4g}, inf]"
    return f"{'<= ' if status == 'below' else ''}{value:.4g} [{low:.4g}, {high:.4g}]"


def _shown(path: Path) -> str:
    """A path as a user would type it: relative when it lies below the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def check(arguments: list[str]) -> tuple[list[str], RunMode | None]:
    """Compose and build every job's config before a folder is made; ConfigError if one fails.

    The arguments are returned, overrides last, for a multirun with a folder that the same command
    finds again, and the `hydra.mode` of the config.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    known = parser.parse_intermixed_args(arguments)
    # Hydra itself wants all overrides side by side.
    options = list(arguments)
    for override in known.overrides:
        options.remove(override)
    arguments = [*options, *known.overrides]
    asked = [f"--{name.replace('_', '-')}" for name in ALONE if getattr(known, name)]
    if len(asked) > 1:
        raise ConfigError(f"{', '.join(asked)}: expected only one of them")
    if known.help or known.hydra_help or known.info or known.shell_completion:
        return arguments, None
    if known.config_name or known.config_path:
        raise ConfigError("--config-name, --config-path: expected saved=PATH for a run's config")
    jobs = [parsed(known.overrides)]
    if known.multirun:
        jobs = BasicSweeper.split_arguments(jobs[0], max_batch_size=None)[0][:CHECKED_JOBS]
    else:
        jobs = [[override.input_line or "" for override in jobs[0]]]
    composed = [compose_with_mode(job, config_dir=known.config_dir) for job in jobs]
    for config, _ in composed:
        if config.figure not in figures.FIGURES:
            names = ", ".join(figures.FIGURES)
            raise ConfigError(f"figure={config.figure!r}: expected one of {names}")
        for part in build_all(config).values():
            if not known.multirun and not known.cfg:
                plan(part)
    first, mode = composed[0]
    if known.multirun and not any(one.startswith("hydra.sweep.dir=") for one in arguments):
        place = f"outputs/{first.name}/multirun_{sweep_fingerprint(first, arguments)}"
        arguments = [*arguments, f"hydra.sweep.dir={place}"]
    return arguments, mode


def parsed(overrides: list[str]) -> list[Override]:
    """Hydra's reading of the overrides; ConfigError names the one it cannot read."""
    read = []
    for override in overrides:
        try:
            read += OverridesParser.create().parse_overrides([override])
        except HydraException as error:
            raise ConfigError(
                f"cannot read the override {override!r}: {explain(error, KEYS)}"
            ) from error
    return read


def plan(experiment: Experiment) -> Plan | None:
    """The plan of an experiment; ConfigError when a chunk of it cannot fit `runtime.memory`."""
    experiment.runtime.configure()
    if not experiment.simulated:
        return None
    try:
        return Plan(experiment, devices=experiment.runtime.mesh().size)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def main() -> None:
    """Entry point of `python -m mirage` and of the `mirage` command.

    Exit code 0 when everything ran, 2 for a mistake in the command or the config (nothing is
    written then), 1 when a run failed, 130 when it was interrupted.
    """
    gc.freeze()  # what is imported stays: half a second of looking through it is saved
    gc.enable()
    matplotlib.use("Agg")
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a cluster ends a job
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's printer
    command = shlex.join(["python", "-m", "mirage", *sys.argv[1:]])
    plugins: list[str] = []

    def task(config: DictConfig) -> None:
        import_plugins(plugins)  # in the process of a launcher
        run(config, command)

    try:
        arguments = prepare(sys.argv[1:])
        plugins += plugins_in(arguments)
        import_plugins(plugins)
        register()
        arguments, mode = check(arguments)
        sys.argv = ["mirage", *arguments]
        # Hydra's own composes the config once more to read its mode.
        Hydra.get_mode = lambda self, config_name, overrides: mode
        hydra.main(str(folder("conf")), "config", version_base="1.3")(task)()
    except ConfigError as error:
        sys.exit(_fail(str(error), 2))
    except OSError as error:
        sys.exit(_fail(f"hydra.run.dir: cannot write there: {_reason(error)}", 2))
    except RunError as error:
        sys.exit(_fail(str(error), 1))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted; the same command goes on where it was", 130))
    except Exception as error:
        # Of the log, which Hydra opens.
        if isinstance(error, ValueError) and isinstance(error.__cause__, OSError):
            words = f"hydra.run.dir: cannot write there: {_reason(error.__cause__)}"
            sys.exit(_fail(words, 2))
        # A run says itself what ended it; in a sweep the rest is the launcher's.
        if not {"-m", "--multirun"} & set(sys.argv):
            raise
        log.debug("what the launcher raised", exc_info=error)
        reason = f"{type(error).__name__}: {first_line(error)}"
        words = "python -m mirage.status says which, and the same command goes on with them"
        sys.exit(_fail(f"the launcher lost jobs ({reason}); {words}", 1))


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


def _fail(message: str, code: int) -> int:
    print(f"mirage: {message}", file=sys.stderr)
    return code
