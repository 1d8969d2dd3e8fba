import os
import re

import pytest

from lit_t6.sweeps import commands, load_study
from lit_t6.sweeps.pack import pack, unpack
from lit_t6.sweeps.presence import Presence
from lit_t6.sweeps.room import bytes_to_begin, is_starting, whole_or_nothing
from lit_t6.sweeps.screen import Screen
from lit_t6.sweeps.worker import Plan

from ..training.disks import fill, small_disk
from .ledgers import make_ledger, make_study, plain_cells
from .running import study_file, sweep

PAGE = 4096
NO_SPACE = r"the study cannot begin: No space left on device\. It takes about [\d,]+ bytes to begin, .* [\d,]+ are free"


def begin(study, folder):
    """As `sweep run` begins, with the presence closed that it goes on to hold."""
    plan = Plan(study, tuple(plain_cells(study)), None, folder, 5.0)
    with commands._beginning(study, folder) as presence:
        commands._begin(plan, Screen(), presence, False, False)
    presence.close()


def fill_but(disk, room):
    fill(disk)
    filler = disk / "filler"
    os.truncate(filler, filler.stat().st_size - room)


@pytest.mark.parametrize("pages", range(4))
def test_a_disk_that_is_full_is_one_error_and_leaves_no_study_behind(tmp_path, pages):
    """Wherever in the beginning it is noticed."""
    study = make_study(tmp_path, seeds=[*range(20)])
    with small_disk(tmp_path / "disk", "1m") as disk:
        fill_but(disk, pages * PAGE)
        folder = disk / "logs" / "sweeps" / "study"
        with pytest.raises(ValueError, match=NO_SPACE) as error:
            begin(study, folder)
        said = str(error.value)
        assert said.startswith(f"{folder}: ")
        assert said.endswith("Make room, or name another place with --logs.")
        assert not (disk / "logs").exists()
        (disk / "filler").unlink()
        begin(study, folder)
        assert load_study([folder / "study.yaml"]).seeds == study.seeds


@pytest.mark.slow
def test_the_command_says_it_in_a_line(prepared, tmp_path):
    path = study_file(tmp_path, prepared, cells={"a": {}})
    with small_disk(tmp_path / "disk", "1m") as disk:
        fill(disk)
        status, said = sweep([path, "--logs", disk / "logs"], tmp_path)
        assert status == 1
        assert re.search(f"^error: {disk}/logs/sweeps/study: {NO_SPACE}", said, re.M), said
        assert "Traceback" not in said
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_what_it_takes_to_begin_is_enough(tmp_path):
    study = make_study(tmp_path)
    with small_disk(tmp_path / "disk", "1m") as disk:
        fill_but(disk, bytes_to_begin(study) + PAGE)
        begin(study, disk / "study")


def test_a_study_that_was_begun_stays_on_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        study, folder = make_study(tmp_path, seeds=[0]), disk / "study"
        begin(study, folder)
        fill(disk)
        before = (folder / "journal.log").read_bytes()
        with pytest.raises(ValueError, match="the study cannot go on: No space left on device"):
            begin(make_study(tmp_path, seeds=[*range(99)]), folder)
        assert load_study([folder / "study.yaml"]).seeds == (0,)
        assert (folder / "journal.log").read_bytes().startswith(before)


def test_an_archive_for_which_there_is_no_room(tmp_path):
    study, folder = make_study(tmp_path), tmp_path / "study"
    begin(study, folder)
    pack(make_ledger(study, folder), folder, tmp_path / "study.tar.gz")
    with small_disk(tmp_path / "disk", "1m") as disk:
        fill(disk)
        with pytest.raises(ValueError, match=NO_SPACE) as error:
            unpack(tmp_path / "study.tar.gz", disk / "logs" / "sweeps")
        assert int(re.search(r"about ([\d,]+) bytes", str(error.value))[1].replace(",", "")) > 1000
        assert not (disk / "logs").exists()


def fail_beside(folder, others=None):
    """Fail at the beginning of a study; somebody else comes to its folder meanwhile, who may stay."""
    with whole_or_nothing(folder, 0):
        other = Presence(folder / "workers")
        others.append(other) if others is not None else other.close()
        raise ValueError("no such option")


def test_what_fails_for_another_reason_leaves_nothing_either(tmp_path):
    folder = tmp_path / "logs" / "study"
    with pytest.raises(ValueError, match="no such option"):
        fail_beside(folder)
    assert not (tmp_path / "logs").exists()


def test_a_folder_at_which_somebody_else_is_at_work_stays(tmp_path):
    others = []
    with pytest.raises(ValueError, match="no such option"):
        fail_beside(tmp_path / "study", others)
    assert is_starting(tmp_path / "study")
    others[0].close()
    assert not is_starting(tmp_path / "study")


@pytest.mark.parametrize("left", ["a/seed-0/trial.json", "workers/elsewhere-1-abcdef.lock"])
def test_a_study_that_somebody_else_began_meanwhile_stays(tmp_path, left):
    """Who has finished it meanwhile, or works on it on another machine, holds no lock that is seen here."""
    folder = tmp_path / "study"

    def fail():
        with whole_or_nothing(folder, 0):
            for path in (folder / "study.yaml", folder / left):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            raise ValueError("no such option")

    with pytest.raises(ValueError, match="no such option"):
        fail()
    assert (folder / "study.yaml").exists()
