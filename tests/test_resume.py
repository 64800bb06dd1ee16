"""Runs that are interrupted, killed, run twice, or fail in part: nothing is lost or mixed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock
from processes import QUICK, SAME_BITS
from test_main import SMALL, command

import mirage
from mirage import Experiment, record, simulate, status
from mirage.algorithms import LayerwiseGd
from mirage.config.composition import compose_config
from mirage.config.fingerprint import fingerprint
from mirage.experiments.execute import Executor, Keeper
from mirage.experiments.journal import Journal
from mirage.experiments.store import save
from mirage.losses import Huber, Mse
from mirage.runtime import Default

# One loss for what compares bits: each is compiled as for users, which takes seconds.
HUBER = ["+experiment=huber_vs_mse", "compare.loss=[huber]", "theory=null"]
ONE = {"cos": np.arange(6.0).reshape(2, 3), "trajectory": {"q": np.ones(2, np.float32)}}
TWO = {"flag": np.array([True, False])}


def grid(**changes):
    settings = {
        "loss": {"mse": Mse(), "huber": Huber()},
        "algorithm": LayerwiseGd(steps=3, readout_steps=2),
        "d": [20, 25],
        "alpha": [4.0, 9.0],
        "seeds": 3,
        "runtime": Default(progress=False),
    }
    return Experiment(**{**settings, **changes})


def same(a, b):
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))


def files(journal):
    return [file for file in journal.folder.iterdir() if file.suffix == ".npz"]


def test_a_journal_gives_back_what_it_was_given(tmp_path):
    journal = Journal(tmp_path, "key")
    journal.put("one", ONE)
    assert journal.get("one") is ONE  # not written yet
    journal.flush()
    journal.put("two", TWO)
    journal.flush()
    again = Journal(tmp_path, "key")
    for unit, values in (("one", ONE), ("two", TWO), ("one", ONE)):
        found = again.get(unit)
        assert found is not None
        flat = [(found[k], v) for k, v in values.items() if not isinstance(v, dict)]
        for a, b in flat:
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    np.testing.assert_array_equal(again.get("one")["trajectory"]["q"], ONE["trajectory"]["q"])
    assert again.get("three") is None
    assert Journal(tmp_path, "other key").get("one") is None
    assert again.part("b").get("one") is None
    inner = again.part("b").part("tune")
    assert inner.folder.parent.parent == again.folder  # of this key alone, and removed with it
    inner.put("one", ONE)
    inner.flush()
    assert Journal(tmp_path, "other key").part("b").part("tune").get("one") is None
    again.remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pickle"])
def test_a_file_that_cannot_be_read_is_set_aside_and_the_others_kept(tmp_path, damage, caplog):
    journal = Journal(tmp_path, "key")
    journal.put("two", TWO)
    journal.flush()
    (kept,) = files(journal)
    journal.put("one", ONE)
    journal.flush()
    (file,) = {*files(journal)} - {kept}
    content = file.read_bytes()
    if damage == "pickle":
        np.savez(file, **{"x/y": np.array([{"a": 1}], object)})
    else:
        middle = content.index(b"\x80?", len(content) // 8) if damage == "flipped" else 0
        flipped = content[:middle] + b"\x81?" + content[middle + 2 :]
        file.write_bytes({"cut": content[:-40], "flipped": flipped, "empty": b""}[damage])
    again = Journal(tmp_path, "key")
    assert again.get("one") is None
    np.testing.assert_array_equal(again.get("two")["flag"], TWO["flag"])
    assert "computed again" in caplog.text
    assert [f.suffix for f in journal.folder.iterdir()].count(".unreadable") == 1


@pytest.mark.bits
@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_grid_goes_on_and_ends_with_the_same_bits(tmp_path, stop_after):
    whole, units = simulate(grid()), []

    def stops(cells, *, kept=False, failed=False):
        units.append(cells)
        if len(units) == stop_after:
            raise KeyboardInterrupt

    keeper = Keeper(journal=Journal(tmp_path, "key"), watch=stops)
    with pytest.raises(KeyboardInterrupt):
        simulate(grid(), keeper=keeper)
    keeper.flush()
    counts = {True: 0, False: 0}

    def counted(cells, *, kept=False, failed=False):
        counts[kept] += cells

    again = simulate(grid(), keeper=Keeper(journal=Journal(tmp_path, "key"), watch=counted))
    assert counts[True] == sum(units)
    assert counts[True] + counts[False] == grid().cells == 24
    same(whole, again)


@pytest.mark.bits
def test_cells_that_raise_are_flagged_and_the_others_kept(monkeypatch):
    train = Executor._train

    def fails(self, batch, *rest):
        if batch.d == 25:
            raise RuntimeError("no luck\nat all")
        return train(self, batch, *rest)

    whole = simulate(grid())
    monkeypatch.setattr(Executor, "_train", fails)
    with pytest.raises(RuntimeError, match="no luck"):
        simulate(grid())
    results = simulate(grid(), keeper=Keeper(goes_on=True))
    assert results.failed.sel(d=25).all()
    assert not results.failed.sel(d=20).any()
    assert not results.diverged.any()
    assert results.cos_best.sel(d=25).isnull().all()
    np.testing.assert_array_equal(results.cos_best.sel(d=20), whole.cos_best.sel(d=20))
    first, second = json.loads(results.attrs["failures"])
    assert first["error"] == "RuntimeError: no luck"
    assert "in fails" in first["traceback"]
    assert (first["cells"], second["cells"]) == (
        "d=25, n=[100, 225], mse",
        "d=25, n=[100, 225], huber",
    )


def test_fingerprints_differ_where_numbers_do(tmp_path):
    plugin = tmp_path / "own.py"
    plugin.write_text("A = 1\n")
    overrides = ["d=20", f"plugins=[{plugin}]"]
    first = fingerprint(compose_config(overrides))
    for other in ("runtime.memory=3 GB", "figure=learning_curves", "runtime.progress=false"):
        assert fingerprint(compose_config([*overrides, other])) == first
    for other in ("d=21", "loss.delta=2", "seeds=11", "compare.loss=[mse]", "+theory=spectral"):
        assert fingerprint(compose_config([*overrides, other])) != first
    plugin.write_text("A = 2\n")
    assert fingerprint(compose_config(overrides)) != first


def test_one_process_a_folder_and_its_state(tmp_path):
    status_file = tmp_path / record.FILE
    progress = record.Record(tmp_path, fingerprint="f", figure="recovery", total=10)
    refused = pytest.raises(record.FolderInUseError, match="process")
    with record.held(tmp_path), refused, record.held(tmp_path):
        pass
    with record.held(tmp_path):  # it was let go
        pass
    progress.advance(4)
    progress.advance(2, kept=True)
    progress.write()
    with record.held(tmp_path):
        assert record.read(tmp_path)["state"] == "running"
        assert "6/10" in status.table(status.rows(tmp_path))
    # Whatever machine it ran on, its process has let go.
    assert record.read(tmp_path)["state"] == "killed"
    assert "1 killed" in status.table(status.rows(tmp_path))
    progress.end("finished")
    assert "1 runs: 1 finished" in status.table(status.rows(tmp_path))
    status_file.write_text("{")
    assert record.read(tmp_path) == {}


def test_time_left_is_that_of_the_cells_computed_here():
    said = {"state": "running", "host": "elsewhere", "total": 100, "done": 60, "kept": 40}
    assert status.left({**said, "seconds": 10.0}) == 20.0
    assert status.left({**said, "seconds": 10.0, "state": "finished"}) is None
    assert status.left({**said, "kept": 60, "seconds": 1.0}) is None


@pytest.mark.slow
def test_the_same_command_again_does_nothing_and_another_config_sets_results_aside(tmp_path):
    arguments = ["+experiment=huber_vs_mse", *SMALL, "theory=null"]
    first = command(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "outputs" / "huber_vs_mse").iterdir()
    written = (folder / "results.nc").stat().st_mtime_ns
    again = command(*arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "finished already" in again.stdout
    assert again.stdout.splitlines()[-9:] == first.stdout.splitlines()[-9:]
    assert (folder / "results.nc").stat().st_mtime_ns == written
    other = command(*arguments, "root_seed=1", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert "the results of another config that were here are now" in other.stdout
    aside = xr.load_dataset(folder / f"results-{folder.name}.nc")
    assert not aside.equals(mirage.load(folder))
    # A file that was cut is not taken for a result.
    (folder / "results.nc").write_bytes((folder / "results.nc").read_bytes()[:1000])
    mended = command(*arguments, "root_seed=1", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert "it runs again" in mended.stdout
    assert mirage.load(folder).cos_best.notnull().all()
    # Two at once.
    lock = FileLock(folder / record.LOCK)
    with lock:
        second = command(*arguments, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert second.returncode == 1
    assert "is running there" in second.stderr
    assert len(second.stderr.strip().splitlines()) <= 2


BROKEN = '''
from mirage.losses import Huber


class Broken(Huber):
    """A loss that does not hold everywhere."""

    def value(self, t, y):
        raise RuntimeError("does not hold")
'''


def test_a_loss_that_raises_leaves_its_traceback_and_the_other_losses(tmp_path):
    (tmp_path / "own.py").write_text(BROKEN)
    own = ["plugins=[own.py]", "compare.loss=[huber,broken]", *SMALL, "hydra.run.dir=here"]
    done = command(*own, cwd=tmp_path)
    assert done.returncode == 1
    assert "RuntimeError: does not hold; the tracebacks are in here/failures.txt" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "in value" in (tmp_path / "here" / "failures.txt").read_text()
    said = record.read(tmp_path / "here")
    assert (said["state"], said["done"]) == ("failed", 8)
    results = mirage.load(tmp_path / "here")
    assert results.failed.sel(loss="broken").all()
    # Mended, the same command leaves no trace of it; a file that changed is another config.
    holds = BROKEN.replace('raise RuntimeError("does not hold")', "return t - y")
    (tmp_path / "own.py").write_text(holds)
    mended = command(*own, cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert not (tmp_path / "here" / "failures.txt").exists()
    assert "failed" not in mirage.load(tmp_path / "here")
    results = mirage.load(next((tmp_path / "here").glob("results-*.nc")))
    assert results.cos_best.sel(loss="huber").notnull().all()


FIGURE = """
import os, signal
from mirage.figures import figure


