"""Where a result comes from: config, versions, device, times."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from mirage.experiments.execute import Executor
from mirage.experiments.experiment import Experiment


def provenance(experiment: Experiment, executor: Executor | None, wall: float) -> dict[str, Any]:
    """The attributes of a result that took `wall` seconds; no executor where only theory ran."""
    device = jax.devices()[0]
    packages = ("mirage", "jax", "jaxlib", "equinox", "optax", "numpy", "xarray")
    return {
        "experiment": experiment.name,
        "config": experiment.config,
        "root_seed": experiment.root_seed,
        "device": f"{device.device_kind} ({device.platform})",
        "versions": json.dumps({p: version(p) for p in packages}),
        "python": platform.python_version(),
        "git_commit": _git_commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "tuned": json.dumps({"/".join(map(str, k)): v for k, v in experiment.tuned.items()}),
        **_criterion(experiment),
        "wall_time_s": round(wall, 3),
        **({} if executor is None else _execution(executor)),
    }


def _execution(executor: Executor) -> dict[str, Any]:
    """The plan of a run and where its time went."""
    device = jax.devices()[0]
    return {
        "plan": json.dumps(executor.plan.described()),
        "device": f"{executor.mesh.size} x {device.device_kind} ({device.platform})",
        "compute_time_s": round(executor.clock.compute, 3),
        "compile_time_s": round(executor.clock.seconds["compile"], 3),
        "times_s": json.dumps({k: round(v, 3) for k, v in executor.clock.seconds.items()}),
        "compilations": json.dumps(executor.clock.compilations),
    }


def _git_commit() -> str:
    """The commit of the checkout this package is run from; empty when it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _criterion(experiment: Experiment) -> dict[str, Any]:
    """What a search searched for, and the κ of a target that has one, for the theory beside it."""
    if experiment.search is None:
        return {}
    search = experiment.search
    facts = {"criterion": search.words(), "confidence": search.confidence}
    kappa = getattr(experiment.target, "condition_number", None)
    return {
        **facts,
        "search_high": search.high,
        **({} if kappa is None else {"condition_number": kappa}),
    }
