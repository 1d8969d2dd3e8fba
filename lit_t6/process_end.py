"""The end of a process that ran a command line: its status is the one that was meant, whatever it leaves behind."""

import os
import sys
from contextlib import suppress


def settle_output() -> None:
    """Write out what was printed; a stream that cannot take it, its disk full or its reader gone, is given up.

    What the interpreter fails to write at its end makes 120 of any exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if not stream.closed:
                stream.flush()
        except OSError:
            with suppress(OSError):  # a stream of Python's alone
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