@figure
def own(dataset):
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_run_that_is_interrupted_while_its_figure_is_drawn_says_so(tmp_path):
    (tmp_path / "own.py").write_text(FIGURE)
    own = ["plugins=[own.py]", "figure=own", *SMALL, "hydra.run.dir=here"]
    done = command(*own, cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert "the same command goes on" in done.stderr
    assert record.read(tmp_path / "here")["state"] == "interrupted"
    assert mirage.load(tmp_path / "here").cos_best.notnull().all()


# As a launcher of a cluster does, whose signal ends the process with SystemExit.
LAUNCHED = """
import signal, sys
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(9))
from mirage.command_line import main
main()
"""


@pytest.mark.slow
def test_interrupts_and_kills_lose_nothing(tmp_path):
    """Ctrl-C, SIGKILL and a cluster's signal at different moments, then the same numbers."""
    arguments = ["+experiment=huber_vs_mse", "theory=null", "seeds=40", "algorithm.steps=30"]
    arguments += ["d=[20,30]", "alpha=[4,9,15]", "runtime.devices=1", "runtime.memory=8 MB"]
    whole = command(*arguments, "hydra.run.dir=whole", cwd=tmp_path, **SAME_BITS)
    assert whole.returncode == 0, whole.stderr
    run = [sys.executable, "-c", LAUNCHED, *arguments, "hydra.run.dir=killed"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    stops = [signal.SIGINT, signal.SIGKILL, signal.SIGUSR2]
    done = 0
    for stop in stops:
        process = subprocess.Popen(run, cwd=tmp_path, env=QUICK | SAME_BITS, **pipes)
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            said = record.read(tmp_path / "killed")
            if said.get("pid") == process.pid and said["done"] > said["kept"]:
                break
            time.sleep(0.2)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=120)
        if stop == signal.SIGINT and process.returncode:
            assert process.returncode == 130, errors
            assert "the same command goes on where it was" in errors
        said = record.read(tmp_path / "killed")
        assert said["kept"] >= done  # nothing that was written is computed again
        if process.returncode == 0:
            break
        if stop != signal.SIGKILL:
            assert said["state"] == "interrupted"
            done = said["done"]
        else:
            assert said["state"] == "killed"
    last = command(*arguments, "hydra.run.dir=killed", cwd=tmp_path, **SAME_BITS)
    assert last.returncode == 0, last.stderr
    same(mirage.load(tmp_path / "whole"), mirage.load(tmp_path / "killed"))
    assert not (tmp_path / "killed" / "cells").exists()


def test_a_disk_that_is_full_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    before = xr.Dataset({"a": 1.0})
    save(before, tmp_path)

    def full(self, *arguments, **named):
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match="cannot be written"):
        save(xr.Dataset({"a": 2.0}), tmp_path)
    monkeypatch.undo()
    assert mirage.load(tmp_path).equals(before)
    assert os.listdir(tmp_path) == ["results.nc"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_without_room_and_one_that_is_read_only(small_disk):
    """A clear word each; with room the same command goes on to the numbers of a run that had it."""
    arguments = [*HUBER, "d=[20,25]", "alpha=[4,9]", "seeds=40", "algorithm.steps=30"]
    arguments += [f"hydra.run.dir={small_disk / 'run'}"]
    place = small_disk.parent
    full = command(*arguments, cwd=place, **SAME_BITS)
    assert full.returncode == 1, full.stdout
    assert "No space left on device" in full.stderr
    assert len(full.stderr.strip().splitlines()) <= 2
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    ended = command(*arguments, cwd=place, **SAME_BITS)
    assert ended.returncode == 0, ended.stderr
    plain = command(*arguments[:-1], "hydra.run.dir=plain", cwd=place, **SAME_BITS)
    assert plain.returncode == 0, plain.stderr
    same(mirage.load(small_disk / "run"), mirage.load(place / "plain"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for run in ("run", "another"):
        refused = command(*arguments[:-1], f"hydra.run.dir={small_disk / run}", cwd=place)
        assert refused.returncode in (1, 2), refused.stdout
        assert "Read-only file system" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) <= 2


SWEEP = ["-m", *HUBER, *SMALL[2:], "alpha=[4,9]", "d=20,25"]


@pytest.mark.slow
def test_a_sweep_is_found_again_and_another_is_another(tmp_path):
    two = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    # As many threads for one job at a time as for each of two: bits depend on them.
    one = {"NPROC": "1", **SAME_BITS}
    first = command(*SWEEP, "runtime.devices=1", *two, cwd=tmp_path, **one)
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "outputs" / "huber_vs_mse").iterdir()
    assert folder.name.startswith("multirun_")
    results = mirage.load(folder)
    assert results.cos_best.notnull().all()
    assert results.cos_best.sizes == {"loss": 1, "d": 2, "alpha": 2, "seed": 2}
    (folder / "1" / "status.json").unlink()
    (folder / "1" / "results.nc").unlink()  # as if it had been killed
    again = command(*SWEEP, cwd=tmp_path, **one)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished already") == 1
    same(mirage.load(folder), results)
    other = command(*SWEEP[:-1], "d=20,26", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert len(list(folder.parent.iterdir())) == 2


@pytest.mark.parametrize("others", [True, False])
def test_a_launcher_that_is_missing_is_named_with_what_installs_it(monkeypatch, others):
    def find(name):
        if not others:
            raise ModuleNotFoundError(f"No module named {name.split('.')[0]!r}")

    monkeypatch.setattr("importlib.util.find_spec", find)
    with pytest.raises(mirage.ConfigError, match=r'joblib: not installed.*"mirage\[joblib\]"'):
        compose_config(["hydra/launcher=joblib"])
