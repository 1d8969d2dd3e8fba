"""Small files that are whole whenever they are read."""

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path
from typing import IO, Any

SETTLED_SECONDS = 2.0
"""A file or folder that was written so long ago is not being made at this moment."""
TOKEN = "[0-9a-f]" * 8
"""In names of files being written, as a pattern of `glob`; `secrets.token_hex(4)` makes one."""


def replace_text(path: Path, text: str) -> None:
    """Write a file of text, all or nothing; see `replace_bytes`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, all or nothing: whoever reads it finds what it held, or the whole of this, which is on the disk.

    What processes that were killed here have left in the folder is removed.

    Raises:
        OSError: it cannot be written.
    """
    # Not the file's own name with something added: TensorBoard reads every file that has `tfevents` in its name.
    beside = path.with_name(f".replaced.{secrets.token_hex(4)}.partial")
    remove_leftovers(path.parent, f".replaced.{TOKEN}.partial")
    try:
        with beside.open("xb") as file:
            hold(file)  # until it has its name: a file that somebody writes is no leftover
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def hold(file: IO[Any]) -> bool:
    """Hold a file until it is closed; False if somebody else does, or where files cannot be locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove half-written files that no process holds, on this host or another.

    Args:
        folder: that they lie in.
        pattern: of their names, which no other file has.
    """
    for leftover in folder.glob(pattern):
        with contextlib.suppress(OSError), leftover.open("rb") as file:
            # A file just created may not be held yet.
            if time.time() - os.fstat(file.fileno()).st_mtime > SETTLED_SECONDS and hold(file):
                leftover.unlink()
