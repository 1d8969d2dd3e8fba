"""Studies that a person names: their settings, their folder, and the ledger of one that was begun."""

import difflib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lit_t6.command_line.complaints import YAML_SUFFIXES
from lit_t6.sweeps.jobs import jobs_of
from lit_t6.sweeps.ledger import Ledger
from lit_t6.sweeps.pack import unpack, unpacked
from lit_t6.sweeps.room import is_starting
from lit_t6.sweeps.same_study import agree, as_begun, kept_study, with_seeds_of
from lit_t6.sweeps.saved_study import STUDY_NAME
from lit_t6.sweeps.storage import GRACE, JOURNAL, open_storage
from lit_t6.sweeps.study import Study, load_study

FOLDER = "sweeps"
"""Of all studies, in that of all logs."""
_FEW = 12
"""Studies listed at most where there are many."""


def load_asked(
    study: Sequence[str], overrides: Mapping[str, Any] | None, logs: str, from_archive: str | None = None
) -> tuple[Study, Path]:
    """A study from its files, its folder, or an archive; and its folder.

    Args:
        study: its files or its folder.
        overrides: settings that were typed.
        logs: folder of all logs.
        from_archive: from `sweep pack`, unpacked into `logs`.

    Raises:
        ValueError: there is no such study, or it is only just being begun, or more than one is named.
    """
    if from_archive is not None:
        if study:
            raise ValueError(f"--from {from_archive} brings its study along; leave {shlex.join(study)} out.")
        study = [str(unpack(Path(from_archive), Path(logs) / FOLDER))]
    elif not study:
        raise ValueError("sweep needs the file of a study, such as configs/sweep/rank.yaml, or the folder of one.")
    kept = [str(path) if (path := Path(name) / STUDY_NAME).is_file() else name for name in study]
    for name in kept:
        _check_not_starting(Path(name))
        _check_is_there(name, Path(logs) / FOLDER)
    asked = load_study(kept, overrides or {})
    asked = asked if from_archive is None else replace(asked, files=(Path(from_archive),))
    begun = Path(kept[0]).parent
    is_begun = begun.name == asked.name or (begun / JOURNAL).exists()  # wherever it lies, whatever it is called there
    if is_begun and Path(kept[0]).name == STUDY_NAME:
        return asked, begun
    return asked, Path(logs) / FOLDER / asked.name


def load_begun(
    study: Sequence[str],
    overrides: Mapping[str, Any] | None,
    logs: str,
    from_archive: str | None = None,
    compares: bool = False,
) -> tuple[Study, Path]:
    """A study that is looked at, with the seeds that are kept in its folder unless others are typed; and its folder.

    Args:
        study: its files or its folder.
        overrides: settings that were typed.
        logs: folder of all logs.
        from_archive: from `sweep pack`, unpacked into `logs`.
        compares: whether all that its baseline does is to be compared with, as in a report: it may be another one.

    Raises:
        ValueError: there is no such study, or another one was begun in its folder; says what differs.
    """
    asked, folder = load_asked(study, overrides, logs, from_archive)
    kept = kept_study(as_begun(asked, folder) if compares else asked, folder)
    return asked if "seeds" in (overrides or {}) else with_seeds_of(kept, asked), folder


@contextmanager
def asked_to_run(
    study: Sequence[str], overrides: Mapping[str, Any] | None, logs: str, from_archive: str | None
) -> Iterator[tuple[Study, Path]]:
    """The same, of a study that is about to begin: where that fails, what was unpacked for it is removed again."""
    if from_archive is None or study:
        yield load_asked(study, overrides, logs, from_archive)
        return
    with unpacked(Path(from_archive), Path(logs) / FOLDER) as file:
        asked, folder = load_asked([str(file)], overrides, logs)
        yield replace(asked, files=(Path(from_archive),)), folder


def open_begun(study: Study, folder: Path, storage: str | None, heartbeat: float) -> Ledger:
    """The ledger of a study that was begun.

    Raises:
        ValueError: it has not been, or only just, or with other settings; or the storage cannot be reached.
    """
    _check_not_starting(folder)
    if storage is None and not (folder / JOURNAL).exists():
        raise ValueError(
            f"{folder / JOURNAL}: there is no such journal: the study has not been begun here. Where it was begun with "
            f"--storage or --logs, give the same."
        )
    opened = open_storage(storage, folder, heartbeat)
    if study.name not in [other.study_name for other in opened.get_all_studies()]:
        raise ValueError(f"the storage has no study called {study.name!r}: it has not been begun.")
    ledger = Ledger(study, jobs_of(study), opened, folder, GRACE * heartbeat, {})
    if opened.get_study_user_attrs(ledger.study_id):
        agree(ledger)  # or values of one objective would stand under the name of another
    return ledger


def _check_is_there(name: str, root: Path) -> None:
    """Refuse what is neither a file nor the folder of a study; of a YAML file that is not there its reader tells.

    Args:
        name: as typed.
        root: where studies are kept.

    Raises:
        ValueError: it is neither; says which studies there are.
    """
    path = Path(os.path.expanduser(name))
    if path.is_file() or (path.suffix in YAML_SUFFIXES and not path.exists()):
        return
    found = [of.parent for folder in (path, path.parent, root) for of in sorted(folder.glob(f"*/{STUDY_NAME}"))]
    there = {str(of): None for of in found}
    beside = {Path(of).name: of for of in reversed(there)}
    near = difflib.get_close_matches(path.name, beside, n=1)
    meant = f"; did you mean {beside[near[0]]}?" if near and not path.is_dir() else "."
    few = ", ".join([*there][:_FEW]) + (", …" if len(there) > _FEW else "")
    known = f" There {'is' if len(there) == 1 else 'are'} {few}." if there else f" There is none in {root} either."
    raise ValueError(f"{name}: is neither the file of a study nor the folder of one that was begun{meant}{known}")


def _check_not_starting(folder: Path) -> None:
    """Refuse to look at a study whose first `sweep run` has not come so far as to make its trials."""
    if not (folder / STUDY_NAME).is_file() and is_starting(folder):
        raise ValueError(
            f"{folder}: the study is being begun: its `sweep run` looks at the settings, and makes the trials then. "
            f"Ask again in a moment."
        )
