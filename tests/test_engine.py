"""The engine underneath: streamed X, automatic designs, memory, processes, profiles."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import QUICK

import mirage
from mirage import Experiment, simulate
from mirage.algorithms import LayerwiseGd, PowerIteration
from mirage.designs import Auto, Deferred, Dense, DesignChoice, Streamed
from mirage.experiments import execute, programs
from mirage.experiments.plan import Plan
from mirage.inputs import Gaussian, Rademacher
from mirage.losses import Huber, Mse
from mirage.runtime import TOLD, Default, available_cores

SHORT = LayerwiseGd(steps=3, readout_steps=3)


def run(folder=None, **changes):
    settings = {"d": [40], "alpha": [8.0, 20.0], "seeds": 3, "algorithm": SHORT, "loss": Huber()}
    return simulate(Experiment(**{**settings, **changes}), folder)


def test_streamed_is_dense_to_float_tolerance():
    """For a run; `test_algorithms` has every algorithm."""
    a, b = (run(design=design) for design in (Dense(), Streamed()))
    for name in ("cos_best_trajectory", "overlap_trajectory", "norm_trajectory"):
        scale = float(np.abs(a[name]).max())
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-5 * scale)


def resolve(n, d, columns, inputs=Gaussian(), memory=2e9, steps=10):  # noqa: B008
    fits = lambda design: design.bytes_drawn(n_max=n, d=d) < memory  # noqa: E731
    size = {"n": n, "d": d, "right": columns, "left": columns, "steps": steps}
    return Auto().resolve(inputs, **size, fits=fits)


def test_auto_takes_the_cheapest_design_that_can_serve():
    assert resolve(4000, 200, 80) == Dense()  # the poster's grid
    assert resolve(20000, 500, 80) == Dense()
    assert resolve(100_000, 5000, 42) == Deferred()
    assert resolve(2_000_000, 100_000, 42) == Deferred()
    assert resolve(100_000, 30, 42) == Dense()  # more query columns than d
    assert resolve(2_000_000, 2000, 2500) == Streamed()  # 16 GB
    assert resolve(50_000, 5000, 42, Rademacher()) == Dense()  # not Gaussian: drawn


@given(st.integers(10, 10**6), st.integers(10, 10**5), st.integers(1, 400))
def test_auto_never_takes_what_cannot_serve_nor_what_it_says_is_slower(n, d, columns):
    chosen = resolve(n, d, columns)
    chosen.check_size(Gaussian(), n_min=n, d=d, right=columns, left=columns)
    size = {"n": n, "d": d, "right": columns, "left": columns, "steps": 10}
    if chosen == Deferred():
        assert chosen.seconds(**size) < Dense().seconds(**size)
    if chosen == Streamed():
        assert Dense().bytes_drawn(n_max=n, d=d) >= 2e9


@pytest.mark.bits
def test_a_cell_of_auto_is_the_cell_of_the_design_it_names():
    auto = run(design=Auto(), d=[60], loss=Mse())
    for alpha in auto.alpha.values:
        name = str(auto.design.sel(alpha=alpha).item())
        other = run(design=DesignChoice.options()[name](), d=[60], loss=Mse())
        a, b = (r.cos_best.sel(alpha=alpha) for r in (auto, other))
        assert np.array_equal(a, b)


def test_small_sample_sizes_share_a_product_and_large_ones_go_alone():
    small, large = [1000, 2000, 3000], [300_000, 400_000]
    experiment = Experiment(n=small + large, d=10, seeds=1, design=Streamed(), loss=Mse())
    plan = Plan(experiment, devices=1)
    shared = [sizes for batch, cells in plan.batches for _, sizes in plan.together(batch, cells)]
    # Four networks of four neurons fill a product; the places left over repeat the smallest.
    assert shared == [(3000, 2000, 1000, 1000), (400_000,), (300_000,)]


@pytest.mark.bits
def test_a_chunk_that_runs_out_of_memory_is_halved_and_the_results_are_the_same(monkeypatch):
    whole = run(seeds=8, loss=Mse())
    train = execute.Executor._train
    asked = []

    def small(self, batch, family, keys, *rest):
        asked.append(len(keys))
        if len(keys) > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory allocating")
        return train(self, batch, family, keys, *rest)

    monkeypatch.setattr(execute.Executor, "_train", small)
    halved = run(seeds=8, loss=Mse())
    assert asked[0] == 8
    assert set(asked[1:]) == {4}
    plan = json.loads(halved.attrs["plan"])["chunks"][0]
    assert plan["halved"]
    assert plan["seeds"] == 4
    assert np.array_equal(whole.cos_best, halved.cos_best)


def test_out_of_memory_with_the_smallest_chunk_is_an_error(monkeypatch):
    def never(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory allocating")

    monkeypatch.setattr(execute.Executor, "_train", never)
    with pytest.raises(MemoryError, match=r"d=40, n=320: out of memory with 2 seed\(s\) at once"):
        run(seeds=8, alpha=8.0, runtime=Default(devices=2))


PROCESS = """
import mirage, sys, json, jax
from mirage.runtime import Default
experiment = mirage.compose("d=[40]", "alpha=[8]", "seeds=4", "algorithm.steps=3",
    "algorithm.readout_steps=3", "design=dense", "runtime.distributed=true", "runtime.devices=1")
