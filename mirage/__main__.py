"""The door: `python -m mirage +experiment=huber_vs_mse`. Hydra composes, this hands over."""

import logging
import os
import sys
from pathlib import Path

import hydra
import matplotlib
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from mirage import figures
from mirage.config import (
    ConfigError,
    build,
    compose_config,
    explain,
    folder,
    import_plugins,
    plugins_in,
    prepare,
    register,
)
from mirage.experiments import save, simulate
from mirage.figures.recovery import sample_axis

log = logging.getLogger("mirage")
# Jobs of a multirun whose configs are composed and checked before the first one starts.
CHECKED_JOBS = 64


def run(config: DictConfig) -> None:
    """Run one composed config into Hydra's run folder."""
    experiment = build(config)
    output = Path(HydraConfig.get().runtime.output_dir)
    log.info("%s: d=%s, %d seeds", experiment.name, list(experiment.d), experiment.seeds)
    (output / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    results = simulate(experiment)
    saved = save(results, output)
    drawn = figures.write(figures.draw(results, config.figure), output, experiment.name)
    x = sample_axis(results)
    table = results["cos_best"].median("seed").transpose(..., "d", x)
    print(f"\nmedian cos(best) over {experiment.seeds} seeds, by {x}")
    print(table.to_series().unstack(x).to_string(float_format="{:.2f}".format))
    diverged = int(results["diverged"].sum())
    if diverged:
        print(f"{diverged} of {results['diverged'].size} cells diverged and count as missing")
    print(f"\nfigure:  {_shown(drawn[0])}\nresults: {_shown(saved)}")


def _shown(path: Path) -> str:
    """A path as a user would type it: relative when it lies below the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def check(arguments: list[str]) -> None:
    """Compose and build every job's config before Hydra makes a folder; ConfigError if one fails."""
    known = get_args_parser().parse_args(arguments)
    if known.help or known.hydra_help or known.info or known.shell_completion:
        return
    overrides = prepare(known.overrides)
    jobs = [overrides]
    if known.multirun:
        try:
            parsed = OverridesParser.create().parse_overrides(overrides)
            jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0][:CHECKED_JOBS]
        except Exception as error:
            raise ConfigError(explain(error)) from error
    for job in jobs:
        config = compose_config(job, config_dir=known.config_dir)
        figures_known = ", ".join(figures.FIGURES)
        if config.figure not in figures.FIGURES:
            raise ConfigError(f"figure={config.figure!r}: expected one of {figures_known}")
        build(config)


def main() -> None:
    """Entry point of `python -m mirage` and of the `mirage` command.

    Exit code 0 when everything ran, 2 for a mistake in the command or the config (nothing is
    written then), 1 when a run failed, 130 when it was interrupted.
    """
    matplotlib.use("Agg")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's printer
    arguments = prepare(sys.argv[1:])
    try:
        import_plugins(plugins_in(arguments))
        register()
        check(arguments)
        sys.argv = ["mirage", *arguments]
        hydra.main(str(folder("conf")), "config", version_base="1.3")(run)()
    except ConfigError as error:
        sys.exit(_fail(str(error), 2))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(_fail(f"cannot write the run: {where}{error.strerror or error}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))


def _fail(message: str, code: int) -> int:
    print(f"mirage: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
