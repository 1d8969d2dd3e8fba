"""The end of a process that ran a command line: its status is the one that was meant, whatever it leaves behind."""

import atexit
import os
import sys
from contextlib import suppress
from types import TracebackType


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


class ProcessEnd:
    """Around a command line: settles the output, and lets no thread of gloo hold the process up or abort it.

    Where a training of several processes failed, a collective may be under way that no peer will answer. The teardown
    of the interpreter may wait for it, half an hour where the peer hangs; and if the peer goes just then, the
    collective fails in a thread of gloo's, which aborts the process ("terminate called without an active exception",
    status 134). To destroy the process groups is no way out: to let go of one waits for its collectives too. So the
    process ends before the teardown, as soon as all others that registered with `atexit` have had their turn, such as
    the launcher, which waits for its children; a process group that was destroyed by then, as Lightning does with
    NCCL's, is no reason to.

    With status 0 nothing is under way, and the interpreter ends as it always does.
    """

    def __init__(self) -> None:
        self.status = 1
        """What the process is to end with."""

    def __enter__(self) -> "ProcessEnd":
        atexit.register(self._end)  # what is registered first has its turn last
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, SystemExit):
            self.status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if self.status == 0 or not _has_peers():
            atexit.unregister(self._end)
        settle_output()

    def _end(self) -> None:
        if _has_peers():
            settle_output()
            os._exit(self.status)


def _has_peers() -> bool:
    distributed = sys.modules.get("torch.distributed")  # not loaded for this
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
