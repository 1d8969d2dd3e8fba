"""Where a running study is told: lines as things happen, and below them, on a terminal, how it stands."""

import sys
import time
from types import TracebackType
from typing import Any

from lit_t6.sweeps.status import Overview, summary, table

_LINES = 24
"""Of the table at most."""
_LOG_SECONDS = 300.0
"""Between two summaries in a log."""


class Screen:
    """On a terminal a table that changes in place; elsewhere lines, with a summary now and then."""

    def __init__(self) -> None:
        self._live: Any = None
        self._told_at = time.monotonic()

    def __enter__(self) -> "Screen":
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(highlight=False), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """Print a line."""
        if self._live is not None:
            self._live.console.print(line, markup=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def show(self, stands: Overview) -> None:
        """Show how the study stands."""
        if self._live is not None:
            from rich.text import Text

            lines = [*summary(stands), "", *table(stands, min(_LINES, self._live.console.height - 6))]
            self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
        elif time.monotonic() - self._told_at > _LOG_SECONDS:
            self._told_at = time.monotonic()
            for line in summary(stands):
                self.say(line)
