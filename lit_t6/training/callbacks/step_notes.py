"""Notes about the steps of a run that were not as they should be, in a file beside its curves."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_t6.training.messages import warn
from lit_t6.whole_files import replace_bytes

FILE_NAME = "guards.jsonl"


class StepNotes:
    """guards.jsonl in the folder of a run: a line of JSON for each note, of which `step` is one key.

    The notes are not worth a training: where they cannot be written, one warning says so.

    Args:
        folder: of the run; None writes nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / FILE_NAME if folder is not None else None
        self._warned = False

    def forget_after(self, step: int) -> None:
        """Remove the notes of later steps, which are computed again, and what a killed process wrote half.

        Args:
            step: the last whose notes stay.
        """
        if self.path is None or not self.path.is_file():
            return
        with self._warning("keeps notes of steps that are computed again"):
            before = self.path.read_bytes()
            kept = b"".join(line for line in before.splitlines(keepends=True) if _step_of(line) <= step)
            if kept != before:
                replace_bytes(self.path, kept)

    def add(self, note: dict[str, Any]) -> None:
        """Write a line; a part of one is taken back.

        Args:
            note: plain values, one of them the `step`.
        """
        if self.path is None:
            return
        with self._warning("notes about steps are lost"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                left = json.dumps(note).encode() + b"\n"
                try:
                    while left:
                        left = left[file.write(left) :]
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(end)
                    raise

    @contextlib.contextmanager
    def _warning(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._warned:
                self._warned = True
                warn(f"{self.path}: {what}: {error.strerror}. Training goes on.")


def _step_of(line: bytes) -> float:
    """The step that a line is about; infinity if it is no whole line."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, TypeError, KeyError):
        return float("inf")
