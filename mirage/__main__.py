"""The door: `python -m mirage +experiment=huber_vs_mse`. Help comes without what runs need."""

import gc
import io
import signal
import sys
from typing import Any


class Unread(io.FileIO):
    """A file that forgets what nobody reads: `| head` ends neither a run nor what it writes."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def main() -> None:
    """Entry point of `python -m mirage` and of the `mirage` command; see `mirage.command_line`."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        from mirage.help import page

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # for `| head`
        print(page())
        return
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Not one that was closed, or that a notebook put there.
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            file = io.BufferedWriter(Unread(stream.fileno(), "w", closefd=False))
            by_line = stream.line_buffering or stream.write_through
            words = io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=by_line)
            setattr(sys, name, words)
    gc.disable()  # nothing that is imported is garbage; `run` enables it
    from mirage.command_line import main as run

    run()


if __name__ == "__main__":
    main()
