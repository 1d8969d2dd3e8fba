"""The hash at the end of a checkpoint, taken while it is written, and compared before it is read.

A file is what `torch.save` writes, a zip archive, with a comment at its very end: `lit_t6 hashes=` and, in hexadecimal,
the SHA-256 of the SHA-256 of each 16 MiB of all that comes before the comment's length, the two bytes before it. Files
of before have `lit_t6 sha256=` and one hash of everything, in which that length counts as zero. Readers of zip archives
skip a comment, `torch.load` among them, and it stands after everything that a large archive (zip64) adds.
"""

import errno
import hashlib
import os
import re
import struct
import zipfile
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Self

_COMMENT, _COMMENT_BEFORE = b"lit_t6 hashes=", b"lit_t6 sha256="
_COMMENT_LENGTH = len(_COMMENT) + 64
_PART = 1 << 24
"""Bytes that are hashed by themselves, so that several threads can."""
_THREADS = 4
_PARTS_A_SYNC = 8
"""Parts between two times that what is written is put on the disk."""
_END = b"PK\x05\x06"
_END_LENGTH = 22
"""Bytes of the record that ends a zip archive, up to its comment; the comment's length is the last two of them."""
_CHUNK = 1 << 22


class HashedFile:
    """A file being written by torch's archive writer, whose bytes threads that follow hash and have put on the disk.

    They hash what the file gives back, which is still in the system's cache: what the writer hands over is its own, and
    gone when it goes on. Without being asked, the system would begin with the disk after seconds, or at the end.

    The writer in C++ turns any error in `write` into a complaint about positions: the first error is kept instead, and
    raised by `raise_error` and `finish`.

    Args:
        file: open for writing and reading, empty.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size = file, 0
        self._hashing = ThreadPoolExecutor(_THREADS, "checkpoint_hash")
        self._syncing = ThreadPoolExecutor(1, "checkpoint_sync")
        self._parts: list[Future[bytes]] = []
        self._syncs: list[Future[None]] = []
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._hashing.shutdown(cancel_futures=True)
        self._syncing.shutdown(cancel_futures=True)

    def write(self, data: memoryview) -> int:
        """Take some bytes of the writer's; how many."""
        if self._error is None:
            try:
                self.file.write(data)
                self.size += len(data)
                self._follow(self.size - _END_LENGTH)
            except BaseException as error:  # also Ctrl-C
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Nothing yet: `finish` does it."""

    def _follow(self, size: int, whole: bool = False) -> None:
        """Have all parts of the first `size` bytes hashed that are none yet; of the last, what there is, if `whole`."""
        parts = -(-size // _PART) if whole else size // _PART
        if len(self._parts) < parts:
            self.file.flush()
        while len(self._parts) < parts:
            start = len(self._parts) * _PART
            end = min(start + _PART, size)
            self._parts.append(self._hashing.submit(_digest, self.file.fileno(), start, end))
            if len(self._parts) % _PARTS_A_SYNC == 0:
                self._syncs.append(self._syncing.submit(os.fsync, self.file.fileno()))

    def raise_error(self) -> None:
        """Raise the first error of `write`, if there was one."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Write the comment, and have everything on the disk.

        Raises:
            OSError: something could not be written, now or before.
        """
        self.raise_error()
        self.file.flush()
        end = os.pread(self.file.fileno(), _END_LENGTH, self.size - _END_LENGTH)
        assert end[:4] == _END
        assert end[-2:] == bytes(2)
        self._follow(self.size - 2, whole=True)
        comment = _COMMENT + _digest_of_parts(part.result() for part in self._parts)
        self.file.seek(-2, os.SEEK_END)
        self.file.write(struct.pack("<H", len(comment)) + comment)
        self.file.flush()
        for sync in self._syncs:
            sync.result()  # the system tells an error of the disk once, here or below
        os.fsync(self.file.fileno())


class Damage(Exception):
    """What is wrong with a file."""


class _Shorter(OSError):
    """A file ends before its time."""


def verify_hash(file: IO[bytes], size: int) -> None:
    """Check that a file is what was written; without a comment, by the archive's own checksums.

    Args:
        file: open for reading.
        size: its bytes.

    Raises:
        Damage: it is not.
        OSError: it cannot be read.
    """
    file.seek(max(0, size - _END_LENGTH - _COMMENT_LENGTH))
    tail = file.read()
    if tail[-_END_LENGTH:][:4] == _END and tail[-2:] == bytes(2):
        _verify_archive(file)  # no comment, so not written by us
        return
    end = tail[:_END_LENGTH]
    if end[:4] != _END or len(tail) != _END_LENGTH + _COMMENT_LENGTH:
        raise Damage(f"its {size:,} bytes do not end as a checkpoint does; it is truncated, or something else")
    comment = tail[_END_LENGTH:]
    kinds = rb"(?:%b|%b)" % (_COMMENT, _COMMENT_BEFORE)
    if end[-2:] != struct.pack("<H", _COMMENT_LENGTH) or not re.fullmatch(kinds + rb"[0-9a-f]{64}", comment):
        raise Damage("the comment at its end is not ours")
    number, length = file.fileno(), size - _COMMENT_LENGTH - 2
    try:
        if comment.startswith(_COMMENT):
            with ThreadPoolExecutor(_THREADS, "checkpoint_hash") as threads:
                starts = range(0, length, _PART)
                parts = threads.map(lambda start: _digest(number, start, min(start + _PART, length)), starts)
                digest = _digest_of_parts(parts)
        else:
            digest = _digest(number, 0, length, bytes(2)).hex().encode()
    except _Shorter as error:
        raise Damage("it became shorter while it was read") from error
    if digest != comment[len(_COMMENT) :]:
        raise Damage("its contents are not those that were written (SHA-256 differs)")


def _digest(number: int, start: int, end: int, more: bytes = b"") -> bytes:
    """SHA-256 of some bytes of an open file.

    Args:
        number: of the file.
        start: the first byte.
        end: behind the last.
        more: hashed after them.

    Raises:
        _Shorter: there are not so many.
    """
    digest = hashlib.sha256()
    while start < end:
        chunk = os.pread(number, min(_CHUNK, end - start), start)
        if not chunk:
            raise _Shorter(errno.EIO, os.strerror(errno.EIO))
        digest.update(chunk)
        start += len(chunk)
    digest.update(more)
    return digest.digest()


def _digest_of_parts(parts: Iterable[bytes]) -> bytes:
    """The hash that stands in a comment.

    Args:
        parts: hashes of the parts, in their order.
    """
    return hashlib.sha256(b"".join(parts)).hexdigest().encode()


def _verify_archive(file: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # a damaged directory makes zipfile raise anything, struct.error among it
        raise Damage(f"its archive cannot be read ({error})") from error
    if bad is not None:
        raise Damage(f"{bad} in it is not what was written (CRC-32 differs)")
