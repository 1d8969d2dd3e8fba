import pytest
from optuna.trial import TrialState, create_trial

from lit_t6.sweeps.jobs import DUE, INTERRUPTED, VOID, is_needless, jobs_of, standing, standing_before
from lit_t6.sweeps.study import RETRIES

from .ledgers import make_study


def trial(number, state, outcome=None, step=0, **said):
    attributes = {"job": "a/seed-0", "step": step, **said} | ({"outcome": outcome} if outcome else {})
    made = create_trial(state=state, value=1.0 if state == TrialState.COMPLETE else None, user_attrs=attributes)
    made.number = number
    return made


def fail(number, outcome, step=0, **said):
    return trial(number, TrialState.FAIL, outcome, step, **said)


def status(*trials, retries=RETRIES):
    return standing(trials, retries).status


WAITING, RUNNING, COMPLETE = trial(8, TrialState.WAITING), trial(8, TrialState.RUNNING), trial(8, TrialState.COMPLETE)


def test_seeds_go_round(tmp_path):
    keys = [job.key for job in jobs_of(make_study(tmp_path))]
    assert keys == ["a/seed-0", "b/seed-0", "c/seed-0", "a/seed-1", "b/seed-1", "c/seed-1"]


def test_a_search_has_numbered_trials(tmp_path):
    search = {"x.y": {"type": "int", "low": 1, "high": 3}}
    jobs = jobs_of(make_study(tmp_path, cells=None, search=search, num_trials=2, seeds=[3]))
    assert [job.key for job in jobs] == ["trial-0000/seed-3", "trial-0001/seed-3"]


def test_where_a_job_stands():
    assert status() == DUE
    assert status(WAITING) == "waiting"
    assert status(RUNNING) == "running"
    assert status(COMPLETE) == "completed"
    assert status(COMPLETE, trial(9, TrialState.RUNNING)) == "completed"
    assert status(fail(1, "failed")) == DUE
    assert status(fail(1, "failed"), fail(2, "failed")) == "failed"
    assert status(fail(1, "failed"), WAITING) == "waiting"


def test_what_would_end_the_same_way_is_not_tried_again():
    for outcome in ("out_of_memory", "diverged", "timed_out"):
        assert status(fail(1, outcome)) == outcome
        assert status(fail(1, outcome), retries={**RETRIES, outcome: 1}) == DUE


def test_what_no_other_attempt_can_change_is_final():
    assert status(fail(1, "failed", final=True)) == "failed"
    assert status(fail(1, "failed", final=True), fail(2, "failed", asked=True)) == DUE


def test_of_the_time_limit_counts_what_was_taken_since_it_was_last_given():
    lost, late = fail(1, "lost", seconds=30.0), fail(2, "timed_out", seconds=25.0)
    waiting, asked = trial(4, TrialState.RUNNING), trial(4, TrialState.RUNNING, asked=True)

    def left(*before, of=waiting):
        return standing_before(of, [*before, of], RETRIES).seconds_of_limit

    assert left(lost) == 30
    assert left(lost, late) == 0, "another attempt has all of it, whatever the end of this one took"
    assert left(lost, late, fail(3, INTERRUPTED, seconds=7.0)) == 7
    assert left(lost, fail(3, INTERRUPTED, seconds=7.0), of=asked) == 0
    assert left(fail(1, "lost", seconds=30.0), fail(2, "lost", seconds=8.0, asked=True)) == 8


def test_reasons_are_counted_each_for_itself():
    assert status(fail(1, "failed"), fail(2, "lost")) == DUE
    assert status(fail(1, "failed"), fail(2, "lost"), fail(3, "failed")) == "failed"


def test_who_stops_a_trial_may_do_so_as_often_as_they_like():
    assert status(*(fail(n, INTERRUPTED) for n in range(20))) == DUE


def test_a_worker_that_is_lost_does_not_count_where_the_trial_came_further():
    assert status(*(fail(n, "lost", step=10 * n) for n in range(1, 20))) == DUE
    assert status(*(fail(n, "lost", step=10) for n in range(1, 5))) == DUE
    assert status(*(fail(n, "lost", step=10) for n in range(1, 6))) == "lost"
    assert status(*(fail(n, "lost") for n in range(4))) == "lost"


def test_a_failure_without_a_word_is_a_lost_worker():
    assert status(fail(1, None), fail(2, "completed"), retries={"lost": 1}) == "lost"


def test_those_that_were_asked_for_anew_count_from_there():
    failed = [fail(1, "failed"), fail(2, "failed")]
    assert status(*failed, fail(3, "failed", asked=True)) == DUE
    assert status(*failed, fail(3, "failed", asked=True), fail(4, "failed")) == "failed"


@pytest.mark.parametrize(
    ("others", "needless"),
    [
        ([], False),
        ([trial(1, TrialState.RUNNING)], True),
        ([trial(1, TrialState.WAITING)], True),
        ([trial(9, TrialState.WAITING)], False),
        ([trial(9, TrialState.RUNNING)], False),
        ([trial(9, TrialState.COMPLETE)], True),
        ([trial(9, TrialState.PRUNED)], True),
        ([fail(1, "failed")], False),
        ([fail(1, "failed"), fail(2, "failed")], True),
        ([fail(1, VOID)], False),
    ],
)
def test_of_several_trials_of_a_job_one_runs(others, needless):
    assert is_needless(RUNNING, [*others, RUNNING], RETRIES) is needless


@pytest.mark.parametrize(("other", "needless"), [(COMPLETE, True), (fail(9, "diverged"), False)])
def test_what_was_asked_for_anew_is_needless_once_it_is_done(other, needless):
    asked = trial(7, TrialState.RUNNING, asked=True)
    assert is_needless(asked, [asked, other], RETRIES) is needless
