"""The door: `python -m mirage +experiment=huber_vs_mse`. Help comes without what runs need."""

import gc
import signal
import sys


def main() -> None:
    """Entry point of `python -m mirage` and of the `mirage` command; see `mirage.command_line`."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        from mirage.help import page

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # for `| head`
        print(page())
        return
    gc.disable()  # nothing that is imported is garbage; `run` enables it
    from mirage.command_line import main as run

    run()


if __name__ == "__main__":
    main()
