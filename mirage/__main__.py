"""The door: `python -m mirage +experiment=huber_vs_mse`. Help comes without what runs need."""

import sys


def main() -> None:
    """Entry point of `python -m mirage` and of the `mirage` command; see `mirage.command_line`."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        from mirage.help import page

        print(page())
        return
    from mirage.command_line import main as run

    run()


if __name__ == "__main__":
    main()
