import multiprocessing
import os
import time

import pytest
from optuna.trial import TrialState

from lit_t6.sweeps import ledger as ledger_module
from lit_t6.sweeps.jobs import outcome_of
from lit_t6.sweeps.presence import Presence
from lit_t6.sweeps.records import read_record, write_record
from lit_t6.sweeps.same_study import agree, left_out

from .ledgers import attempts_of, ends, make_ledger, make_study, statuses


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


@pytest.fixture
def ledger(study, tmp_path):
    ledger = make_ledger(study, tmp_path)
    ledger.make_due()
    return ledger


def complete(ledger, claim, value=1.0):
    return ledger.finish(claim, "completed", value, {"metrics": {"val/bits_per_byte": value}, "step": 5})


def test_trials_are_made_once(study, ledger, tmp_path):
    assert make_ledger(study, tmp_path).make_due() == 0
    assert [trial.state for trial in ledger.trials()] == 6 * [TrialState.WAITING]


def test_a_trial_is_claimed_and_recorded(ledger):
    claim = ledger.claim()
    assert claim.job.key == "a/seed-0"
    assert statuses(ledger)["a/seed-0"] == "running"
    assert ledger.beat(claim, 3, 10, 1.0)
    assert complete(ledger, claim, 1.5)
    stands = ledger.standings()["a/seed-0"]
    assert (stands.status, stands.trial.value) == ("completed", 1.5)
    assert stands.trial.user_attrs["worker"]["id"] == ledger.me["id"]
    assert complete(ledger, claim, 1.5), "saying it twice is no contradiction"


def claim_all(study, folder, gate, found):
    ledger = make_ledger(study, folder)
    gate.wait()
    while (claim := ledger.claim()) is not None:
        found.put(claim.job.key)
        complete(ledger, claim)


def test_no_two_processes_claim_the_same_trial(tmp_path):
    study = make_study(tmp_path, seeds=list(range(12)))
    make_ledger(study, tmp_path).make_due()
    context = multiprocessing.get_context("fork")
    found, gate = context.Queue(), context.Barrier(4)
    processes = [context.Process(target=claim_all, args=(study, tmp_path, gate, found)) for _ in range(4)]
    for process in processes:
        process.start()
    claimed = [found.get(timeout=60) for _ in range(36)]
    for process in processes:
        process.join(20)
    assert found.empty()
    assert len(set(claimed)) == 36
    assert len(make_ledger(study, tmp_path).trials()) == 36


def test_what_two_coordinators_make_at_once_runs_once(study, tmp_path):
    """Each sees an empty storage, and makes all trials."""
    first, second = make_ledger(study, tmp_path), make_ledger(study, tmp_path)
    seen = second.standings()
    first.make_due()
    second.standings = lambda: seen
    second.make_due()
    del second.standings
    assert len(first.trials()) == 12
    claims = []
    while (claim := (first, second)[len(claims) % 2].claim()) is not None:
        claims.append(claim.job.key)
    assert sorted(claims) == sorted(first.jobs)
    assert set(statuses(first).values()) == {"running"}


def test_a_failure_is_tried_again_as_the_study_says(ledger):
    claim = ledger.claim()
    assert ledger.finish(claim, "failed", None, {"reason": "no luck", "seconds": 7.0})
    assert ledger.make_due() == 1
    for _ in range(5):
        complete(ledger, ledger.claim())
    again = ledger.claim()
    assert again.job.key == claim.job.key
    assert (again.earlier.attempts, again.earlier.seconds) == (1, 7.0)
    ledger.finish(again, "failed", None, {"reason": "no luck"})
    assert ledger.make_due() == 0
    assert statuses(ledger)[claim.job.key] == "failed"
    assert ledger.make_due(lambda stands: True) == 1, "asked for anew"
    assert ledger.claim().job.key == claim.job.key


