"""What a report counts: trials that are there and not asked for, and the time of all attempts."""

import csv
import io
import json

import pytest

from lit_t6.sweeps.records import write_record
from lit_t6.sweeps.report.command import sweep_report
from lit_t6.sweeps.report.gathering import gather
from lit_t6.sweeps.report.method import how
from lit_t6.sweeps.report.tables import trials_csv
from lit_t6.sweeps.same_study import agree
from lit_t6.sweeps.saved_study import save_study
from lit_t6.sweeps.status import overview

from .ledgers import JOB, ONE, make_ledger, make_study
from .reported import CELLS, VALUES, begun, found, published

SETTINGS = {"name": "made_up", "baseline": "base", "record": ["val/loss"], "retries": 0}


@pytest.mark.parametrize("journal", [True, False])
def test_seeds_that_are_left_out_are_named_first(tmp_path, capsys, journal):
    _, _, folder = begun(tmp_path)
    if not journal:
        (folder / "journal.log").unlink()
    sweep_report([str(folder)], {"seeds": [0]}, output=str(tmp_path / "report"))
    said = "**Left out** of this report, though it was trained: seeds 1, 2, 3 (15 trials: 11 completed, 1 "
    assert said in capsys.readouterr().out
    head = "\n".join((tmp_path / "report/report.md").read_text().splitlines()[:8])
    assert said in head
    assert all(f"1 {outcome}" in head for outcome in ("pruned", "diverged", "failed", "out of memory"))


def test_cells_that_are_left_out_are_named(tmp_path):
    _, _, folder = begun(tmp_path)
    less = {name: CELLS[name] for name in CELLS if name not in ("wide", "bad")}
    study = make_study(tmp_path, cells=less, seeds=[0, 1, 2], **SETTINGS)
    assert gather(study, folder, None).left_out == (
        "seed 3 (5 trials: 4 completed, 1 out of memory); "
        "cells wide, bad (6 trials: 2 completed, 2 diverged, 1 pruned, 1 failed)"
    )


def test_nothing_is_said_where_nothing_is_left_out(tmp_path):
    study, _, folder = begun(tmp_path)
    assert gather(study, folder, None).left_out == ""


@pytest.mark.parametrize("journal", [True, False])
def test_a_seed_that_was_never_trained_is_refused_before_anything_is_written(tmp_path, journal):
    _, _, of, output = published(tmp_path)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    if not journal:
        (of / "journal.log").unlink()
    for seeds in ([7], [0, 7]):
        with pytest.raises(ValueError, match="trained with seed 7; there are trials with seeds 0, 1, 2, 3"):
            sweep_report([str(of)], {"seeds": seeds}, output=str(output))
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_seed_of_the_file_that_is_still_to_be_trained_is_unfinished(tmp_path):
    _, _, folder = begun(tmp_path)
    study = make_study(tmp_path, cells=CELLS, seeds=[0, 1, 2, 3, 4], **SETTINGS)
    assert len(gather(study, folder, None).records) == 20
    with pytest.raises(ValueError, match="trained with seed 5; there"):
        gather(make_study(tmp_path, cells=CELLS, seeds=[5], **SETTINGS), folder, None)


def test_a_report_with_results_is_not_replaced_by_one_without(tmp_path):
    *_, output = published(tmp_path)
    study = json.loads((tmp_path / "made_up.yaml").read_text())
    (tmp_path / "made_up.yaml").write_text(json.dumps(study | {"cells": {"bad": CELLS["bad"]}, "baseline": None}))
    before = (output / "report.md").read_text()
    with pytest.raises(ValueError, match=r"not replaced: it has 15 trials that completed.* --output"):
        sweep_report([str(tmp_path / "made_up.yaml")], output=str(output), logs=str(tmp_path / "logs"))
    assert (output / "report.md").read_text() == before
    assert (output / "cells.png").exists()
    other = tmp_path / "other"
    sweep_report([str(tmp_path / "made_up.yaml")], output=str(other), logs=str(tmp_path / "logs"))
    assert "cells base, low, high, wide (16 trials: 15 completed, 1 pruned)" in (other / "report.md").read_text()


def test_a_study_under_way_may_be_asked_for_seeds_that_wait(tmp_path):
    values = {name: [1.0, None, None, None] for name in VALUES}
    study, _, folder = begun(tmp_path, values)
    assert len(gather(study, folder, None).records) == 5
    (folder / "journal.log").unlink()
    assert len(gather(study, folder, None).records) == 5


def with_attempts(tmp_path):
    """A study whose first trial was interrupted and killed before it completed; the second one waits after a kill."""
    study = make_study(tmp_path, cells=ONE["cells"] | {"b": {"x.y": 2}}, seeds=[0], retries={"failed": 1, "lost": 3})
    folder = tmp_path / "logs/sweeps/study"
    ledger = make_ledger(study, folder)
    ledger.make_due()
    agree(ledger)
    save_study(study, folder)
    first, second = ledger.claim(), ledger.claim()
    ledger.finish(first, "interrupted", None, {"seconds": 60.0, "step": 5})
    ledger.make_due()
    first = ledger.claim()
    ledger.beat(first, 8, 30, 30.0)
    ledger.lose(ledger.storage.get_trial(first.trial_id))
    ledger.beat(second, 9, 30, 18.0)
    ledger.lose(ledger.storage.get_trial(second.trial_id))
    ledger.make_due()
    first = next(claim for claim in (ledger.claim(), ledger.claim()) if claim.job.key == JOB)
    ledger.finish(first, "completed", 1.0, {"seconds": 12.0, "step": 30, "attempts": 3})
    write_record(folder / JOB, ledger.storage.get_trial(first.trial_id), study)
    return study, ledger, folder


def test_the_time_is_that_of_all_attempts(tmp_path):
    study, ledger, folder = with_attempts(tmp_path)
    of = found(study, folder)
    assert [row["seconds"] for row in csv.DictReader(io.StringIO(trials_csv(of)))] == ["102.0", "18.0"]
    told = overview(study, ledger.jobs, ledger.standings()).to_dict()
    assert [trial.seconds for trial in of.trials] == [row["seconds"] for row in told["trials"]]
    assert (
        "* time: all trials together 2.0 minutes, all attempts counted: 1.8 of them in such as failed, were killed or "
        "interrupted" in how(of, [], "", "")
    )


def test_without_a_storage_it_is_said_that_earlier_attempts_are_not_counted(tmp_path):
    study, _, folder = with_attempts(tmp_path)
    (folder / "journal.log").unlink()
    (said,) = (line for line in how(found(study, folder), [], "", "") if line.startswith("* time"))
    assert said.startswith("* time: all trials together 0.2 minutes, the last attempt of each alone")
