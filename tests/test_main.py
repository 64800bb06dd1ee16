"""The command line, in processes of its own: what it leaves behind, and its exit codes."""

import os
import subprocess
import sys

import numpy as np
import pytest
from processes import QUICK, SAME_BITS, python

import mirage
from mirage import record
from mirage.folders import folder

SMALL = ["d=[20]", "alpha=[4,9]", "seeds=2", "algorithm.steps=2", "algorithm.readout_steps=2"]


def command(*arguments, cwd, **environment):
    return python("mirage", *arguments, cwd=cwd, **environment)


def test_a_run_leaves_results_figures_config_and_log(tmp_path):
    done = command("+experiment=huber_vs_mse", *SMALL, "hydra.run.dir=here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {"results.nc", "huber_vs_mse.png", "huber_vs_mse.pdf", "config.yaml", "mirage.log"}
    assert names <= set(os.listdir(tmp_path / "here"))
    assert "figure:  here/huber_vs_mse.png" in done.stdout
    assert (tmp_path / "here" / "huber_vs_mse.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "here" / "huber_vs_mse.pdf").read_bytes().startswith(b"%PDF")
    results = mirage.load(tmp_path / "here")
    assert results.cos_best.sizes == {"loss": 2, "d": 1, "alpha": 2, "seed": 2}
    for value in results.cos_best.median("seed").values.ravel():
        assert f"{value:.2f}" in done.stdout


@pytest.mark.slow
def test_a_multirun_gives_the_numbers_of_the_grid(tmp_path):
    grid = [*SMALL[2:], "+experiment=huber_vs_mse", "compare.loss=[mse]", "theory=null"]
    here = {"cwd": tmp_path, **SAME_BITS}
    jobs = command("-m", *grid, "d=20,25", "alpha=4,9", "hydra.sweep.dir=jobs", **here)
    assert jobs.returncode == 0, jobs.stderr
    one = command(*grid, "d=[20,25]", "alpha=[4,9]", "hydra.run.dir=grid", **here)
    assert one.returncode == 0, one.stderr
    b = mirage.load(tmp_path / "grid")
    a = mirage.load(tmp_path / "jobs").sel(loss=b.loss)
    assert set(a.data_vars) == set(b.data_vars)
    for name in b.data_vars:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [f.stem for f in folder("sweeps").glob("*.yaml")])
def test_every_sweep_runs(sweep, tmp_path):
    small = [s for s in SMALL if not s.startswith("d=")]
    if sweep == "delta_scan":
        small.append("loss.delta=0.3,3")
    searches = sweep == "minimal_samples_vs_d"
    if searches:
        small = ["seeds=2", "algorithm.steps=3", "search.tolerance=0.2"]
    done = command("-m", f"+sweep={sweep}", *small, "d=20", "hydra.sweep.dir=s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = mirage.load(tmp_path / "s")
    assert "status" in results if searches else results.cos_best.notnull().all()


OF_ITSELF = """# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      d: 20,21
"""


@pytest.mark.slow
def test_a_config_can_ask_for_a_multirun_by_itself(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(OF_ITSELF)
    own = ["--config-dir", ".", "+experiment=own", *SMALL[1:], "hydra.sweep.dir=s"]
    done = command(*own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert mirage.load(tmp_path / "s").d.values.tolist() == [20, 21]


COUNT = """
import atexit
from hydra._internal.hydra import Hydra

compose, calls = Hydra.compose_config, []


def counted(*arguments, **named):
    calls.append(arguments)
    return compose(*arguments, **named)


Hydra.compose_config = counted
atexit.register(lambda: print(len(calls), "compositions"))
"""


@pytest.mark.slow
def test_a_command_composes_its_config_to_check_it_and_to_run_it(tmp_path):
    (tmp_path / "count.py").write_text(COUNT)
    done = command("plugins=[count.py]", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n2 compositions\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["alhpa=3"], 2, "did you mean 'alpha'"),
        (["d==3"], 2, "cannot read the override 'd==3'"),
        (["d=[1,2"], 2, "cannot read the override"),
        (["foo"], 2, "cannot read the override 'foo'"),
        (["--bogus"], 2, "unrecognized arguments: --bogus"),
        (["--config-dir", "nowhere"], 2, "no such folder"),
        (["-m", "--cfg", "job", "d=20"], 2, "--multirun, --cfg: expected only one of them"),
        (["figure=foo"], 2, "expected one of recovery"),
        (["-m", "loss=huber,hubr"], 2, "did you mean 'huber'"),
        (["-m", "d=20,x"], 2, "d='x'"),
        (["-m", "+sweep=nope"], 2, "expected one of"),
        (["runtime.memory=10 KB"], 2, "raise it"),
        (["design=deferred", "d=10", "alpha=3"], 2, "query columns"),
        (["hydra.run.dir=/dev/null/x", *SMALL], 2, "cannot write there: /dev/null/x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_exit_code_2_and_nothing_written(arguments, code, words, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_run_goes_on_when_nobody_reads_what_it_says(tmp_path):
    words = [sys.executable, "-m", "mirage", *SMALL, "hydra.run.dir=here"]
    gone, said = os.pipe()
    os.close(gone)
    with open(said, "w") as nowhere:
        how = {"cwd": tmp_path, "env": QUICK, "check": False, "stdout": nowhere, "text": True}
        done = subprocess.run(words, stderr=nowhere, **how)
        again = subprocess.run(words, stderr=subprocess.PIPE, **how)
    assert done.returncode == 0
    assert record.read(tmp_path / "here")["state"] == "finished"
    assert mirage.load(tmp_path / "here").cos_best.notnull().all()
    assert again.returncode == 0
    assert again.stderr == ""  # nor a word about it


def test_overrides_and_options_stand_in_any_order(tmp_path):
    mixed = command("d=[20]", "--cfg", "job", "seeds=7", "--package", "seeds", cwd=tmp_path)
    assert mixed.returncode == 0, mixed.stderr
    assert mixed.stdout.strip().endswith("7")


def test_help_and_the_composed_config_are_printed_without_running(tmp_path):
    shown = command("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "+experiment=huber_vs_mse" in shown.stdout
    config = command("+experiment=huber_vs_mse", "--cfg", "job", cwd=tmp_path)
    assert config.returncode == 0
    assert "name: huber_vs_mse" in config.stdout
    assert os.listdir(tmp_path) == []


def test_what_is_garbage_is_collected_once_all_is_imported(tmp_path):
    (tmp_path / "own.py").write_text("import gc\n\nassert gc.isenabled()\n")
    shown = command("plugins=[own.py]", "--cfg", "job", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
