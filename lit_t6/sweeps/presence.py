"""Who is at work, and whether they still live: a worker holds a lock as long as its process lives."""

import fcntl
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

WORKERS = "workers"
"""In the folder of a study: who is at work, or about to begin it."""


class Presence:
    """Of this process, known to others by a file that it holds locked; the kernel lets go of it when the process dies.

    Args:
        folder: where the files of all workers are.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.path = (folder / f"{name}.lock").resolve()
        self.descriptor = _held(self.path)
        self.identity: dict[str, Any] = {
            "id": name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot": boot_id(),
            "lock": str(self.path),
        }

    def close(self) -> None:
        """The process has no work any more."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _held(path: Path) -> int:
    """A file that is there, and held. Whoever looks whether it is (`is_unheld`) holds it a moment, or removes it."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):  # a file system without locks: then heartbeats alone tell
            fcntl.flock(number, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(number), path.stat()):
                return number
        os.close(number)


def boot_id() -> str:
    """What tells this run of this machine's kernel from others."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def is_dead(worker: Mapping[str, Any] | None) -> bool:
    """Whether a worker is known to be dead; false if it lives, or if that cannot be seen from here.

    Locks tell it on the machine where the worker ran; others may not see them, on network file systems for one.

    Args:
        worker: identity of one.
    """
    if not worker or worker.get("boot") != boot_id():
        return False
    return is_unheld(Path(worker["lock"]))


def start_of(pid: int) -> str:
    """When a process of this machine started, in ticks; empty if there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def is_unheld(path: Path) -> bool:
    """Whether no process holds a file that is there; those that cannot be seen from here may."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_of_this_machine(path: Path) -> bool:
    """Whether the file of a presence was made here."""
    return path.name.rsplit("-", 2)[0] == socket.gethostname()