def test_what_has_begun_is_claimed_first(study, ledger, tmp_path):
    """Half-trained trials do not pile up; the others come in their order, those without a step among them."""
    stopped, unlucky, killed = ledger.claim(), ledger.claim(), make_ledger(study, tmp_path).claim()
    ledger.finish(unlucky, "failed", None, {"reason": "no luck"})
    ledger.beat(killed, 7, 10, 1.0)
    ledger.lose(ledger.storage.get_trial(killed.trial_id))
    ledger.make_due()
    ledger.finish(stopped, "interrupted", None, {"step": 3})
    ledger.make_due()
    order = [make_ledger(study, tmp_path).claim().job.key for _ in range(6)]
    assert order == ["c/seed-0", "a/seed-0", "a/seed-1", "b/seed-1", "c/seed-1", "b/seed-0"]


def test_a_worker_that_died_is_noticed_at_once(study, ledger, tmp_path):
    other = make_ledger(study, tmp_path)
    claim = other.claim()
    assert ledger.reap() == []
    os.close(other.presence.descriptor)  # as the kernel does when the process dies
    assert ledger.reap() == [claim.job.key]
    trials = attempts_of(ledger, claim.job.key)
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.WAITING]
    assert trials[0].user_attrs["outcome"] == "lost"
    assert "was killed" in trials[0].user_attrs["reason"]
    assert ledger.reap() == []


def test_a_late_result_is_not_counted(study, ledger, tmp_path, monkeypatch):
    """A worker is stopped past the heartbeat, replaced, and goes on."""
    late = make_ledger(study, tmp_path)
    claim, now = late.claim(), time.monotonic()
    ledger.reap()
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now + 1000)
    assert ledger.reap() == [claim.job.key]
    assert late.beat(claim, 5, 10, 2.0) is False
    assert complete(late, claim, 0.5) is False
    again = [ledger.claim() for _ in range(6)][-1]
    assert again.job.key == claim.job.key
    assert complete(ledger, again, 1.5)
    assert complete(late, claim, 0.5) is False
    assert ledger.standings()[claim.job.key].trial.value == 1.5
    assert sum(trial.state == TrialState.COMPLETE for trial in ledger.trials()) == 1


def test_a_worker_that_gives_signs_is_left_alone(study, ledger, tmp_path, monkeypatch):
    other, now = make_ledger(study, tmp_path), time.monotonic()
    claim = other.claim()
    for minute in range(5):
        monkeypatch.setattr(ledger_module.time, "monotonic", lambda at=now + 50 * minute: at)
        assert ledger.reap() == []
        assert other.beat(claim, minute, 10, 1.0)


def test_after_the_storage_was_out_of_reach_workers_have_a_whole_grace(study, ledger, tmp_path, monkeypatch):
    claim, now = make_ledger(study, tmp_path).claim(), time.monotonic()
    ledger.reap()
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now + 100)
    assert ledger.reap(failed_at=now + 95) == []
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now + 156)
    assert ledger.reap(failed_at=now + 95) == [claim.job.key]


def test_a_trial_that_a_killed_process_did_not_make_is_made(ledger, monkeypatch):
    claim = ledger.claim()
    ledger.finish(claim, "failed", None, {"reason": "no luck"})  # and is killed before it makes another
    assert statuses(ledger)[claim.job.key] == "due"
    ledger.reap()
    assert statuses(ledger)[claim.job.key] == "waiting"


def test_a_lost_storage_is_made_again_from_the_records(study, ledger, tmp_path):
    claim = ledger.claim()
    complete(ledger, claim, 1.25)
    folder = tmp_path / claim.job.key
    write_record(folder, ledger.storage.get_trial(claim.trial_id), study)
    assert read_record(folder)["value"] == 1.25
    (tmp_path / "journal.log").unlink()
    again = make_ledger(study, tmp_path)
    assert again.make_due() == 5
    assert again.standings()[claim.job.key].trial.value == 1.25
    assert again.claim().job.key == "b/seed-0"


def rebuilt_by_two(study, ledger, folder):
    """Two ledgers on a new storage, both of which saw it empty; a/seed-0 is in the records."""
    claim = ledger.claim()
    complete(ledger, claim, 1.25)
    write_record(folder / claim.job.key, ledger.storage.get_trial(claim.trial_id), study)
    (folder / "journal.log").unlink()
    both = make_ledger(study, folder), make_ledger(study, folder)
    seen = both[0].standings()
    for each in both:
        each.standings = lambda: seen
    return claim.job.key, *both


