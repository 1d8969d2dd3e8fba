"""Checkpoints as files: written whole or not at all, and checked before anything in them is believed.

A file is what `torch.save` writes, a zip archive, with a comment at its very end: `lit_t6 sha256=` and the hash of all
bytes before the comment was there (its length, the two bytes before it, counts as zero). Readers of zip archives skip a
comment, `torch.load` among them, and it stands after everything that a large archive (zip64) adds.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import struct
import time
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from lit_t6.whole_files import SETTLED_SECONDS, TOKEN, hold, remove_leftovers

FOLDER = "resume"
"""In the folder of a run's checkpoints: those to go on from, beside those that are kept as the best."""

_COMMENT = b"lit_t6 sha256="
_DIGEST_LENGTH = 64
_END = b"PK\x05\x06"
_END_LENGTH = 22
"""Bytes of the record that ends a zip archive, up to its comment; the comment's length is the last two of them."""
_CHUNK = 1 << 22
META = "meta.pt"
"""In the folder of a checkpoint in several files: all but the tensors that are shared out; see `checkpoint_shards`."""

_verified: set[tuple[int, ...]] = set()
"""Files that were found whole, by inode, size and times: one process asks for the same file several times."""


class DamagedCheckpoint(ValueError):
    """A file that is no checkpoint, or not what was written."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: not a checkpoint, or a damaged one: {reason}.")
        self.path, self.reason = str(path), reason


class _Hashed:
    """A file being written by torch's archive writer, whose bytes are hashed on their way.

    The writer in C++ turns any error in `write` into a complaint about positions: the first error is kept instead, and
    raised by `finish`.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size = file, 0
        self._hash, self._tail = hashlib.sha256(), b""
        self._error: BaseException | None = None

    def write(self, data: memoryview) -> int:
        if self._error is None:
            try:
                self.file.write(data)
                self._hash.update(data)
                self._tail = (self._tail + bytes(data[-_END_LENGTH:]))[-_END_LENGTH:]
                self.size += len(data)
            except BaseException as error:  # also Ctrl-C
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Nothing yet: `finish` does it."""

    def finish(self) -> None:
        """Write the comment, and have everything on the disk."""
        if self._error is not None:
            raise self._error
        assert self._tail[:4] == _END
        assert self._tail[-2:] == bytes(2)
        comment = _COMMENT + self._hash.hexdigest().encode()
        self.file.seek(-2, os.SEEK_END)
        self.file.write(struct.pack("<H", len(comment)) + comment)
        self.file.flush()
        os.fsync(self.file.fileno())


def write_atomically(
    content: Any, path: str | Path, exchange: contextlib.AbstractContextManager[None] | None = None
) -> None:
    """Write a checkpoint with its hash, all or nothing: a file that is there is whole until the new one is.

    Written beside the target, on the same file system, synced and renamed. What processes that were killed have left
    half written in the folder is removed.

    Args:
        content: for `torch.save`.
        path: of the file; its folder is made.
        exchange: within which the new file, whole, takes its place.

    Raises:
        OSError: it cannot be written; says how far it came.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, f".*.ckpt.{TOKEN}.tmp")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    hashed = None
    try:
        with beside.open("xb") as file:
            hold(file)  # until it has its name: a file that somebody writes is no leftover
            hashed = _Hashed(file)
            try:
                torch.save(content, hashed)  # type: ignore[arg-type]  # write and flush are all it needs
            except RuntimeError:
                hashed.finish()  # raises the cause, if it was the file
                raise
            hashed.finish()
            with exchange or contextlib.nullcontext():
                beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        number = error.errno or errno.EIO
        size = hashed.size if hashed else 0
        raise OSError(number, f"{os.strerror(number)} (after {size:,} bytes)", str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the new name on the disk as well."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without syncing of folders
            raise
    finally:
        os.close(number)


def shard_name(rank: int, world_size: int) -> str:
    """Name of the file with a rank's share of a checkpoint in several files.

    Args:
        rank: from 0.
        world_size: ranks that wrote it.
    """
    return f"shard-{rank}-of-{world_size}.pt"


def is_sharded(path: str | Path) -> bool:
    """Whether a checkpoint is a folder of several files, rather than one file.

    Args:
        path: of the checkpoint.
    """
    return (Path(path) / META).is_file()


def shards_of(folder: str | Path) -> list[Path]:
    """The files of a checkpoint in several: the common one, then those of the ranks in their order.

    Args:
        folder: of the checkpoint.

    Raises:
        DamagedCheckpoint: some are missing.
    """
    folder = Path(folder)
    found = {path.name for path in folder.glob("shard-*-of-*.pt")}
    counts = {name.removesuffix(".pt").rpartition("-")[2] for name in found}
    world_size = int(counts.pop()) if len(counts) == 1 else 0
    names = [META, *(shard_name(rank, world_size) for rank in range(world_size))]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not world_size:
        raise DamagedCheckpoint(folder, f"{missing[0] if missing else 'a shard'} is missing in this folder")
    return [folder / name for name in names]


def verify_file(path: str | Path) -> None:
    """Check that a checkpoint is what was written: by its hash, or without one by the archive's own checksums.

    A file is read once, and not again in this process while it stays the same. Of a checkpoint in several files, all
    are read.

    Raises:
        DamagedCheckpoint: it is truncated or changed, or no zip archive.
        OSError: it cannot be read.
    """
    for file in shards_of(path) if Path(path).is_dir() else [Path(path)]:
        _verify_one(file)


def _verify_one(path: Path) -> None:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        # Times are coarse: a file written a moment ago could change once more and look the same.
        settled = time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if settled and key in _verified:
            return
        try:
            _verify(file, status.st_size)
        except _Damage as damage:
            raise DamagedCheckpoint(path, str(damage)) from damage
        if settled:
            _verified.add(key)


class _Damage(Exception):
    """What is wrong with a file."""


def _verify(file: IO[bytes], size: int) -> None:
    comment_length = len(_COMMENT) + _DIGEST_LENGTH
    file.seek(max(0, size - _END_LENGTH - comment_length))
    tail = file.read()
    if tail[-_END_LENGTH:][:4] == _END and tail[-2:] == bytes(2):
        _verify_archive(file)  # no comment, so not written by us
        return
    end = tail[:_END_LENGTH]
    if end[:4] != _END or len(tail) != _END_LENGTH + comment_length:
        raise _Damage(f"its {size:,} bytes do not end as a checkpoint does; it is truncated, or something else")
    comment = tail[_END_LENGTH:]
    if end[-2:] != struct.pack("<H", comment_length) or not re.fullmatch(_COMMENT + rb"[0-9a-f]{64}", comment):
        raise _Damage("the comment at its end is not ours")
    if _digest(file, size - comment_length - 2) != comment[len(_COMMENT) :].decode():
        raise _Damage("its contents are not those that were written (SHA-256 differs)")


def _digest(file: IO[bytes], length: int) -> str:
    """Hash of the first bytes of a file, and of an empty comment's length."""
    file.seek(0)
    digest, left = hashlib.sha256(), length
    while left > 0:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise _Damage("it became shorter while it was read")
        digest.update(chunk)
        left -= len(chunk)
    digest.update(bytes(2))
    return digest.hexdigest()


def _verify_archive(file: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # a damaged directory makes zipfile raise anything, struct.error among it
        raise _Damage(f"its archive cannot be read ({error})") from error
    if bad is not None:
        raise _Damage(f"{bad} in it is not what was written (CRC-32 differs)")