results = mirage.simulate(experiment)
plan = json.loads(results.attrs["plan"])
print(json.dumps([jax.process_count(), plan["devices"], results.cos_best.values.tolist()]))
"""


@pytest.mark.slow
def test_two_processes_share_the_seeds_and_agree_with_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = {**QUICK, "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env={**shared, "JAX_PROCESS_ID": str(k)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(2)
    ]
    outputs = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    (processes, devices, first), (_, _, second) = (
        json.loads(out.strip().splitlines()[-1]) for out, _ in outputs
    )
    assert (processes, devices) == (2, 2)
    assert first == second
    alone = mirage.compose(
        "d=[40]", "alpha=[8]", "seeds=4", "algorithm.steps=3", "algorithm.readout_steps=3"
    )
    np.testing.assert_allclose(first, simulate(alone).cos_best.values, atol=1e-4)


@pytest.mark.slow
def test_a_profile_is_a_trace_and_a_table_of_where_the_time_went(tmp_path):
    results = run(tmp_path, runtime=Default(profile=True))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    times = json.loads(results.attrs["times_s"])
    assert set(times) == {"compile", "draw", "train", "measure"}
    assert sum(times.values()) <= float(results.attrs["wall_time_s"]) * 1.01
    assert min(times.values()) > 0


def test_costs_are_saved_with_every_result():
    results = run(alpha=[10.0])
    n, d, m, r = 400, 40, 4, 2
    assert float(results.gradient_evaluations.squeeze()) == n * (SHORT.steps + SHORT.readout_steps)
    products = 2 * n * d * 2 * m * SHORT.steps
    assert float(results.flops.squeeze()) == products + 4 * n * m * SHORT.readout_steps
    assert r == results.sizes["direction"]


@pytest.mark.bits
def test_varied_settings_are_numeric_dimensions_and_cells_keep_their_bits():
    rates = {"algorithm.step_size": [0.5, 2.0], "network.initial_norm": [1e-4, 1e-3]}
    varied = run(vary=rates, loss={"mse": Mse(), "huber": Huber()})
    assert varied.cos_best.dims == ("loss", "step_size", "initial_norm", "d", "alpha", "seed")
    assert json.loads(varied.attrs["compilations"])["train"] == 1
    alone = run(algorithm=LayerwiseGd(steps=3, readout_steps=3, step_size=0.5))
    place = {"loss": "huber", "step_size": 0.5, "initial_norm": 1e-3}
    assert np.array_equal(varied.cos_best.sel(place), alone.cos_best)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"algorithm.nothing": [1]}, r"vary.algorithm.nothing=1: algorithm=layerwise_gd has the"),
        ({"nothing.steps": [1]}, "expected a group among"),
        ({"algorithm.steps": []}, r"vary.algorithm.steps=\[\]"),
        ({"algorithm.steps": 3}, "vary.algorithm.steps=3"),
        ({"algorithm.steps": [3, 3]}, "different values"),
        ({"algorithm.steps": [3, -1]}, "algorithm.steps=-1"),
        ({"network.width": [3]}, "even width"),
    ],
    ids=str,
)
def test_what_cannot_be_varied_is_refused_with_the_key(vary, message):
    with pytest.raises(ValueError, match=message):
        run(vary=vary)


@pytest.mark.parametrize(
    ("told", "cores"),
    [
        ({}, 8),
        ({"SLURM_CPUS_PER_TASK": "4"}, 4),
        ({"SLURM_CPUS_PER_TASK": "4", "OMP_NUM_THREADS": "2"}, 2),
        ({"NPROC": "1", "OMP_NUM_THREADS": "2"}, 1),
        ({"OMP_NUM_THREADS": "64"}, 8),
        ({"OMP_NUM_THREADS": "4,2", "NPROC": "0"}, 8),
    ],
)
def test_a_process_takes_the_cores_that_it_is_given(told, cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert available_cores() == cores


# Sooner compiled than most.
PLAIN = {"algorithm": PowerIteration(steps=2), "alpha": [8.0]}


def test_what_was_compiled_serves_other_numbers_and_nothing_else():
    def compiled(**changes):
        results = run(**{**PLAIN, **changes})
        return results, json.loads(results.attrs["compilations"])

    other = {"algorithm": PowerIteration(steps=2, step_size=0.5), "root_seed": 1}
    first, both = compiled()
    served, none = compiled(**other)
    assert (both, none) == ({"draw": 1, "train": 1}, {"draw": 0, "train": 0})
    assert not np.array_equal(first.gram, served.gram)
    programs.forget()
    for name, values in compiled(**other)[0].data_vars.items():
        np.testing.assert_array_equal(values, served[name], err_msg=str(name))
    for change in ({"loss": Mse()}, {"save_weights": True}):
        assert compiled(**change)[1] == {"draw": 0, "train": 1}
    assert compiled(inputs=Rademacher())[1] == {"draw": 1, "train": 1}
    # Where X is not stored its size is in no argument.
    for size in (
        {},
        {"d": [41], "n": 320, "alpha": None},
        {"alpha": [40.0]},
        {"design": Streamed(block=256)},
    ):
        assert compiled(**{"design": Streamed(), **size})[1]["train"] == 1


SCALE = {"by": 1.0}


class Scaled(Huber):
    """A loss of the user's own, which calls what may change beside it."""

    def slope(self, t, y):
        return SCALE["by"] * super().slope(t, y)


