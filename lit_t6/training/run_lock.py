"""Which process is at work in the folder of a run."""

import fcntl
from pathlib import Path
from typing import IO

LOCK_NAME = "run.lock"


def hold_folder(folder: Path, *, shared: bool = False) -> IO[str] | None:
    """Hold the folder until the file is closed or the process ends; None if somebody else does.

    Args:
        folder: of the run.
        shared: several may hold it so at the same time; the lock's file must be there.
    """
    file = (folder / LOCK_NAME).open("r" if shared else "w")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:  # a file system without locks; then two runs are told apart by their folders alone
        pass
    return file


def is_held(folder: Path) -> bool:
    """Whether a process is at work in the folder; those who ask at the same time do not disturb each other.

    Args:
        folder: of the run.
    """
    if not (folder / LOCK_NAME).exists():
        return False
    file = hold_folder(folder, shared=True)
    if file is None:
        return True
    file.close()
    return False
