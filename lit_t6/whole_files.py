"""Small files that are whole whenever they are read."""

import os
import secrets
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file of text, all or nothing; see `replace_bytes`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, all or nothing: whoever reads it finds what it held, or the whole of this, which is on the disk.

    Raises:
        OSError: it cannot be written.
    """
    # Not the file's own name with something added: TensorBoard reads every file that has `tfevents` in its name.
    beside = path.with_name(f".replaced.{secrets.token_hex(4)}.partial")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)
