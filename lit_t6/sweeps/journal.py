"""Optuna's journal file, kept readable: a killed process, or a full disk, leaves no half line in it."""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

_NOTHING = b'{"op_code":10}'
"""A record that Optuna passes over."""


class KernelLock(BaseJournalFileLock):
    """A lock on a file beside the journal that the kernel lets go of when its holder dies.

    Optuna's own locks are files; one that a killed process leaves blocks all others for 30 seconds.

    Args:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.flock")
        self._held: list[int] = []

    def acquire(self) -> bool:
        """Wait for the lock."""
        number = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
        except BaseException:
            os.close(number)
            raise
        self._held.append(number)
        return True

    def release(self) -> None:
        """Let go of it."""
        os.close(self._held.pop())


class LastingJournal(JournalFileBackend):
    """A journal whose last line is whole before anything is appended, and after, whether or not that worked.

    Args:
        path: of the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._mutex = path, KernelLock(path)
        super().__init__(str(path), self._mutex)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records and have them on the disk, all or none.

        Raises:
            OSError: they cannot be written.
        """
        lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        self._mutex.acquire()
        try:
            with self._path.open("r+b", buffering=0) as file:
                size = whole_lines(file.fileno())
                if size < os.fstat(file.fileno()).st_size:
                    file.truncate(size)
                try:
                    file.seek(size)
                    left = memoryview(lines)
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except BaseException:
                    with suppress(OSError):  # if this fails too, the next one who writes does it
                        file.truncate(size)
                    raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        finally:
            self._mutex.release()


def whole_lines(descriptor: int) -> int:
    """Bytes of a file up to the end of its last whole line."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 4096)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def mend(path: Path) -> list[str]:
    """Make a journal readable again, under its lock: Optuna reads nothing after a line that is broken.

    A half line at the end is cut off. Of a broken line in the middle, which is half a record with a whole one after it
    where somebody else's program appended to a half line, the whole record stays; otherwise the line is blanked. The
    other lines keep their places, so that processes that are reading do not notice.

    Args:
        path: of the journal; nothing is done if it is not there.

    Returns:
        What was mended, a sentence each.

    Raises:
        ValueError: the file is no journal.
        OSError: it cannot be read or written.
    """
    if not path.exists():
        return []
    lock, said = KernelLock(path), []
    lock.acquire()
    try:
        with path.open("r+b", buffering=0) as file:
            content, size = path.read_bytes(), whole_lines(file.fileno())
            if size < len(content):
                said.append(f"{path}: its last line was torn; {len(content) - size} bytes of it are cut off.")
                file.truncate(size)
            at = 0
            for number, line in enumerate(content[:size].splitlines(keepends=True), 1):
                if not _is_record(line):
                    file.seek(at)
                    file.write(_mended(path, number, line))
                    said.append(f"{path}, line {number}: was torn; the half record in it is dropped.")
                at += len(line)
            if said:
                os.fsync(file.fileno())
    finally:
        lock.release()
    return said


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and "op_code" in record


def _mended(path: Path, number: int, line: bytes) -> bytes:
    """A line of the same length that can be read."""
    body = line.rstrip(b"\n")
    start = body.rfind(b'{"op_code":')
    if start > 0 and _is_record(body[start:]):
        return b" " * start + line[start:]
    if len(body) < len(_NOTHING) or b"op_code" not in body:
        raise ValueError(
            f"{path}, line {number}: is no record of an Optuna journal: {body[:60]!r}. Is it another file?"
        )
    return _NOTHING.ljust(len(body)) + b"\n"
