"""Sweeps on clusters, for real: one worker is killed, and nothing that others wrote is lost.

Slurm is one node on this machine, which `tests/cluster/slurm` starts and stops.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import QUICK, SAME_BITS
from test_main import command
from test_resume import HUBER, same

import mirage
from mirage import record

SWEEP = [
    *("-m", *HUBER, "d=20,25", "alpha=[4,9]"),
    *("seeds=16", "algorithm.steps=400", "runtime.memory=4 MB", "runtime.seeds_at_once=1"),
]
# What Hydra is told, and how a sweep ends of which a worker was killed. Ray starts the job again;
# Slurm cannot say that it died without an accounting database, so that the user ends the wait.
LAUNCHERS = {
    "slurm": (["runtime=slurm", "hydra.launcher.cpus_per_task=1"], 130),
    "ray": (["runtime=ray", "hydra.launcher.ray.remote.num_cpus=1"], 0),
    "submitit_local": (["hydra/launcher=submitit_local"], 1),
}
LAST = {
    0: "",
    1: "the launcher lost jobs",
    130: "the same command goes on where it was",
}
NEEDED = {"ray": "hydra_ray_launcher"}
# Daemons are where a user's own path may not lead.
SYSTEM = f"{os.environ['PATH']}:/usr/sbin:/sbin"
ALONE = {**SAME_BITS, "NPROC": "1"}


@pytest.fixture
def environment(request, tmp_path):
    """The environment of the launcher, with a Slurm of its own where it is Slurm."""
    launcher = request.getfixturevalue("launcher")
    plugin = NEEDED.get(launcher, "hydra_submitit_launcher")
    if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"needs {plugin}, an optional extra")
    if launcher != "slurm":
        yield ALONE
        return
    here = all(shutil.which(one, path=SYSTEM) for one in ("slurmctld", "slurmd", "munged"))
    if os.getuid() != 0 or not here:
        pytest.skip("needs the packages slurm-wlm and munge, and root to start them")
    script, folder = Path(__file__).with_name("slurm"), tmp_path / "slurm"
    subprocess.run([script, "start", folder], check=True)
    yield {**ALONE, "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([script, "stop", folder], check=True)


def kill_a_worker(sweeps: Path, process: subprocess.Popen) -> Path:
    """SIGKILL to the first job that has computed something; the folder of the sweep."""
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        for file in sweeps.glob("multirun_*/*/status.json"):
            said = record.read(file.parent)
            if said.get("state") == "running" and said["done"]:
                os.kill(said["pid"], signal.SIGKILL)
                return file.parent.parent
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"no job was running: {process.communicate()}")


def states(folder: Path) -> list[str]:
    return [record.read(file.parent).get("state", "") for file in folder.glob("*/status.json")]


def wait_for_the_others(folder: Path) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end and sorted(states(folder)) != ["finished", "killed"]:
        time.sleep(0.5)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of the sweep by the basic launcher, that nothing kills."""
    place = tmp_path_factory.mktemp("undisturbed")
    done = command(*SWEEP, "hydra.sweep.dir=plain", cwd=place, **ALONE)
    assert done.returncode == 0, done.stderr
    return mirage.load(place / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_worker_is_killed_in_mid_sweep(launcher, environment, undisturbed, tmp_path):
    how, code = LAUNCHERS[launcher]
    run = [sys.executable, "-m", "mirage", *SWEEP, *how]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(run, cwd=tmp_path, env=QUICK | environment, **pipes)
    folder = kill_a_worker(tmp_path / "outputs" / "huber_vs_mse", process)
    if code == 130:
        wait_for_the_others(folder)
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert LAST[code] in errors
    assert "Traceback" not in errors
    again = command(*SWEEP, *how, cwd=tmp_path, **environment)
    assert again.returncode == 0, again.stderr
    assert states(folder) == ["finished"] * 2
    # The basic launcher finds it all, and has the same numbers.
    found = command(*SWEEP, cwd=tmp_path, **ALONE)
    assert found.stdout.count("finished already") == 2
    same(mirage.load(folder), undisturbed)
