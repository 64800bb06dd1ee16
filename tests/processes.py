"""Commands in processes of their own, forked from one in which everything is imported already.

Importing is half of what a small command takes. Run as a script this is the process that forks:
it reads a request a line and answers with the exit code.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

# Compiled with few of XLA's passes and plain fusions: most of the rest is compilation.
QUICK = {
    **os.environ,
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
}
# For what compares bits: with plain fusions they depend on the number of threads and of cells.
SAME_BITS = {"XLA_FLAGS": ""}
MODULES = [f"mirage.{name}" for name in ("diagnose", "gather", "report", "status")]
# What a command imports when it comes to it.
LATER = ("scipy.stats", "matplotlib.backends.backend_pdf", "netCDF4")
LIMIT_S = 300


def python(
    module: str, *arguments: object, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What `python -m module arguments` does in a folder: exit code, output, errors."""
    words = [module, *map(str, arguments)]
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        request = {"words": words, "cwd": str(cwd), "out": str(out), "err": str(err)}
        request["environment"] = environment
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


@functools.cache
def _server() -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen([sys.executable, __file__], text=True, env=QUICK, **pipes)
    atexit.register(server.communicate)  # the end of its input ends it
    return server


def _serve() -> None:
    importlib.import_module("mirage.command_line")
    importlib.import_module("hydra.core.plugins").Plugins.instance()  # looks for plugins
    for name in LATER:
        importlib.import_module(name)
    for name in MODULES:
        importlib.import_module(name)
        del sys.modules[name]  # to run as scripts
    gc.freeze()  # so that no child looks through what all of them share
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            _become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(
    words: list[str], cwd: str, out: str, err: str, environment: dict[str, str]
) -> NoReturn:
    """The rest of this process is `python -m words`."""
    for number, (path, how) in enumerate([(os.devnull, "r"), (out, "w"), (err, "w")]):
        with open(path, how) as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.update(environment)
    signal.alarm(LIMIT_S)
    sys.path[0], sys.argv = cwd, words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    _serve()
