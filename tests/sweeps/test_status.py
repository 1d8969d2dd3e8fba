import json
import os

import pytest

from lit_t6.sweeps.records import record_of
from lit_t6.sweeps.status import Events, duration, of_the_living, overview, summary, table

from .ledgers import make_ledger, make_study


@pytest.fixture
def ledger(tmp_path):
    ledger = make_ledger(make_study(tmp_path), tmp_path)
    ledger.make_due()
    return ledger


def look(ledger):
    return overview(ledger.study, ledger.jobs, ledger.standings())


def end(ledger, outcome="completed", value=None, **said):
    claim = ledger.claim()
    ledger.finish(claim, outcome, value, {"seconds": 60.0, "step": 10, **said})
    return claim


def test_a_study_in_two_lines(ledger):
    assert summary(look(ledger)) == ["study: 6 trials: 0 done, 0 running, 0 pruned, 0 failed, 6 waiting"]
    end(ledger, value=2.0)
    end(ledger, value=1.5)
    end(ledger, "diverged", reason="NaN")
    end(ledger, value=1.0)
    ledger.beat(ledger.claim(), 5, 10, 30.0)
    assert summary(look(ledger)) == [
        "study: 6 trials: 3 done, 1 running, 0 pruned, 1 failed, 1 waiting; about 1.5 min left",
        "best so far: a, val/bits_per_byte 1.5000, mean of 2 seeds",
    ]


def test_the_time_left_is_told_once_there_is_a_basis_for_it(ledger):
    """At the beginning of a training, compiling and the like are most of its time."""

    def left():
        return summary(look(ledger))[0].partition("waiting")[2]

    assert left() == ""
    first = ledger.claim()
    assert left() == "; time left: estimating"
    ledger.beat(first, 1, 100, 60.0)
    assert left() == "; time left: estimating", "an hour and a half, by this step"
    ledger.beat(first, 25, 100, 75.0)
    assert left() == "; time left: estimating", "one of many that differ"
    second = ledger.claim()
    ledger.beat(second, 50, 100, 150.0)
    assert left() == "; about 13.1 min left"  # 4 × 300 s wait, 225 s and 150 s of those at work, two at a time
    ledger.finish(first, "completed", 1.0, {"seconds": 240.0, "step": 100})
    assert look(ledger).seconds_left() == pytest.approx(4 * 240 + 150)


def test_a_trial_that_is_resumed_takes_as_long_as_its_steps_before(tmp_path):
    ledger = make_ledger(make_study(tmp_path, cells={"a": {}}, seeds=[0]), tmp_path)
    ledger.make_due()
    ledger.finish(ledger.claim(), "interrupted", None, {"seconds": 490.0, "step": 49})
    ledger.make_due()
    ledger.beat(ledger.claim(), 50, 100, 10.0)
    assert look(ledger).seconds_left() == 500.0


def test_the_only_trial_is_basis_enough(tmp_path):
    ledger = make_ledger(make_study(tmp_path, cells={"a": {}}, seeds=[0]), tmp_path)
    ledger.make_due()
    claim = ledger.claim()
    ledger.beat(claim, 24, 100, 60.0)
    assert look(ledger).seconds_left() is None
    ledger.beat(claim, 25, 100, 60.0)
    assert look(ledger).seconds_left() == 180.0


@pytest.mark.parametrize("outcomes", [("diverged", "pruned"), ("pruned", "pruned"), ("failed", "diverged")])
def test_the_last_trial_of_a_study_whose_others_came_to_nothing_tells_its_time(tmp_path, outcomes):
    ledger = make_ledger(make_study(tmp_path, seeds=[0], retries=0), tmp_path)
    ledger.make_due()
    first, second = ledger.claim(), ledger.claim()
    ledger.finish(first, outcomes[0], None if outcomes[0] != "pruned" else 2.0, {"seconds": 40.0, "step": 10})
    assert look(ledger).seconds_left() is None, "one may be unlike the others"
    ledger.finish(second, outcomes[1], None if outcomes[1] != "pruned" else 2.0, {"seconds": 60.0, "step": 10})
    last = ledger.claim()
    ledger.beat(last, 1, 100, 20.0)
    assert look(ledger).seconds_left() == 30.0, "as long as the others at least"
    ledger.beat(last, 1, 100, 55.0)
    assert summary(look(ledger))[0].endswith("; time left: estimating"), "it is longer under way than they were"
    ledger.beat(last, 50, 100, 80.0)
    assert look(ledger).seconds_left() == 80.0


def test_trials_that_failed_at_once_do_not_tell_how_long_the_others_take(ledger):
    for _ in range(2):
        end(ledger, "out_of_memory", seconds=3.0)
    first = ledger.claim()
    ledger.beat(first, 24, 100, 24.0)
    assert look(ledger).seconds_left() is None
    ledger.beat(first, 25, 100, 25.0)
    assert look(ledger).seconds_left() == 75.0 + 300.0


def test_the_best_may_be_the_most(tmp_path):
    study = make_study(tmp_path, objective={"metric": "val/x", "direction": "maximize"}, seeds=[0])
    ledger = make_ledger(study, tmp_path)
    ledger.make_due()
    end(ledger, value=2.0)
    end(ledger, value=1.5)
    assert look(ledger).best() == ("a", 2.0, 1)


