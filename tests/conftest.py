"""Strictness for every test: shapes and types checked at run time, no silent promotion."""

import os
import tempfile

import jax
from hypothesis import settings
from jaxtyping import install_import_hook

# Before anything of JAX runs: two CPU devices, and a compilation cache of the test run's own.
jax.config.update("jax_num_cpu_devices", 2)
os.environ.setdefault("XDG_CACHE_HOME", tempfile.mkdtemp(prefix="mirage-tests-"))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("mirage", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("mirage")

CHECKED = (
    "activations algorithms designs expressions figures gaussian hermite inputs losses "
    "measures network targets trigonometry"
)
with install_import_hook([f"mirage.{name}" for name in CHECKED.split()], "typechecker.checked"):
    import mirage  # noqa: F401
