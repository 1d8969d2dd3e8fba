"""The streams of a process that runs a command line, and its end: the status is the one that was meant."""

import atexit
import os
import select
import sys
from contextlib import suppress
from types import TracebackType

_ANY = "\U0010fffd"
"""What only encodings can hold that hold everything."""


def hold_everything() -> None:
    """Have the streams print "?" for what their encoding does not have, such as × in ASCII: no run ends for that."""
    for stream in (sys.stdout, sys.stderr):
        try:
            _ANY.encode(stream.encoding or "utf-8")
        except UnicodeEncodeError:
            if hasattr(stream, "reconfigure"):  # not one that a program put in its place
                stream.reconfigure(errors="replace")


def reader_is_gone() -> bool:
    """Whether nobody reads what is printed any more, as after `| head`."""
    with suppress(OSError):  # a stream of Python's alone
        out = select.poll()
        out.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in out.poll(0))
    return False


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
