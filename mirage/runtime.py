"""Where and how a run executes; the one place that touches JAX's configuration."""

import abc
import contextlib
import ctypes
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
from jax.sharding import AxisType, Mesh

from mirage import threefry
from mirage.options import Option

UNITS = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
log = logging.getLogger(__name__)


class Runtime(Option, abc.ABC):
    """`memory` bounds what a chunk of seeds may hold (null: 2 GB on a CPU, 20 GB elsewhere).

    The rest is about speed.

    `devices` limits how many devices of a process share the seeds (null: all; on a CPU one a
    core).
    `seeds_at_once` seeds run side by side in one kernel on each device (null: 1 on a CPU, where
    a seed's block of X then stays in cache, 16 elsewhere). `compilation_cache` is a folder, null
    for the user's cache folder, "off" for none. `progress` shows a bar on a terminal. `profile`
    writes a trace of JAX's profiler into the run folder. `distributed` joins the processes of a
    cluster (`jax.distributed`), which share the seeds; the first one writes the results.
    """

    group: ClassVar[str] = "runtime"

    memory: str | None = eqx.field(static=True, default=None)
    devices: int | None = eqx.field(static=True, default=None)
    seeds_at_once: int | None = eqx.field(static=True, default=None)
    compilation_cache: str | None = eqx.field(static=True, default=None)
    progress: bool = eqx.field(static=True, default=True)
    profile: bool = eqx.field(static=True, default=False)
    distributed: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.memory is not None:
            _ = self.memory_bytes
        for key in ("devices", "seeds_at_once"):
            value = getattr(self, key)
            self.check(key, value is None or value >= 1, "expected a whole number ≥ 1 or null")

    @property
    def budget(self) -> str:
        """`memory`, or what the kind of device makes of none, which has to be asked for."""
        if self.memory is None:
            self.configure()
            return "2 GB" if jax.default_backend() == "cpu" else "20 GB"
        return str(self.memory)

    @property
    def memory_bytes(self) -> int:
        """`budget` in bytes; ValueError unless it reads like `500 MB` or `2.5 GB`."""
        match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?B)\s*", self.budget, re.IGNORECASE)
        try:
            number = float(match[1]) * UNITS[match[2].upper()] if match else 0
        except ValueError:
            number = 0
        self.check("memory", 0 < number < 1e18, "expected a size such as '500 MB' or '2 GB'")
        return int(number)

    def configure(self) -> None:
        """Set JAX up; before its first computation in a process, or the CPU stays one device."""
        logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
        if self.distributed and not jax.distributed.is_initialized():
            try:
                # Slurm and MPI tell JAX themselves; otherwise the environment does.
                count, index = map(os.environ.get, ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
                jax.distributed.initialize(
                    num_processes=int(count) if count else None,
                    process_id=int(index) if index else None,
                )
            except (ValueError, RuntimeError) as error:
                raise ValueError(
                    f"runtime.distributed=True: the processes could not find each other ({error}); "
                    "expected Slurm, MPI, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
                    "JAX_PROCESS_ID in the environment"
                ) from error
        # Accelerators round the factors of a float32 product to ten bits unless told not to.
        jax.config.update("jax_default_matmul_precision", "highest")
        threefry.write_out()
        cores = available_cores()
        # As many threads, where JAX would take all of the machine's.
        os.environ.setdefault("NPROC", str(cores))
        try:
            jax.config.update("jax_num_cpu_devices", self.devices or cores)
        except RuntimeError:  # already running: the devices are what they are
            log.debug("JAX is already running with %d devices", jax.device_count())
        if self.compilation_cache != "off":
            folder = Path(self.compilation_cache or _cache_folder())
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

    @contextlib.contextmanager
    def traced(self, folder: str | os.PathLike | None) -> Iterator[None]:
        """With `profile`, a trace of what runs inside, below `folder`/profile."""
        if not self.profile or folder is None:
            yield
            return
        with jax.profiler.trace(str(Path(folder) / "profile")):
            yield

    def mesh(self) -> Mesh:
        """The devices of all processes in a row, along which seeds are shared out."""
        by_process = [
            [device for device in jax.devices() if device.process_index == process]
            for process in range(jax.process_count())
        ]
        devices = [device for own in by_process for device in own[: self.devices]]
        return jax.make_mesh((len(devices),), ("seed",), (AxisType.Auto,), devices=devices)

    def writes(self) -> bool:
        """Whether this process is the one that writes results."""
        return jax.process_index() == 0

    def width(self, on_cpu: int = 1) -> int:
        """Seeds side by side in one kernel on each device; so many on a CPU, if not told."""
        fitting = on_cpu if jax.default_backend() == "cpu" else max(16, on_cpu)
        return self.seeds_at_once or fitting


class Default(Runtime):
    """All devices of the process."""


class GpuNode(Runtime):
    """A process with accelerators of its own: room for the samples of many seeds at once."""

    memory: str | None = eqx.field(static=True, default="40 GB")


class Slurm(Runtime):
    """A Slurm job for each job of a multirun, which goes on where its time limit stopped it."""


class Ray(Runtime):
    """A task of Ray for each job of a multirun, as many at once as it has CPUs or GPUs for."""


# What schedulers, launchers and users say of the threads that a process may have.
TOLD = ("NPROC", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")


def available_cores() -> int:
    """The cores that are this process's: those the system grants, or fewer where it is told so."""
    granted = len(os.sched_getaffinity(0))
    told = {name: int(value) for name in TOLD if (value := os.environ.get(name, "")).isdigit()}
    cores = min([granted, *(count for count in told.values() if count > 0)])
    if cores < granted:
        log.debug("%d of %d cores, as the environment says: %s", cores, granted, told)
    return cores


def compiler_options() -> dict[str, str | bool]:
    """How XLA compiles: on a GPU without trying out kernels.

    Which is most of the time it takes, and picks one by its speed on the day: other bits.
    """
    if jax.default_backend() != "gpu":
        return {}
    return {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": False}


def release_memory() -> None:
    """Hand freed memory back to the system; glibc keeps hundreds of MB after a compilation."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not every libc has it
        ctypes.CDLL(None).malloc_trim(0)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mirage" / "xla"