def test_what_two_machines_take_over_at_once_is_there_once(study, ledger, tmp_path):
    key, first, second = rebuilt_by_two(study, ledger, tmp_path)
    first.make_due()
    second.make_due()
    assert ends(first, key) == ["completed", "void"]
    (taken, _) = attempts_of(first, key)
    assert (taken.value, taken.user_attrs["metrics"]) == (1.25, {"val/bits_per_byte": 1.25})
    assert taken.user_attrs["worker"]["id"] == ledger.me["id"], "who trained it"


def test_what_one_machine_was_about_to_take_over_another_one_does(study, ledger, tmp_path, monkeypatch):
    """And no worker trains it meanwhile."""
    key, first, second = rebuilt_by_two(study, ledger, tmp_path)
    monkeypatch.setattr(first, "_take_over", lambda trial: None)  # it is killed here
    first.make_due()
    del second.standings
    claimed = []
    while (claim := second.claim()) is not None:
        claimed.append(claim.job.key)
    assert sorted(claimed) == sorted(set(first.jobs) - {key})
    assert [(outcome_of(trial), trial.value) for trial in attempts_of(second, key)] == [("completed", 1.25)]


def test_what_a_machine_had_half_taken_over_is_taken_over_again(study, ledger, tmp_path, monkeypatch):
    key, first, second = rebuilt_by_two(study, ledger, tmp_path)
    monkeypatch.setattr(first, "_end", lambda *arguments: True)  # it is killed here
    first.make_due()
    assert outcome_of(attempts_of(first, key)[0]) == "running"
    os.close(first.presence.descriptor)
    del second.standings
    assert second.reap() == [key]
    assert ends(second, key) == ["lost", "completed"]


def test_records_of_another_study_are_not_taken(study, ledger, tmp_path):
    claim = ledger.claim()
    complete(ledger, claim)
    write_record(tmp_path / claim.job.key, ledger.storage.get_trial(claim.trial_id), study)
    (tmp_path / "journal.log").unlink()
    other = make_study(tmp_path, options={"trainer.max_steps": 3})
    assert make_ledger(other, tmp_path).make_due() == 6
    (tmp_path / "journal.log").unlink()
    other = make_study(tmp_path, cells={"a": {"x.y": 9}, "b": {"x.y": 2}})
    assert make_ledger(other, tmp_path).make_due() == 4


def test_another_study_of_the_same_name_is_refused(study, ledger, tmp_path):
    agree(ledger)
    agree(make_ledger(make_study(tmp_path, seeds=[0, 1, 2]), tmp_path))
    with pytest.raises(ValueError, match="another study called 'study': options.trainer.max_steps was null, is 3\\."):
        agree(make_ledger(make_study(tmp_path, options={"trainer.max_steps": 3}), tmp_path))
    with pytest.raises(ValueError, match="has trained a with other settings"):
        agree(make_ledger(make_study(tmp_path, cells={"a": {"x.y": 9}}), tmp_path))


def test_a_larger_study_beside_this_one_keeps_its_trials(study, tmp_path):
    larger = make_ledger(make_study(tmp_path, seeds=[0, 1, 2]), tmp_path)
    larger.make_due()
    smaller = make_ledger(study, tmp_path)
    for _ in range(6):
        complete(smaller, smaller.claim())
    assert smaller.claim() is None
    assert larger.claim().job.seed == 2


def test_a_presence_tells_who_lives(tmp_path):
    presence = Presence(tmp_path)
    assert ledger_module.is_dead(presence.identity) is False
    assert ledger_module.is_dead({**presence.identity, "boot": "another machine"}) is False
    assert ledger_module.is_dead({**presence.identity, "lock": str(tmp_path / "not to be seen")}) is False
    assert ledger_module.is_dead(None) is False
    os.close(presence.descriptor)
    assert ledger_module.is_dead(presence.identity) is True


def test_trials_that_are_left_out_are_told(tmp_path):
    begun, fewer = make_study(tmp_path), make_study(tmp_path, seeds=[0])
    assert "a/seed-1, b/seed-1, c/seed-1. What is there" in left_out(begun, fewer)
    assert "a/seed-0, a/seed-1, b/seed-1 and 1 more." in left_out(
        begun, make_study(tmp_path, cells={"b": {}, "c": {}}, seeds=[0])
    )
    assert not left_out(fewer, begun)