def test_what_calls_code_of_the_user_is_compiled_anew(monkeypatch):
    one, two = (run(**PLAIN, loss=Scaled()) for _ in range(2))
    monkeypatch.setitem(SCALE, "by", 0.5)
    three = run(**PLAIN, loss=Scaled())
    np.testing.assert_array_equal(one.gram, two.gram)
    assert not np.array_equal(one.gram, three.gram)
    for results in (one, two, three):  # X is drawn by what is not the user's
        assert json.loads(results.attrs["compilations"])["train"] == 1
    chunks = run(**PLAIN, loss=Scaled(), seeds=9, runtime=Default(memory="3 MB"))
    assert json.loads(chunks.attrs["plan"])["chunks"][0]["seeds"] < 9
    assert json.loads(chunks.attrs["compilations"])["train"] == 1  # once for all chunks


def test_the_last_programs_are_kept_and_each_is_that_of_its_settings():
    def compiled(k, settings=(), size=3):
        x = np.ones(size, np.float32)
        program, now = programs.compiled(k, settings, lambda x: x + k, (x,))
        np.testing.assert_array_equal(program(x), x + k)
        return now

    assert all(compiled(k) for k in range(programs.MOST + 1))
    assert not compiled(1)
    assert compiled(0)  # the oldest is gone
    assert compiled(1, size=4)
    with jax.enable_x64(True):
        assert compiled(1)
    assert compiled(1, settings=(Huber(),))
    assert not compiled(1, settings=(Huber(),))
    assert compiled(1, settings=(Huber(delta=2.0),))  # a number that is compiled with it
    for settings in (Scaled(), [1], lambda x: x):
        assert all(compiled(1, settings=(settings,)) for _ in range(2))
