"""The entry of `raglan`: nothing is imported before Ctrl-C ends it in peace."""

import os
import signal

from raglan_cli.failure import INTERRUPTED


def main() -> None:
    """Run the command line.

    Imports take up to a second. A KeyboardInterrupt raised in one of them would end in a traceback,
    or be swallowed by a library.
    """
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:  # a shell has background jobs ignore it
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from raglan_cli import commands

    if listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands.run()


if __name__ == "__main__":
    main()
