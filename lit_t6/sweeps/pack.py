"""A study in one small file: what was found, without checkpoints; and a study from such a file."""

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import TrialState

from lit_t6.sweeps.jobs import INTERRUPTED
from lit_t6.sweeps.journal import LastingJournal
from lit_t6.sweeps.ledger import Ledger
from lit_t6.sweeps.records import METRICS, RECORD, record_of
from lit_t6.sweeps.room import is_starting, whole_or_nothing
from lit_t6.sweeps.same_data import DATA_NAME
from lit_t6.sweeps.saved_study import CONFIGS_NAME, STUDY_NAME, save_study
from lit_t6.sweeps.storage import JOURNAL
from lit_t6.sweeps.trial import FINISHED

_OF_A_TRIAL = (METRICS, "config.yaml", "hparams.yaml", "guards.jsonl", FINISHED)
_EVENTS = "events.out.tfevents."


def pack(ledger: Ledger, folder: Path, output: Path) -> tuple[int, int]:
    """Write a study into an archive: the study with its files, a journal of all trials, and of each that has ended its
    record, metrics, configuration and curves.

    Trials whose folders are on another machine come with their records alone, which are in the storage.

    Args:
        ledger: of the study.
        folder: of the study on this machine.
        output: the archive, tar with gzip.

    Returns:
        How many trials have ended, and the size of the archive in bytes.

    Raises:
        OSError: it cannot be written.
    """
    ended = {key: stands.trial for key, stands in ledger.standings().items() if stands.is_over and stands.trial}
    output.parent.mkdir(exist_ok=True)
    beside = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with tarfile.open(beside, "w:gz") as archive, tempfile.TemporaryDirectory() as scratch:
            name = ledger.study.name
            study = save_study(ledger.study, Path(scratch))
            for path in (study, *sorted((Path(scratch) / CONFIGS_NAME).iterdir())):
                archive.add(path, f"{name}/{path.relative_to(scratch)}")
            archive.add(_journal(ledger.storage, name, Path(scratch) / JOURNAL), f"{name}/{JOURNAL}")
            if data := ledger.storage.get_study_user_attrs(ledger.study_id).get("data"):
                _add_text(archive, f"{name}/{DATA_NAME}", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
            for key, trial in ended.items():
                _add_text(archive, f"{name}/{key}/{RECORD}", json.dumps(record_of(trial, ledger.study), indent=1))
                for path in _files(folder / key):
                    archive.add(path, f"{name}/{key}/{path.relative_to(folder / key)}")
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)
    return len(ended), output.stat().st_size


def check_folder(output: Path) -> None:
    """Refuse an archive for whose folder there is no place: more than one folder is hardly meant to be made.

    Args:
        output: the archive.

    Raises:
        ValueError: the folder that its folder would be made in is not there.
    """
    if not output.parent.is_dir() and not output.parent.parent.is_dir():
        raise ValueError(
            f"--output {output}: there is no folder {output.parent.parent} to make {output.parent.name} in; make it, "
            f"or name a place that is there."
        )


def _files(folder: Path) -> Iterator[Path]:
    """What is packed of a trial."""
    yield from (folder / name for name in _OF_A_TRIAL if (folder / name).is_file())
    yield from sorted(path for path in folder.rglob(f"{_EVENTS}*") if path.is_file())


def _journal(storage: BaseStorage, name: str, path: Path) -> Path:
    """The study's trials as a journal, whatever storage they are in."""
    to = JournalStorage(LastingJournal(path))
    optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=to)
    return path


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text.encode())
    archive.addfile(entry, io.BytesIO(text.encode()))


def unpack(archive: Path, root: Path) -> Path:
    """Take a study out of an archive.

    Args:
        archive: from `pack`.
        root: where studies are kept.

    Returns:
        The file of the study, in its folder.

    Raises:
        ValueError: it is no such archive, the study is there already, or the disk is full.
        OSError: it cannot be read or written.
    """
    try:
        with tarfile.open(archive, "r:gz") as packed:
            names = [member.name for member in packed.getmembers()]
            name, *others = {member.partition("/")[0] for member in names} or {""}
            if others or f"{name}/{STUDY_NAME}" not in names:
                raise ValueError(
                    f"{archive}: is no archive of a study: it is no folder with a {STUDY_NAME}. `sweep pack` makes one."
                )
            folder = root / name
            if folder.exists() and any(folder.iterdir()):
                raise ValueError(
                    f"{folder}: is there already. Go on with it by `sweep run {folder}`, or unpack to another place "
                    f"with --logs."
                )
            with whole_or_nothing(folder, sum(member.size for member in packed.getmembers())):
                root.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=root) as scratch:
                    packed.extractall(scratch, filter="data")
                    if folder.exists():
                        folder.rmdir()
                    (Path(scratch) / name).rename(folder)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive}: cannot be read as an archive of a study: {error}.") from error
    return folder / STUDY_NAME


@contextmanager
def unpacked(archive: Path, root: Path) -> Iterator[Path]:
    """A study out of an archive; where what is done with it fails, it is removed again, and can be unpacked anew.

    Args:
        archive: from `pack`.
        root: where studies are kept.

    Raises:
        ValueError: as `unpack`.
        OSError: it cannot be read or written.
    """
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    file = unpack(archive, root)
    try:
        yield file
    except BaseException:
        if not is_starting(file.parent):  # somebody else goes on with it already
            shutil.rmtree(file.parent, ignore_errors=True)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
        raise


def give_up_running(ledger: Ledger) -> None:
    """Nobody is at work on what has just come out of an archive: what was running then is to be done again."""
    for trial in ledger.trials():
        if trial.state == TrialState.RUNNING:
            ledger.lose(trial, INTERRUPTED, "it was running when the study was packed")
