"""Strictness for every test: shapes and types checked at run time, no silent promotion."""

import os
import re
import tempfile

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before anything of JAX runs: two CPU devices, and a compilation cache of the test run's own.
jax.config.update("jax_num_cpu_devices", 2)
os.environ.setdefault("XDG_CACHE_HOME", tempfile.mkdtemp(prefix="mirage-tests-"))
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("mirage", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("mirage")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Most of a test's time is compilation: with few of XLA's passes it is a third shorter.

    Simulations that run for long, and tests about bits, compile as users do.
    """
    compiles = item.module.__name__ in COMPILING or re.search(SMALL, item.name)
    simulates = any(item.iter_markers("slow")) and not compiles
    as_users = simulates or any(item.iter_markers("optimised"))
    jax.config.update("jax_disable_most_optimizations", not as_users)


# Modules and tests that compile for long and run for short.
SMALL = "runs?_and_draws?_"
COMPILING = ["test_sign_channels", "test_level_set_channels", "test_quadrature_channel"]
CHECKED = (
    "activations algorithms designs expressions figures gaussian hermite inputs losses "
    "measures network targets trigonometry"
)
with install_import_hook([f"mirage.{name}" for name in CHECKED.split()], "typechecker.checked"):
    import mirage.command_line
    import mirage.diagnosis  # noqa: F401
