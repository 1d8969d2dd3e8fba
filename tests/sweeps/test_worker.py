import errno
import json
import math
import os
import signal
import threading
import time

import optuna
import pytest

from lit_t6.sweeps import trial as trial_module
from lit_t6.sweeps.records import read_record
from lit_t6.sweeps.storage import Patience

from ..training.disks import fill, small_disk
from .ledgers import JOB, ONE, attempts_of, ends, fake_worker, make_ledger, make_study, statuses, wait_until


def test_every_trial_is_trained_once_and_recorded(work, tmp_path):
    ledger = work({"": {"value": 1.5}, "b/seed-1": {"value": 0.5}})
    assert set(statuses(ledger).values()) == {"completed"}
    assert [(tmp_path / key / "started").read_text() for key in ledger.jobs] == 6 * ["x"]
    record = read_record(tmp_path / "b/seed-1")
    assert record["value"] == record["metrics"]["val/bits_per_byte"] == 0.5
    assert record["metrics"]["perf/tokens_per_sec"] is None
    assert record["facts"] == {"num_parameters": 7}
    assert record["options"] == {"x.y": 2}
    times = record["times"]
    assert times["started"] < times["first_step"] < times["ended"]


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason"),
    [
        ({"status": 1, "says": "error: no such option."}, "failed", "no such option."),
        ({"status": 1, "says": "Traceback\nRuntimeError: shapes differ"}, "failed", "RuntimeError: shapes differ"),
        ({"status": 3}, "failed", "it ended with status 3 and said nothing"),
        ({"status": 1, "says": "Out of memory: tried\nerror: data.batch_size=9"}, "out_of_memory", "data.batch_size=9"),
        ({"status": 1, "says": "torch.OutOfMemoryError: CUDA out of memory."}, "out_of_memory", "CUDA out of memory"),
        (
            {"status": 1, "says": "error: step 7: loss nan, gradient norm nan. The step was not taken. Go on"},
            "diverged",
            "step 7: loss nan",
        ),
        ({"value": None}, "diverged", "val/bits_per_byte is not a finite number"),
        ({"signal": signal.SIGKILL}, "lost", "somebody sent it SIGKILL"),
        ({"signal": signal.SIGSEGV}, "failed", "it died of SIGSEGV"),
    ],
)
def test_a_trial_is_recorded_for_what_became_of_it_and_the_others_go_on(work, tmp_path, behaviour, outcome, reason):
    ledger = work({"a/seed-0": behaviour}, cells={"a": {"x.y": 1}, "b": {"x.y": 2}}, seeds=[0], retries=0)
    assert statuses(ledger) == {"a/seed-0": outcome, "b/seed-0": "completed"}
    assert reason in read_record(tmp_path / JOB)["reason"]


def test_a_failure_is_tried_again(work):
    ledger = work({"": {"1": {"status": 1}, "each": {}}}, **ONE)
    assert ends(ledger) == ["failed", "completed"]
    assert [trial.user_attrs["attempts"] for trial in attempts_of(ledger)] == [1, 2]


def test_a_metric_that_is_never_logged_is_told(work, tmp_path):
    ledger = work({}, objective="val/accuracy", retries=0, **ONE)
    assert ends(ledger) == ["failed"]
    assert "without the figure that decides, val/accuracy. It logged" in read_record(tmp_path / JOB)["reason"]


def test_a_trial_that_hangs_is_ended_at_its_time_limit(work):
    began = time.monotonic()
    ledger = work({"": {"hangs": True}}, time_limit=1, **ONE)
    assert ends(ledger) == ["timed_out"]
    assert 1 < time.monotonic() - began < 8
    assert attempts_of(ledger)[0].user_attrs["reason"] == "it took longer than its time limit, 1s"


def test_a_second_try_of_one_that_took_too_long_has_its_time_again(work):
    ledger = work({"": {"1": {"hangs": True}, "each": {}}}, time_limit=1, retries={"timed_out": 1}, **ONE)
    assert ends(ledger) == ["timed_out", "completed"]


def test_one_that_a_person_asks_for_has_the_whole_time_limit(work, tmp_path):
    """What earlier attempts took, here much more than all of it, is over and done with."""
    ledger = make_ledger(make_study(tmp_path, time_limit=4, **ONE), tmp_path)
    ledger.make_due()
    ledger.finish(ledger.claim(), "lost", None, {"seconds": 100.0, "step": 9})
    ledger.make_due()
    ledger.finish(ledger.claim(), "timed_out", None, {"seconds": 3.5})
    ledger.make_due(lambda stands: True)
    ledger = work({"": {"hangs": True}}, time_limit=4, **ONE)
    assert ends(ledger) == ["lost", "timed_out", "timed_out"]
    last = attempts_of(ledger)[-1].user_attrs
    assert last["seconds"] > 4
    assert last["reason"] == "it took longer than its time limit, 4s"


