from dataclasses import replace

import pytest

from lit_t6.sweeps import commands, load_study
from lit_t6.sweeps.pack import unpack
from lit_t6.sweeps.report import sweep_report
from lit_t6.sweeps.same_study import as_begun, kept_study, told_of, with_seeds_of
from lit_t6.sweeps.saved_study import save_study
from lit_t6.sweeps.screen import Screen
from lit_t6.sweeps.worker import Plan

from .ledgers import make_ledger, make_study, plain_cells, write_study
from .studies import study


def begin(study, folder):
    """As `sweep run` begins; the plan of its workers, and the keys of their jobs."""
    plan = Plan(study, tuple(plain_cells(study)), None, folder, 5.0)
    with commands._beginning(study, folder) as presence:
        ledger = commands._begin(plan, Screen(), presence, False, False)
    presence.close()
    return commands._of_kept_files(plan), {*ledger.jobs}


@pytest.mark.parametrize("asked", [[0], [1], [2, 0]])
def test_seeds_of_a_study_that_was_begun_stay_and_those_asked_for_are_run(tmp_path, asked):
    begun = make_study(tmp_path, seeds=[0, 1])
    folder = tmp_path / "logs" / "sweeps" / "study"
    begin(begun, folder)
    plan, jobs = begin(replace(begun, seeds=tuple(asked)), folder)
    assert load_study([folder / "study.yaml"]).seeds == ((0, 1, 2) if 2 in asked else (0, 1))
    assert plan.study.seeds == tuple(asked)
    assert jobs == {f"{cell}/seed-{seed}" for cell in "abc" for seed in asked}


def test_what_is_kept_and_not_run_now_is_told(tmp_path):
    begun = make_study(tmp_path, seeds=[0, 1])
    assert [*told_of(begun, replace(begun, seeds=(0,)), tmp_path)] == [
        f"Run now: seed 0. Kept, and not run now: 1; `sweep run {tmp_path}` runs all of them."
    ]
    assert [*told_of(begun, replace(begun, seeds=(0, 1, 2)), tmp_path)] == []
    (fewer,) = told_of(begun, make_study(tmp_path, cells={"a": {"x.y": 1}}), tmp_path)
    assert fewer.startswith("Left out of the study that was begun: b/seed-0, c/seed-0, b/seed-1 and 1 more.")


def test_a_search_has_the_seed_that_it_is_given(tmp_path):
    search = {"rank": {"option": "x.rank", "type": "int", "low": 1, "high": 9}}
    begun = make_study(tmp_path, cells=None, search=search, seeds=[0])
    other = replace(begun, seeds=(1,))
    assert with_seeds_of(begun, other) == other
    assert with_seeds_of(None, other) == other


def test_a_study_that_was_not_begun_is_kept_as_it_is(tmp_path):
    study = make_study(tmp_path)
    assert kept_study(study, tmp_path / "there") is None
    save_study(study, tmp_path / "there")
    assert kept_study(study, tmp_path / "there").seeds == (0, 1)


@pytest.fixture
def of_two_seeds(tmp_path):
    """A study that was begun with two seeds, of each of which a trial has ended; its file says one seed now."""
    begun = make_study(tmp_path, seeds=[0, 1])
    folder = tmp_path / "logs" / "sweeps" / "study"
    begin(begun, folder)
    ledger = make_ledger(begun, folder)
    while claim := ledger.claim():
        if claim.job.cell == "a":
            ledger.finish(claim, "completed", 1.0 + claim.job.seed, {"step": 3})
            (folder / claim.job.key).mkdir(parents=True, exist_ok=True)
            (folder / claim.job.key / "events.out.tfevents.1.host.t6").write_bytes(b"")
    ledger.presence.close()
    return write_study(tmp_path, seeds=[1]), tmp_path / "logs"


def test_a_look_by_file_shows_the_seeds_that_are_kept(of_two_seeds):
    file, logs = of_two_seeds
    by_file = commands.sweep_status([str(file)], logs=str(logs))
    assert by_file.to_dict() == commands.sweep_status([str(logs / "sweeps" / "study")]).to_dict()
    assert by_file.counts["done"] == 2
    typed = commands.sweep_status([str(file)], {"seeds": [1]}, logs=str(logs))
    assert {job.seed for job, _ in typed.rows} == {1}


