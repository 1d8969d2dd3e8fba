"""Ctrl-C while the main thread is in a call that takes minutes, and hears nothing."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_PATIENCE_SECONDS = 1.0  # in which the handler would have run; a signal that comes twice in it is one press
_OPEN: set[int] = set()
"""Pipes that signals are written to."""


class UnheardPresses:
    """Sees to it that Ctrl-C is answered, and the second ends the process, where its handler cannot run.

    Python runs handlers in the main thread, between its own instructions. A backward pass is one call of C++, which
    takes minutes where a large model trains on a CPU, or where a GPU's thread compiles meanwhile. What Python does at
    once is to write the signal's number to a pipe, which a thread reads here. A call that never lets go of the
    interpreter lock is beyond this too.

    Args:
        num_heard: how often the handler has run; a press that it has heard is the first too.
        say: prints a line.
        may_end: whether the process may still end in the middle of things.
    """

    def __init__(self, num_heard: Callable[[], int], say: Callable[[str], None], may_end: Callable[[], bool]) -> None:
        self._num_heard, self._say, self._may_end = num_heard, say, may_end
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        _OPEN.add(self._writes)
        threading.Thread(target=self._listen, args=(num_heard(),), daemon=True, name="ctrl-c").start()

    def close(self) -> None:
        """Listen no more; called in the main thread."""
        signal.set_wakeup_fd(self._before)
        _OPEN.discard(self._writes)
        os.close(self._writes)

    def _listen(self, presses: int) -> None:
        while numbers := os.read(self._reads, 1024):
            if signal.SIGINT not in numbers:
                continue
            time.sleep(_PATIENCE_SECONDS)
            while select.select([self._reads], [], [], 0)[0] and os.read(self._reads, 1024):
                pass
            presses += 1
            heard = self._num_heard()
            if heard >= presses:
                presses = heard
            elif presses == 1:
                self._say("Ctrl-C is heard when the call at hand is done; a second one stops at once.")
            elif self._writes in _OPEN and self._may_end():
                self._end()
        os.close(self._reads)

    def _end(self) -> None:
        try:
            self._say("Stopped at once by a second Ctrl-C: what came after the last checkpoint is lost.")
            if os.isatty(1):
                with suppress(OSError):
                    os.write(1, b"\x1b[?25h")  # the cursor, which a progress bar hides
        finally:
            os._exit(128 + signal.SIGINT)


def _leave_to_parent() -> None:
    """In a process that was just forked, such as a loader's: the pipe is its parent's."""
    if _OPEN:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave_to_parent)