def test_what_earlier_attempts_took_of_the_limit_is_told(work, tmp_path):
    ledger = make_ledger(make_study(tmp_path, time_limit=120, **ONE), tmp_path)
    ledger.make_due()
    ledger.finish(ledger.claim(), "interrupted", None, {"seconds": 119.0, "step": 9})
    ledger = work({"": {"hangs": True}}, time_limit=120, **ONE)
    said = attempts_of(ledger)[-1].user_attrs["reason"]
    assert said == "it took longer than its time limit, 2m, of which earlier attempts took 1m59s"


def test_one_that_does_not_stop_is_killed(work, monkeypatch):
    monkeypatch.setattr(trial_module.signal, "SIGTERM", signal.SIGCONT)
    assert ends(work({"": {"hangs": True}}, time_limit=1, **ONE)) == ["timed_out"]


def test_a_worker_that_is_to_stop_has_its_training_save_and_gives_it_back(work, tmp_path):
    def stop(worker, ledger):
        wait_until(lambda: statuses(ledger)["a/seed-0"] == "running" and (tmp_path / JOB / "started").exists())
        time.sleep(0.3)
        worker.stopping.set()

    ledger = work({"": {"hangs": True}}, during=stop)
    assert ends(ledger) == ["interrupted", "waiting"]
    assert not (tmp_path / JOB / "trial.json").exists()
    assert sorted(statuses(ledger).values()) == 6 * ["waiting"]


def test_a_trial_that_was_given_to_another_is_ended_and_not_recorded(work, tmp_path):
    said = []

    def take(worker, ledger):
        wait_until(lambda: (tmp_path / JOB / "started").exists())
        (trial,) = attempts_of(ledger)
        assert ledger.lose(trial)
        ledger.make_due()

    ledger = work({"": {"1": {"hangs": True}, "each": {"value": 1.5}}}, said, take, **ONE)
    assert ends(ledger) == ["lost", "completed"]
    assert "a/seed-0: was given to another worker" in said[0]
    assert read_record(tmp_path / JOB)["value"] == 1.5


def test_a_result_that_comes_late_is_not_recorded(work, tmp_path, monkeypatch):
    said, real = [], trial_module.TrialProcess.outcome

    def late(process, *arguments):
        if not said:
            ledger = make_ledger(make_study(tmp_path, **ONE), tmp_path)
            (trial,) = attempts_of(ledger)
            ledger.lose(trial)
            said.append("taken")
            ledger.make_due()
        return real(process, *arguments)

    monkeypatch.setattr(trial_module.TrialProcess, "outcome", late)
    ledger = work({"": {"value": 0.5}}, said, **ONE)
    assert ends(ledger) == ["lost", "completed"]
    assert "is not counted" in said[1]
    assert (tmp_path / JOB / "started").read_text() == "x", "what is finished there is taken, not trained again"


def test_what_an_earlier_attempt_left_at_work_is_ended_first(work, tmp_path, monkeypatch):
    """Its worker is stopped, and cannot end it; here this process started it."""
    study, folder = make_study(tmp_path, **ONE), tmp_path / JOB
    fake_worker(monkeypatch, study, tmp_path, {"": {"hangs": True}})
    from lit_t6.sweeps import worker as worker_module

    command = worker_module.fit_command(study, None, 0, folder)
    left = trial_module.TrialProcess(command, folder, {"metric": "m", "prunes": False}, {})
    wait_until(lambda: trial_module.is_held(folder))
    ledger = work({"": {"value": 1.5}}, **ONE)
    assert left.process.wait(5) == -signal.SIGKILL
    left.close()
    assert ends(ledger) == ["completed"]


def test_where_the_kernel_tells_of_no_ends_a_worker_sleeps_too(work, monkeypatch):
    """Some containers refuse pidfd_open."""

    def refuse(pid):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    listened = []
    listen = trial_module.TrialProcess.listen
    monkeypatch.setattr(
        trial_module.TrialProcess, "listen", lambda *of: (listened.append(of[0].has_ended()), listen(*of))[1]
    )
    assert ends(work({"": {"seconds": 0.5}}, **ONE)) == ["completed"]
    assert 5 < len(listened) < 100


