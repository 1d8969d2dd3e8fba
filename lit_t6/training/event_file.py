"""TensorBoard's event files on disks that may be full: whole records, kept in memory while they cannot be written."""

import contextlib
import io
import itertools
import os
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from lit_t6.training.curves import OVER_TOKENS
from lit_t6.training.event_records import VERSION, as_record
from lit_t6.training.messages import warn

KEPT_BYTES = 16 << 20
"""Of records that wait for space; a step that is logged takes about a kilobyte, a picture some fifty."""
_RETRY_SECONDS = 1.0
_QUIET_SECONDS = 60.0
"""Between two warnings: a disk may be full, and not full, at every other step."""
_numbers = itertools.count()


class CurvesNotWritten(OSError):
    """Curves could not be written, and training was to stop then."""


class EventFile:
    """An event file that never raises: in the place of TensorBoard's EventFileWriter, whose thread dies of a full disk.

    Every event is written when it comes, without a buffer that a killed process would take along; where it cannot be,
    what was written of it is cut off again, since a reader stops at half a record. It is then kept in memory, and
    written, the file opened anew, once that works. The file appears with its first event.

    Args:
        folder: of the file.
        suffix: of its name.
    """

    def __init__(self, folder: str, suffix: str = "") -> None:
        name = f"{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}.t6"
        self.path = Path(folder) / f"events.out.tfevents.{name}{suffix}"
        self.error: OSError | None = None
        """Why the last record could not be written, if it could not."""
        self._file: io.FileIO | None = None
        self._size = 0  # of the whole records in the file
        self._head = as_record(Event(wall_time=time.time(), file_version=VERSION))
        self._kept: deque[bytes] = deque()
        self._kept_bytes = self._lost = 0
        self._step = self._failed_step = 0
        self._retry_at = self._warned_at = float("-inf")
        self._warned = False
        self._lock = threading.Lock()

    def get_logdir(self) -> str:
        """The folder."""
        return str(self.path.parent)

    def add_event(self, event: Event) -> None:
        """Write an event, or keep it.

        Args:
            event: whole, with its step and its time.
        """
        record = as_record(event)
        with self._lock:
            if not any(value.tag.endswith(OVER_TOKENS) for value in event.summary.value):
                self._step = event.step
            if self._kept_bytes + len(record) > KEPT_BYTES and self.error is not None:
                self._lost += 1
            else:
                self._kept.append(record)
                self._kept_bytes += len(record)
            if self.error is None or time.monotonic() >= self._retry_at:
                self._write()

    def flush(self) -> None:
        """Try to write what is kept."""
        with self._lock:
            self._write()

    def close(self) -> None:
        """Try for the last time, and say so if it fails."""
        with self._lock:
            self._write()
            if self._kept and self.error is not None:
                lost = self._lost + len(self._kept)
                warn(
                    f"{self.get_logdir()}: {lost:,} points and pictures of the curves, from step {self._failed_step} "
                    f"on, are lost: {self.error.strerror}."
                )
                self._kept.clear()
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.close()
                self._file = None

    def _write(self) -> None:
        try:
            while self._kept:
                self._append(self._kept[0])
                self._kept_bytes -= len(self._kept.popleft())
        except OSError as error:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            if self.error is None:
                self._failed_step, self._lost = self._step + 1, 0
                self._warn(error)
            self.error = error
            return
        if self.error is not None:
            self.error = None
            if self._warned or self._lost:
                missing = f"{self._lost:,} points and pictures between are lost" if self._lost else "none is missing"
                warn(f"{self.get_logdir()}: curves are written again at step {self._step + 1}; {missing}.")

    def _warn(self, error: OSError) -> None:
        self._warned = time.monotonic() >= self._warned_at + _QUIET_SECONDS
        if self._warned:
            self._warned_at = time.monotonic()
            warn(
                f"{self.get_logdir()}: curves cannot be written from step {self._failed_step} on: {error.strerror}. Up "
                f"to {KEPT_BYTES >> 20} MiB of them are kept in memory until there is space; what is more is lost."
            )

    def _append(self, record: bytes) -> None:
        """Write a record at the end of the file, whole or not at all."""
        try:
            if self._file is None:
                self._file = self._open()
            if not self._size and record is not self._head:
                self._append(self._head)
            left = memoryview(record)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            if self._file is not None:
                with contextlib.suppress(OSError):  # if this fails, it is done when the file is opened again
                    self._file.truncate(self._size)
                with contextlib.suppress(OSError):
                    self._file.close()
                self._file = None
            raise
        self._size += len(record)

    def _open(self) -> io.FileIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = io.FileIO(self.path, "a")
        try:
            size = os.fstat(file.fileno()).st_size
            self._size = min(self._size, size)
            if size > self._size:
                file.truncate(self._size)
        except OSError:
            file.close()
            raise
        return file


class LastingWriter(SummaryWriter):
    """A SummaryWriter that outlasts a full disk; see `EventFile`. It takes the same arguments."""

    @property
    def error(self) -> OSError | None:
        """Why curves cannot be written at the moment; None if they can."""
        return None if self.file_writer is None else self.file_writer.event_writer.error

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            self.file_writer: Any = _Files(self.log_dir, self.filename_suffix)
            self.all_writers: Any = {self.file_writer.get_logdir(): self.file_writer}
            if self.purge_step is not None:
                step, self.purge_step = self.purge_step, None
                self.file_writer.add_event(Event(file_version=VERSION), step)
                self.file_writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step)
        return self.file_writer


class _Files(FileWriter):
    """Torch's layer between the two, which makes events of summaries."""

    def __init__(self, folder: str, suffix: str) -> None:
        self.event_writer = EventFile(str(folder), suffix)
