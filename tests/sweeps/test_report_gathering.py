"""What a report says of trials that are there and not asked for."""

import json

import pytest

from lit_t6.sweeps.report.command import sweep_report
from lit_t6.sweeps.report.gathering import gather

from .ledgers import make_study
from .reported import CELLS, VALUES, begun, published

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
