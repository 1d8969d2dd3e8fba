"""What a benchmark tells while it runs: a bar on a terminal, lines elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lit_t6.bench.results import Entry


class Messages:
    """Tells what is measured.

    Args:
        total: points of the grid.
    """

    def __init__(self, total: int) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._total = total
        self._done = 0

    def __enter__(self) -> "Messages":
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=Console(highlight=False))
            self._progress.start()
            self._task = self._progress.add_task("points", total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def line(self, text: str) -> None:
        """Say something."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def point(self, name: str) -> None:
        """A point begins."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=name)
        else:
            self.line(f"{name} ({self._done + 1} of {self._total})")

    def entry(self, entry: Entry) -> None:
        """A peer was measured; those that were left out are in the file."""
        if entry.status == "timed":
            self.line(f"  {entry.name:<36} {entry.ms:10.4f} ms  {entry.gb_per_sec:7,.0f} GB/s")
        elif entry.status != "left out":
            self.line(f"  {entry.name:<36} {entry.status}: {entry.why}")

    def done(self) -> None:
        """A point is done."""
        self._done += 1
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)
