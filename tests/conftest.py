"""Strictness for every test: shapes and types checked at run time, no silent promotion."""

import dataclasses
import gc
import importlib
import os
import signal
import sys
import tempfile

import jax
import pytest
from hypothesis import given, settings, strategies
from jax._src import compiler
from jaxtyping import install_import_hook

# Until all tests are collected: hardly anything of what is imported is garbage.
gc.disable()
# For the workers, which start after this: threads of two that share two cores wait for each other;
# what XLA frees while it compiles is merged again and again; and pages of large arrays that went
# back to the system are cleared before the next array has them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
malloc = {"mxfast": 0, "mmap_threshold": 2**32, "trim_threshold": 2**33}
tunables = ":".join(f"glibc.malloc.{name}={value}" for name, value in malloc.items())
os.environ.setdefault("GLIBC_TUNABLES", tunables)
# A script that starts tests with `&` has them, and what they start, ignore Ctrl-C: some send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before anything of JAX runs: two CPU devices, and a compilation cache of the test run's own.
jax.config.update("jax_num_cpu_devices", 2)
os.environ.setdefault("XDG_CACHE_HOME", tempfile.mkdtemp(prefix="mirage-tests-"))
# Where a line of a program comes from, which XLA would carry through its passes.
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("mirage", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("mirage")


# How XLA compiles a test's programs, which is half of what all tests take. Most run for a moment;
# what runs for long is marked `optimised`: nearly as fast as for users, in a third of the time to
# compile. What compares `bits` compiles as users do: those of plain fusions depend on the number of
# cells and threads.
ONE_PART = {"xla_cpu_parallel_codegen_split_count": 1}
PLAIN = {"xla_cpu_use_fusion_emitters": False, **ONE_PART}
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    **PLAIN,
}
OPTIONS = {"optimised": {"xla_backend_optimization_level": 1, **PLAIN}, "bits": ONE_PART}


def pytest_collection_finish():
    given(strategies.none())(lambda _: None)()  # makes a generator and looks for what refers to it
    # What was imported stays, and most of what is traced: a tenth of the time went into looking
    # through it.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    marks = [mark for mark in OPTIONS if item.get_closest_marker(mark)]
    _options[0] = OPTIONS[marks[-1]] if marks else QUICK
    # A program for several devices takes a sixth more to compile.
    _devices[0] = None if "bits" in marks else 1
    # Compiled in another way, or by what a test put in the place of something.
    sys.modules["mirage.experiments.programs"].forget()


def _compile_options(*arguments, env_options_overrides=None, **named):
    """JAX's options of a compilation; only they can be changed for one test alone."""
    options = {**_options[0], **(env_options_overrides or {})}
    return _as_users(*arguments, env_options_overrides=options, **named)


_options, _devices = [QUICK], [None]
_as_users, compiler.get_compile_options = compiler.get_compile_options, _compile_options


@pytest.fixture(autouse=True, scope="module")
def _programs_are_forgotten():
    """A process may map 65530 pieces of memory; a program takes seven, and there are thousands."""
    yield
    jax.clear_caches()


CHECKED = (
    "activations algorithms designs expressions figures gaussian hermite inputs losses "
    "measures network places tails targets trigonometry"
)


def pytest_configure(config):
    """Import what is tested, where tests run: not in the process that hands them out."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    with install_import_hook([f"mirage.{name}" for name in CHECKED.split()], "typechecker.checked"):
        for name in ("command_line", "diagnosis", "experiments.execute"):
            importlib.import_module(f"mirage.{name}")
    sys.modules["mirage.threefry"].write_out()  # before whatever test is the first
    # Memory of a compilation serves the next, of which there are thousands.
    sys.modules["mirage.experiments.programs"].release_memory = lambda: None
    runtime = sys.modules["mirage.runtime"].Runtime
    mesh = runtime.mesh
    runtime.mesh = lambda self: mesh(dataclasses.replace(self, devices=self.devices or _devices[0]))