def test_pruned_trials_are_recorded_with_their_step(work, tmp_path):
    reports = [3.0, 2.0, 1.0]
    behaviour = {"": {"steps": 3, "reports": reports}, "c/seed-0": {"steps": 3, "reports": [9.0, 9.0, 9.0]}}
    pruner = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 2}
    ledger = work(behaviour, pruner=pruner, seeds=[0])
    assert statuses(ledger) == {"a/seed-0": "completed", "b/seed-0": "completed", "c/seed-0": "pruned"}
    trial = ledger.standings()["c/seed-0"].trial
    assert (trial.user_attrs["step"], trial.value, trial.intermediate_values) == (2, 9.0, {1: 9.0, 2: 9.0})
    assert read_record(tmp_path / "c/seed-0")["reason"] == "pruned at step 2"


def test_a_training_that_has_ended_is_pruned_no_more(work):
    behaviour = {"": {"reports": [3.0, 2.0]}, "c/seed-0": {"reports": [3.0, 9.0], "value": 9.0}}
    ledger = work(behaviour, pruner={"name": "median", "n_startup_trials": 1, "n_warmup_steps": 2}, seeds=[0])
    trial = ledger.standings()["c/seed-0"].trial
    assert (statuses(ledger)["c/seed-0"], trial.value, trial.user_attrs["reason"]) == ("completed", 9.0, "")


def test_a_report_that_is_no_number_prunes_nothing(work):
    ledger = work({"": {"steps": 2, "reports": [math.nan, math.nan], "value": None}}, pruner="median", **ONE)
    assert ends(ledger) == ["diverged"]


SEARCH = {
    "kind": {"option": "x.kind", "type": "categorical", "choices": ["p", "q"]},
    "rank": {"option": "x.rank", "type": "int", "low": 1, "high": 9, "when": {"kind": "p"}},
}


def test_a_search_asks_for_ranks_only_where_there_are_any_and_tries_lost_ones_again(work, tmp_path):
    behaviour = {"trial-0002/seed-0": {"1": {"signal": signal.SIGKILL}, "each": {}}}
    ledger = work(behaviour, cells=None, search=SEARCH, num_trials=8, seeds=[0], sampler={"name": "random", "seed": 1})
    assert set(statuses(ledger).values()) == {"completed"}
    for trial in ledger.trials():
        assert ("rank" in trial.params) == (trial.params["kind"] == "p")
        assert trial.user_attrs["options"].get("x.rank") == trial.params.get("rank")
    first, again = attempts_of(ledger, "trial-0002/seed-0")
    assert first.params == again.params
    assert len({json.dumps(trial.params) for trial in ledger.trials()}) > 3


def test_a_result_is_kept_while_the_storage_is_out_of_reach(work, monkeypatch):
    said, real, failures = [], optuna.storages.JournalStorage.set_trial_state_values, iter([True, True, False])

    def fails(storage, trial_id, state, values=None):
        if state == optuna.trial.TrialState.COMPLETE and next(failures, False):
            raise OSError(28, "No space left on device", "journal.log")
        return real(storage, trial_id, state, values)

    monkeypatch.setattr(optuna.storages.JournalStorage, "set_trial_state_values", fails)
    monkeypatch.setattr(Patience.__init__, "__defaults__", (0.01, 0.02))
    assert ends(work({}, said, **ONE)) == ["completed"]
    assert said == [
        "recording a/seed-0 is not possible now: journal.log: No space left on device. Trying again until it is.",
        "recording a/seed-0 is possible again.",
    ]


def test_a_full_disk_is_waited_out(monkeypatch, tmp_path):
    said = []
    with small_disk(tmp_path / "disk", "1m") as disk:
        study = make_study(tmp_path, **ONE)
        ledger = make_ledger(study, disk)
        ledger.make_due()
        worker = fake_worker(monkeypatch, study, disk, {}, 0.2, said.append)
        fill(disk)

        def make_room():
            wait_until(lambda: said)
            (disk / "filler").unlink()

        helper = threading.Thread(target=make_room)
        helper.start()
        worker.run()
        helper.join()
        assert statuses(ledger) == {JOB: "completed"}
        assert "No space left on device" in said[0]
        assert "is possible again" in said[-1]
        os.close(ledger.presence.descriptor)
        del ledger, worker


def test_who_takes_the_place_of_a_dead_one_lets_others_claim_first(work):
    """What killed a worker on its GPU may kill the next one there."""
    claims = []

    def claim_after_a_moment(worker, ledger):
        time.sleep(0.3)
        claims.append(ledger.claim())
        ledger.finish(claims[0], "completed", 1.0, {})

    work({"": {"value": 1.5}}, during=claim_after_a_moment, pause=2.0)
    assert claims[0].number == 0
