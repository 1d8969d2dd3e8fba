"""Checkpoints as files: written whole or not at all, and checked before anything in them is believed."""

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.serialization import config as serialization

from lit_t6.training.checkpoint_hash import Damage, HashedFile, verify_hash
from lit_t6.whole_files import SETTLED_SECONDS, TOKEN, hold, remove_leftovers

FOLDER = "resume"
"""In the folder of a run's checkpoints: those to go on from, beside those that are kept as the best."""

_LARGE = 1 << 28
"""Bytes that a file system takes a while to free."""
META = "meta.pt"
"""In the folder of a checkpoint in several files: all but the tensors that are shared out; see `checkpoint_shards`."""

_verified: set[tuple[int, ...]] = set()
"""Files that were found whole, by inode, size and times: one process asks for the same file several times."""


class DamagedCheckpoint(ValueError):
    """A file that is no checkpoint, or not what was written."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: not a checkpoint, or a damaged one: {reason}.")
        self.path, self.reason = str(path), reason


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
    if torch.cuda.is_available():
        # What a GPU holds comes by way of memory that stays allocated: else most of the time goes there.
        with contextlib.suppress(RuntimeError):  # the system gives none
            with serialization.patch("save.use_pinned_memory_for_d2h", True):  # type: ignore[attr-defined]  # made later
                _write(content, path, exchange)
            return
    _write(content, path, exchange)


def _write(content: Any, path: Path, exchange: contextlib.AbstractContextManager[None] | None) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    hashed = None
    try:
        with beside.open("x+b") as file, HashedFile(file) as hashed:
            hold(file)  # until it has its name: a file that somebody writes is no leftover
            try:
                torch.save(content, hashed)  # type: ignore[arg-type]  # write and flush are all it needs
            except RuntimeError:
                hashed.raise_error()  # the cause, if it was the file
                raise
            hashed.finish()
            with freed_behind(path), exchange or contextlib.nullcontext():
                beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        number = error.errno or errno.EIO
        size = hashed.size if hashed else 0
        raise OSError(number, f"{os.strerror(number)} (after {size:,} bytes)", str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def freed_behind(path: Path) -> Iterator[None]:
    """Free a large file in a thread when it loses its name: a file system takes a second for gigabytes.

    Args:
        path: of a file that is removed or replaced within; or of anything else.
    """
    number = None
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size >= _LARGE:
            number = os.open(path, os.O_RDONLY)  # the system frees it when the last who holds it lets go
    try:
        yield
    finally:
        if number is not None:
            try:
                threading.Thread(target=os.close, args=(number,), daemon=True).start()
            except RuntimeError:  # the system starts no more threads
                os.close(number)


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
            verify_hash(file, status.st_size)
        except Damage as damage:
            raise DamagedCheckpoint(path, str(damage)) from damage
        if settled:
            _verified.add(key)
