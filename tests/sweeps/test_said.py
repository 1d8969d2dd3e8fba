"""At which step trials ended."""

import signal

from .ledgers import JOB, ONE, attempts_of


def test_the_step_of_a_trial_that_was_stopped_is_the_one_that_was_saved(work):
    """It tells its worker of steps now and then only."""
    hangs = {"hangs": True, "saves": "Saved last.ckpt after step 1,234; the same command goes on."}
    ledger = work({"": hangs}, time_limit=1, **ONE)
    assert attempts_of(ledger)[0].user_attrs["step"] == 1234


def test_the_step_of_a_trial_that_diverged_is_the_one_that_was_not_taken(work):
    said = "error: step 7: loss nan, gradient norm nan. The step was not taken. Go on"
    for steps in (2, 7):  # that its worker has heard of
        ledger = work({"": {"status": 1, "steps": steps, "says": said}}, **ONE)
        ledger.make_due(lambda stands: True)
    assert [trial.user_attrs.get("step") for trial in attempts_of(ledger)] == [7, 7, None]


def test_a_trial_that_was_killed_came_as_far_as_was_heard_of(work, tmp_path):
    """Its figures are of the last validation."""
    (tmp_path / JOB).mkdir(parents=True)
    (tmp_path / JOB / "metrics.json").write_text('{"step": 4, "metrics": {}}')
    ledger = work({"": {"signal": signal.SIGKILL, "steps": 6}}, retries=0, **ONE)
    assert attempts_of(ledger)[0].user_attrs["step"] == 6