def test_an_archive_made_by_file_has_the_seeds_that_are_kept(of_two_seeds, tmp_path):
    file, logs = of_two_seeds
    packed = commands.sweep_pack([str(file)], output=str(tmp_path / "x.tar.gz"), logs=str(logs))
    study = load_study([unpack(packed, tmp_path / "there")])
    assert study.seeds == (0, 1)
    for seed in study.seeds:
        trial = tmp_path / "there" / "study" / "a" / f"seed-{seed}"
        assert {path.name for path in trial.iterdir()} == {"trial.json", "events.out.tfevents.1.host.t6"}


def test_a_report_by_file_has_the_seeds_that_are_kept(of_two_seeds, tmp_path):
    file, logs = of_two_seeds
    found = sweep_report([str(file)], output=str(tmp_path / "report"), logs=str(logs))
    assert found.cells[0].by_seed == {0: 1.0, 1: 2.0}
    typed = sweep_report([str(file)], {"seeds": [1]}, output=str(tmp_path / "report"), logs=str(logs))
    assert typed.cells[0].by_seed == {1: 2.0}


def test_a_look_at_another_study_than_was_begun_is_refused(of_two_seeds, tmp_path):
    """Though no trial of the cell that differs has ended."""
    _, logs = of_two_seeds
    other = str(write_study(tmp_path, cells={"a": {"x.y": 1}, "c": {"x.y": 9}}, seeds=[1]))
    for look in (commands.sweep_status, commands.sweep_pack, sweep_report):
        with pytest.raises(ValueError, match="is another one: cell 'c': options.x.y was 3, is 9"):
            look([other], logs=str(logs))


def test_of_cells_that_changed_it_is_said_that_another_name_will_do(tmp_path):
    save_study(make_study(tmp_path, baseline="a"), tmp_path / "there")
    changed = {"a": {"x.y": 1}, "b": {"x.y": 7}}
    with pytest.raises(ValueError, match="options.x.y was 2, is 7. Give what differs another name among the cells, wh"):
        kept_study(make_study(tmp_path, cells=changed), tmp_path / "there")
    with pytest.raises(ValueError, match="Give this one another name, with --name, go on"):
        kept_study(make_study(tmp_path, cells=changed, gpus_per_trial=2), tmp_path / "there")
    matched = {"match": "parameters", "baseline": "b"}
    save_study(make_study(tmp_path, **matched), tmp_path / "matched")
    with pytest.raises(ValueError, match="Give this one another name, with --name, go on"):  # all depend on that cell
        kept_study(make_study(tmp_path, cells=changed, **matched), tmp_path / "matched")


@pytest.mark.parametrize(
    ("text", "typed", "message"),
    [
        ("cells: {a: {}}\n", {"options.trainer.max_step": 5}, "no option --trainer.max_step; did you mean --trainer.m"),
        (
            "cells: {a: {model.attention.rnak_q: 3}}\n",
            {},
            "cell 'a': TPAConfig has no setting 'rnak_q'; did you mean r",
        ),
    ],
)
def test_an_option_that_is_misspelt_is_told_as_in_a_new_study(tmp_path, text, typed, message):
    save_study(study(tmp_path, "cells: {a: {}}\n"), tmp_path / "there")
    with pytest.raises(ValueError, match=message):
        kept_study(study(tmp_path, text, typed), tmp_path / "there")


def test_the_baseline_of_a_report_may_be_another(tmp_path):
    matched = {"match": "parameters", "baseline": "a"}
    begun = make_study(tmp_path, **matched)
    asked = replace(begun, baseline="b")
    there = tmp_path / "there"
    assert as_begun(asked, there) == asked
    save_study(begun, there)
    assert as_begun(asked, there) == begun
    others = (
        replace(asked, match_to=5),
        replace(asked, match="none"),
        make_study(tmp_path, cells={"b": {}}, **matched | {"baseline": "b"}),
    )
    assert [as_begun(other, there) for other in others] == [*others]
