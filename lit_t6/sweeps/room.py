"""A study is begun whole or not at all; where the disk is full, one error says how much room it takes."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from lit_t6.sweeps.cells import plain_cells
from lit_t6.sweeps.jobs import jobs_of
from lit_t6.sweeps.presence import WORKERS, is_of_this_machine, is_unheld
from lit_t6.sweeps.saved_study import CONFIGS_NAME, plain_of
from lit_t6.sweeps.study import Study

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BYTES_A_TRIAL = 2048
"""In a journal, of a trial that waits and is recorded later, roughly."""
_BYTES_A_FILE = 4096
"""That a file takes at least."""


@contextmanager
def whole_or_nothing(folder: Path, needed: int) -> Iterator[None]:
    """Begin a study in its folder: where that fails, no half of it stays behind.

    What was begun there before is left as it is.

    Args:
        folder: of the study.
        needed: bytes that beginning it takes, for the message.

    Raises:
        ValueError: the disk is full.
    """
    began_before = is_begun(folder)
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        yield
    except BaseException as error:
        if not began_before:
            _remove(folder, made)
        if (full := _full(error)) is None:
            raise
        raise ValueError(_no_room(full, folder, needed, began_before)) from error


def is_begun(folder: Path) -> bool:
    """Whether a folder holds anything of a study, besides the signs of those who are about to begin it."""
    return folder.is_dir() and any(path.name != WORKERS for path in folder.iterdir())


def is_starting(folder: Path) -> bool:
    """Whether a process that can be seen from here is at work on the study of a folder, or about to begin it."""
    return any(not is_unheld(path) for path in (folder / WORKERS).glob("*.lock"))


def bytes_to_begin(study: Study) -> int:
    """About how much room it takes to begin a study: its files, and what is said of each trial; no checkpoints."""
    files = {*study.configs, *(path for cell in plain_cells(study) for path in cell.configs)}
    text = len(yaml.safe_dump(plain_of(study)).encode())
    sizes = [text, *(path.stat().st_size for path in files), _BYTES_A_TRIAL * len(jobs_of(study))]
    return sum(max(size, _BYTES_A_FILE) for size in sizes)


def _full(error: BaseException | None) -> OSError | None:
    """The error of a full disk that is behind this one, if there is one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__
    return None


def _no_room(error: OSError, folder: Path, needed: int, began_before: bool) -> str:
    at_fault = Path(str(error.filename)).parent if error.filename else folder
    place = at_fault if folder not in (at_fault, *at_fault.parents) else folder
    with suppress(OSError):
        there = next(parent for parent in (place, *place.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        less = ", of which a quota may allow less" if free >= needed else ""
        return (
            f"{place}: the study cannot {'go on' if began_before else 'begin'}: {error.strerror}. It takes about "
            f"{needed:,} bytes to begin, checkpoints apart, and {free:,} are free there{less}. Make room, or name "
            f"another place with --logs."
        )
    return f"{place}: the study cannot begin: {error.strerror}, and the folder does not answer."


def _remove(folder: Path, made: list[Path]) -> None:
    """Remove what was begun, unless somebody else is or was at work there, and folders that were made for it alone."""
    if not _is_anothers(folder):
        shutil.rmtree(folder, ignore_errors=True)
    for parent in made:
        with suppress(OSError):
            parent.rmdir()


def _is_anothers(folder: Path) -> bool:
    """Whether somebody else came to a folder meanwhile: trials are made by those alone who have begun.

    Who is there on another machine may hold a lock that cannot be seen from here, and who has finished holds none.
    """
    elsewhere = any(not is_of_this_machine(path) for path in (folder / WORKERS).glob("*.lock"))
    known = (WORKERS, CONFIGS_NAME)
    trials = folder.is_dir() and any(path.is_dir() and path.name not in known for path in folder.iterdir())
    return elsewhere or trials or is_starting(folder)
