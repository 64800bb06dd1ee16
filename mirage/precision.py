"""Double precision, for everything that is theory."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Float64 inside, on a CPU: many small computations, which an accelerator is slow to start.

    And slow to compile. Where the process has no CPU backend (`JAX_PLATFORMS=cuda`), the
    accelerator has to do.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        if jax.default_backend() != "cpu":
            with contextlib.suppress(RuntimeError):
                stack.enter_context(jax.default_device(jax.local_devices(backend="cpu")[0]))
        yield