def test_the_table_says_what_became_of_each(ledger):
    end(ledger, value=2.0)
    end(ledger, "failed", reason="no luck", step=0)
    ledger.make_due()
    end(ledger, "out_of_memory", reason="data.batch_size=9 does not fit")
    end(ledger, "pruned", 3.0, reason="pruned at step 10")
    ledger.beat(ledger.claim(), 5, 10, 30.0)
    heads, *lines = table(look(ledger))
    assert heads.split() == ["cell", "seed", "status", "val/bits_per_byte", "step", "attempts", "time"]
    assert [line.split()[:3] for line in lines] == [
        ["a", "0", "completed"],
        ["b", "0", "waiting"],
        ["c", "0", "out_of_memory"],
        ["a", "1", "pruned"],
        ["b", "1", "running"],
        ["c", "1", "waiting"],
    ]
    assert "data.batch_size=9 does not fit" in lines[2]
    assert ledger.me["host"] in lines[4]
    assert len(table(look(ledger), 3)) == 4
    assert "running" in " ".join(table(look(ledger), 1))


def shown(ledger, key):
    return next(row for row in look(ledger).to_dict()["trials"] if row["trial"] == key)


def test_what_was_begun_and_waits_says_where_it_goes_on(ledger):
    end(ledger, "interrupted", step=12)
    ledger.make_due()
    row = shown(ledger, "a/seed-0")
    assert (row["status"], row["step"], row["attempts"]) == ("waiting", 12, 1)
    assert row["reason"] == "interrupted; it goes on from its last save"
    assert table(look(ledger))[1].split()[2:5] == ["waiting", "12", "1"]
    assert ledger.claim().job.key == "a/seed-0"
    end(ledger, "failed", reason="no luck", step=0)
    ledger.make_due()
    row = shown(ledger, "b/seed-0")
    assert (row["step"], row["reason"]) == (None, "failed; it is tried again")
    row = shown(ledger, "c/seed-0")
    assert (row["step"], row["attempts"], row["reason"]) == (None, 0, "")


def test_what_a_dead_worker_had_begun_goes_on(ledger):
    ledger.beat(ledger.claim(), 7, 10, 30.0)
    os.close(ledger.presence.descriptor)
    stands = overview(ledger.study, ledger.jobs, of_the_living(ledger.standings()))
    row = stands.to_dict()["trials"][0]
    assert (row["status"], row["step"], row["attempts"]) == ("waiting", 7, 1)
    assert row["reason"] == "its worker is gone; it goes on from its last save"


def test_attempts_are_those_of_the_record(ledger):
    """Also of a trial that was asked for anew, and of one whose earlier attempts are in a storage that is lost."""
    end(ledger, "interrupted")
    ledger.make_due()
    end(ledger, "out_of_memory")
    ledger.make_due(lambda stands: True)
    assert shown(ledger, "a/seed-0")["attempts"] == 2
    end(ledger, value=2.0)
    stands = ledger.standings()["a/seed-0"]
    assert shown(ledger, "a/seed-0")["attempts"] == record_of(stands.trial, ledger.study)["attempts"] == 3
    claim = ledger.claim()
    ledger.note(claim, attempts=4)
    assert shown(ledger, claim.job.key)["attempts"] == 4


def test_what_a_completed_trial_lacks_is_told(ledger):
    events = Events()
    events.since(look(ledger))
    end(ledger, value=2.0, reason="", remark="checkpoints not saved: last.ckpt")
    assert table(look(ledger))[1].endswith("  checkpoints not saved: last.ckpt")
    assert look(ledger).to_dict()["trials"][0]["remark"] == "checkpoints not saved: last.ckpt"
    assert events.since(look(ledger))[0].endswith("2.0000, after 1.0 min; checkpoints not saved: last.ckpt")
    assert summary(look(ledger))[1].startswith("best so far: a")


def test_programs_can_read_it(ledger):
    end(ledger, value=2.0)
    plain = json.loads(json.dumps(look(ledger).to_dict()))
    assert plain["done"] == 1
    assert plain["best"] == {"cell": "a", "value": 2.0, "trials": 1}
    assert plain["trials"][0]["step"] == 10


def test_events_tell_what_began_and_ended(ledger):
    events = Events()
    assert events.since(look(ledger)) == []
    claim = ledger.claim()
    (line,) = events.since(look(ledger))
    assert line.endswith("a/seed-0: begins")
    assert events.since(look(ledger)) == []
    ledger.finish(claim, "failed", None, {"reason": "no luck.", "seconds": 3.0})
    ledger.make_due()
    (line,) = events.since(look(ledger))
    assert line.endswith("a/seed-0: failed: no luck; it is tried again")
    end(ledger, value=1.25)
    (line,) = events.since(look(ledger))
    assert line.endswith("b/seed-0: val/bits_per_byte 1.2500, after 1.0 min")


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.6, "5 s"), (90, "1.5 min"), (7500, "2 h 5 min"), (259200, "3.0 days")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
