"""A study goes on with its own data, wherever that lies, and with no other."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from lit_t6.cli import main
from lit_t6.data.manifest import read_manifest
from lit_t6.sweeps import commands, load_study
from lit_t6.sweeps.begun import open_begun
from lit_t6.sweeps.checking import check_data, check_study
from lit_t6.sweeps.digest import digests
from lit_t6.sweeps.pack import pack, unpack
from lit_t6.sweeps.presence import Presence
from lit_t6.sweeps.records import write_record
from lit_t6.sweeps.same_data import Prepared, recorded, say_place
from lit_t6.sweeps.same_study import kept_study
from lit_t6.sweeps.screen import Screen
from lit_t6.sweeps.worker import Plan
from lit_t6.training.planning.fit_reader import FitReader

from .ledgers import CELLS, make_ledger, make_study, plain_cells, statuses, wait_until
from .running import ROOT, Sweep, environment, losses, study_file, sweep
from .studies import study

ONE, OTHER = Prepared("1", "here"), Prepared("2", "there")


def begin(study, folder, data=None):
    """As `sweep run` begins."""
    plan = Plan(study, tuple(plain_cells(study)), None, folder, 5.0)
    with commands._beginning(study, folder) as presence:
        ledger = commands._begin(plan, Screen(), presence, False, False, data)
    presence.close()
    return ledger


def placed(folder, path, **settings):
    return make_study(folder, options={"data.path": path}, **settings)


@pytest.fixture
def folder(tmp_path):
    """Of a study that was begun with some data, of which one trial is done."""
    folder = tmp_path / "logs" / "sweeps" / "study"
    ledger = begin(placed(tmp_path, "here"), folder, {"": ONE, "a": ONE})
    claim = ledger.claim()
    ledger.finish(claim, "completed", 1.5, {"step": 3})
    write_record(folder / claim.job.key, ledger.storage.get_trial(claim.trial_id), ledger.study)
    return folder


def test_the_same_data_may_lie_elsewhere(folder, tmp_path):
    moved = placed(tmp_path, "there")
    assert kept_study(moved, folder).options == {"data.path": "here"}
    assert statuses(begin(moved, folder, {"": replace(ONE, path="there")}))["a/seed-0"] == "completed"
    assert load_study([folder / "study.yaml"]).options == {"data.path": "there"}
    assert statuses(open_begun(placed(tmp_path, "nowhere"), folder, None, 5.0))["a/seed-0"] == "completed"


def test_other_data_is_refused_in_words(folder, tmp_path):
    with pytest.raises(ValueError, match="^there: is other data than the study 'study' was begun with: .*--options.d"):
        begin(placed(tmp_path, "there"), folder, {"": OTHER})
    with pytest.raises(ValueError, match="^cell 'a': there: is other data"):
        begin(placed(tmp_path, "here"), folder, {"a": OTHER})
    (folder / "data.json").unlink()  # the storage knows it too
    with pytest.raises(ValueError, match="^there: is other data"):
        begin(placed(tmp_path, "here"), folder, {"": OTHER})


def test_of_a_lost_journal_the_folder_knows_the_data(folder, tmp_path):
    (folder / "journal.log").unlink()
    with pytest.raises(ValueError, match="^there: is other data"):
        begin(placed(tmp_path, "there"), folder, {"": OTHER})
    (folder / "journal.log").unlink(missing_ok=True)
    again = begin(placed(tmp_path, "there"), folder, {"": replace(ONE, path="there")})
    assert statuses(again)["a/seed-0"] == "completed"


def test_more_cells_may_have_data_of_their_own(folder, tmp_path):
    more = placed(tmp_path, "here", cells={**CELLS, "d": {"data.path": "there"}})
    begin(more, folder, {"": ONE, "d": OTHER})
    assert recorded(folder) == {"": "1", "a": "1", "d": "2"}


def test_a_study_whose_data_was_not_written_down_goes_on_where_it_lies(tmp_path):
    """As those of earlier versions, whose records and trials bear the place too."""
    folder, options = tmp_path / "study", {"cells": {"a": {"data.path": "here"}}}
    begun = make_study(tmp_path, **options)
    ledger = begin(begun, folder)
    claim = ledger.claim()
    ledger.finish(claim, "completed", 1.5, {"step": 3})
    ledger.storage.set_trial_user_attr(ledger.claim().trial_id, "fingerprint", claim.job.placed)
    write_record(folder / claim.job.key, ledger.storage.get_trial(claim.trial_id), begun)
    begin(begun, folder, {"a": ONE})
    assert recorded(folder) == {}
    moved = make_study(tmp_path, cells={"a": {"data.path": "there"}})
    with pytest.raises(
        ValueError,
        match=r"cell 'a': options.data.path was \"here\", is \"there\".* has to lie where it lay; a link will do.",
    ):
        begin(moved, folder, {"a": ONE})
    shutil.rmtree(folder / "configs")
    (folder / "study.yaml").unlink()
    with pytest.raises(ValueError, match="has trained a with other settings"):
        begin(moved, folder, {"a": ONE})


def test_records_of_earlier_versions_bear_the_place(tmp_path):
    begun, folder = placed(tmp_path, "here"), tmp_path / "study"
    ledger = begin(begun, folder)
    claim = ledger.claim()
    ledger.finish(claim, "completed", 1.5, {"step": 3})
    write_record(folder / claim.job.key, ledger.storage.get_trial(claim.trial_id), begun)
    path = folder / claim.job.key / "trial.json"
    path.write_text(path.read_text().replace(*digests(begun)))
    (folder / "journal.log").unlink()
    assert statuses(begin(begun, folder, {"": ONE}))[claim.job.key] == "completed"


def test_an_archive_knows_the_data(folder, tmp_path):
    pack(make_ledger(placed(tmp_path, "here"), folder), folder, tmp_path / "study.tar.gz")
    file = unpack(tmp_path / "study.tar.gz", tmp_path / "there")
    assert recorded(file.parent) == {"": "1", "a": "1"}
    with pytest.raises(ValueError, match="^there: is other data"):
        begin(placed(tmp_path, "there"), file.parent, {"": OTHER})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "/study.tar.gz: no prepared data"),
        (["--seeds", "a,b"], "expected whole numbers"),
        (["--options.trainer.max_steps", "9"], "/study.tar.gz: the study in it is another one: options.trainer.max_st"),
    ],
)
def test_an_archive_with_which_it_does_not_begin_leaves_nothing(folder, tmp_path, monkeypatch, capsys, words, message):
    def check(study):
        raise ValueError(f"{study.files[-1]}: no prepared data")

    archive = tmp_path / "study.tar.gz"
    pack(make_ledger(placed(tmp_path, "here"), folder), folder, archive)
    monkeypatch.setattr(commands, "_checked", check)
    assert main(["sweep", "run", "--from", str(archive), "--logs", str(tmp_path / "not" / "there"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "not").exists()


def test_what_was_unpacked_stays_where_somebody_goes_on_with_it(folder, tmp_path, monkeypatch):
    others = []

    def check(study):
        others.append(Presence(tmp_path / "there/sweeps/study/workers"))
        raise ValueError("no prepared data")

    pack(make_ledger(placed(tmp_path, "here"), folder), folder, tmp_path / "study.tar.gz")
    monkeypatch.setattr(commands, "_checked", check)
    assert main(["sweep", "run", "--from", str(tmp_path / "study.tar.gz"), "--logs", str(tmp_path / "there")]) == 1
    assert (tmp_path / "there/sweeps/study/study.yaml").exists()
    others[0].close()


def test_the_data_of_all_cells_and_of_those_with_their_own(tmp_path, prepared):
    text = "cells: {a: {}, b: {data.path: %s}}\n"
    typed = {f"options.{key}": value for key, value in (("data.path", str(prepared)), ("data.seq_len", 32))}
    reader, data = FitReader(), Prepared(read_manifest(prepared).fingerprint, str(prepared))
    read = study(tmp_path, text % prepared, typed)
    assert check_data(read, check_study(read, reader)) == dict.fromkeys(("", "a", "b"), data)
    read = study(tmp_path, text % "nowhere", typed)
    with pytest.raises(ValueError, match="cell 'b': nowhere: .*, or set the cell's data.path"):
        check_data(read, check_study(read, reader))
    read = study(tmp_path, text % prepared, {**typed, "options.data.path": "nowhere"})
    with pytest.raises(ValueError, match="cell 'a': nowhere: .*, or set --options.data.path"):
        check_data(read, check_study(read, reader))


def test_the_data_of_a_search(tmp_path, prepared):
    """It is one, or a setting that is searched for."""
    typed = {f"options.{key}": value for key, value in (("data.path", str(prepared)), ("data.seq_len", 32))}
    text = "search: {model.attention.rank_q: {type: int, low: 1, high: 2}%s}\n"
    read, reader = study(tmp_path, text % "", typed), FitReader()
    assert check_data(read, check_study(read, reader)) == {
        "": Prepared(read_manifest(prepared).fingerprint, str(prepared))
    }
    read = study(tmp_path, text % f", data.path: {{type: categorical, choices: [{prepared}]}}", typed)
    assert check_data(read, check_study(read, reader)) == {}


def test_a_fingerprint_of_data_is_of_what_it_is(prepared):
    manifest = read_manifest(prepared)
    assert replace(manifest, settings={"texts": ["elsewhere"]}).fingerprint == manifest.fingerprint
    assert replace(manifest, end_of_text=7).fingerprint != manifest.fingerprint


def test_a_folder_says_where_the_data_lies_now(tmp_path):
    say_place(tmp_path, "there")
    assert not any(tmp_path.iterdir())
    (tmp_path / "config.yaml").write_text("data: {path: here, seed: 3}\nmodel: {optimizer: {min_lr: 1e-05}}\n")
    say_place(tmp_path, "there")
    said = (tmp_path / "config.yaml").read_text()
    assert said == "data:\n  path: there\n  seed: 3\nmodel:\n  optimizer:\n    min_lr: 1e-05\n"
    say_place(tmp_path, "there")
    assert (tmp_path / "config.yaml").read_text() == said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_that_was_interrupted_goes_on_where_the_data_lies_elsewhere(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "first")
    options = {"trainer.max_steps": 400, "trainer.val_check_interval": 200, "resume.every_n_steps": 0}
    path = study_file(tmp_path, tmp_path / "first", "long", options, cells={"a": {}})
    folder = tmp_path / "sweeps" / "long" / "a" / "seed-0"
    with Sweep([path, "--logs", tmp_path], tmp_path) as running:
        wait_until(lambda: list(folder.glob("events*")) or running.process.poll() is not None, 60)
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        assert running.status(60) == 75, running.said()
    (tmp_path / "first").rename(tmp_path / "second")
    words = [tmp_path / "sweeps" / "long", "--options.data.path", tmp_path / "second"]
    status, said = sweep(words, tmp_path)
    assert status == 0, said
    assert "Going on with" in (folder / "output.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_archive_goes_on_where_the_data_lies_elsewhere(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "first")
    path = study_file(tmp_path, tmp_path / "first", cells={"a": {}})
    status, said = sweep([path, "--logs", tmp_path / "here"], tmp_path)
    assert status == 0, said
    archive, there = tmp_path / "study.tar.gz", tmp_path / "there"
    words = [sys.executable, "cli.py", "sweep", "pack", path, "--logs", tmp_path / "here", "--output", archive]
    subprocess.run(words, cwd=ROOT, env=environment(), check=True, capture_output=True)
    (tmp_path / "first").rename(tmp_path / "second")
    run = ["--from", archive, "--logs", there, "--seeds", "0,1"]
    status, said = sweep(run, tmp_path)
    assert status == 1, said
    assert f"error: {archive}: cell 'a': {tmp_path}/first: no prepared data here" in said
    assert "or set --options.data.path" in said
    assert not there.exists()
    status, said = sweep([*run, "--options.data.path", tmp_path / "second"], tmp_path)
    assert status == 0, said
    assert losses(tmp_path / "here").items() <= losses(there).items()
    assert "a/seed-1: begins" in said
