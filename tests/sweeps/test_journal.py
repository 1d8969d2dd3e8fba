import json
import multiprocessing
import os
import signal
import time

import optuna
import pytest
from optuna.storages import JournalStorage

from lit_t6.sweeps.journal import KernelLock, LastingJournal, mend

from ..training.disks import files_no_longer_than


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=JournalStorage(LastingJournal(path)), study_name="s")
    for value in (1.0, 2.0):
        study.tell(study.ask(), value)
    return path


def values(path):
    study = optuna.load_study(storage=JournalStorage(LastingJournal(path)), study_name="s")
    return [trial.value for trial in study.trials]


@pytest.mark.parametrize("keep", [1, 5, -1], ids=["a letter", "a few", "all but the newline"])
def test_a_torn_last_line_is_cut_off_and_told(journal, keep):
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:keep])
    (said,) = mend(journal)
    assert "last line was torn" in said
    assert str(journal) in said
    assert journal.read_bytes() == whole
    assert mend(journal) == []
    assert values(journal) == [1.0, 2.0]


def test_the_next_who_writes_cuts_a_torn_line_off_too(journal):
    study = optuna.load_study(storage=JournalStorage(LastingJournal(journal)), study_name="s")
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"work')
    study.tell(study.ask(), 3.0)
    assert values(journal) == [1.0, 2.0, 3.0]


def test_a_record_behind_a_torn_one_is_kept(journal):
    """Where another program appended to a half line, Optuna reads nothing from there on."""
    lines = journal.read_bytes().splitlines(keepends=True)
    torn = b"".join([*lines[:-1], lines[-1][:7] + lines[-1]])
    journal.write_bytes(torn + lines[-1])
    with pytest.raises(ValueError, match="delimiter|Expecting|Invalid"):
        values(journal)
    journal.write_bytes(torn)
    (said,) = mend(journal)
    assert f"line {len(lines)}" in said
    assert len(journal.read_bytes()) == len(torn)
    assert values(journal) == [1.0, 2.0]


def test_a_broken_line_in_the_middle_is_blanked(journal):
    lines = journal.read_bytes().splitlines(keepends=True)
    torn = journal.read_bytes().replace(lines[-2], lines[-2][:20].ljust(len(lines[-2]) - 1, b"\0") + b"\n")
    journal.write_bytes(torn)
    (said,) = mend(journal)
    assert f"line {len(lines) - 1}" in said
    assert len(journal.read_bytes()) == len(torn)
    assert [json.loads(line)["op_code"] for line in journal.read_bytes().splitlines()][-2] == 10
    values(journal)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are notes\n")
    with pytest.raises(ValueError, match="notes.txt, line 1: is no record of an Optuna journal"):
        mend(path)
    assert path.read_text() == "these are notes\n"


def test_a_full_disk_leaves_the_journal_as_it_was(journal):
    study = optuna.load_study(storage=JournalStorage(LastingJournal(journal)), study_name="s")
    before = journal.read_bytes()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with files_no_longer_than(len(before) + 30), pytest.raises(OSError, match="File too large") as error:
        study.ask()
    assert error.value.filename == str(journal)
    assert journal.read_bytes() == before
    study.tell(study.ask(), 3.0)
    assert values(journal) == [1.0, 2.0, 3.0]


def hold(path):
    KernelLock(path).acquire()
    path.with_name("held").touch()
    time.sleep(60)


def test_a_killed_holder_blocks_nobody(journal):
    process = multiprocessing.get_context("fork").Process(target=hold, args=(journal,))
    process.start()
    while not journal.with_name("held").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    began = time.monotonic()
    assert values(journal) == [1.0, 2.0]
    optuna.load_study(storage=JournalStorage(LastingJournal(journal)), study_name="s").ask()
    assert time.monotonic() - began < 2
