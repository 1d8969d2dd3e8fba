"""What becomes of a trial whose folder says that its run is finished."""

from lit_t6.sweeps import trial as trial_module
from lit_t6.sweeps.records import read_record

from .ledgers import JOB, ONE, attempts_of, ends, make_ledger, make_study, statuses


def test_a_run_that_came_to_nothing_is_trained_anew_and_kept(work, tmp_path):
    """It reached its end without a figure, and its folder says that it is finished."""
    said = []
    ledger = work({"": {"1": {"value": None}, "each": {"value": 1.5}}}, said, retries={"diverged": 1}, **ONE)
    assert ends(ledger) == ["diverged", "completed"]
    assert read_record(tmp_path / JOB)["value"] == 1.5
    assert (tmp_path / JOB / "started").read_text() == "x", "the second run begins afresh"
    aside = tmp_path / "a/seed-0.attempt-1"
    assert (aside / "started").read_text() == "x"
    assert read_record(aside)["outcome"] == "diverged"
    assert str(aside) in said[0]


def test_a_run_without_the_figure_that_decides_is_trained_anew_by_hand_alone(work, tmp_path):
    settings = {"objective": "val/accuracy", "retries": {"failed": 1}, **ONE}
    ledger = work({}, **settings)
    assert ends(ledger) == ["failed"], "it is not by chance that nothing logs it"
    assert statuses(ledger) == {JOB: "failed"}
    ledger.make_due(lambda stands: True)
    assert ends(work({}, **settings)) == ["failed", "failed"], "unless a person asks for it"
    assert (tmp_path / JOB / "started").exists()
    assert (tmp_path / "a/seed-0.attempt-1/started").exists()


def test_a_finished_run_that_nobody_judged_is_taken_after_one_that_was(work, tmp_path, monkeypatch):
    """The second run is finished, and its worker given up before it can say so."""
    real, outcomes = trial_module.TrialProcess.outcome, []

    def given_up(process, *arguments):
        outcomes.append(real(process, *arguments))
        if len(outcomes) == 2:
            ledger = make_ledger(make_study(tmp_path, retries={"diverged": 1, "lost": 1}, **ONE), tmp_path)
            assert ledger.lose(attempts_of(ledger)[1])
            ledger.make_due()
        return outcomes[-1]

    monkeypatch.setattr(trial_module.TrialProcess, "outcome", given_up)
    behaviour = {"": {"1": {"value": None}, "2": {"value": 1.5}, "3": {"status": 1}}}
    ledger = work(behaviour, retries={"diverged": 1, "lost": 1}, **ONE)
    assert ends(ledger) == ["diverged", "lost", "completed"]
    assert read_record(tmp_path / JOB)["value"] == 1.5


def test_a_worker_that_dies_before_a_run_begins_anew_does_not_have_the_old_one_taken(work, tmp_path, monkeypatch):
    from lit_t6.sweeps.worker import Worker

    real, trained = Worker._train, []

    def dies_first(worker, watch, *arguments):
        trained.append(watch.claim.number)
        if len(trained) == 2:
            worker.ledger.lose(worker.ledger.storage.get_trial(watch.claim.trial_id))
            worker.ledger.make_due()
            return None
        return real(worker, watch, *arguments)

    monkeypatch.setattr(Worker, "_train", dies_first)
    behaviour = {"": {"1": {"value": None}, "each": {"value": 1.5}}}
    ledger = work(behaviour, retries={"diverged": 1, "lost": 1}, **ONE)
    assert ends(ledger) == ["diverged", "lost", "completed"]
    assert (tmp_path / "a/seed-0.attempt-1/started").exists()


def test_a_run_that_is_finished_counts_though_its_process_died_after(work, tmp_path):
    ledger = work({"": {"status": 3, "finishes": True, "value": 1.5}}, **ONE)
    assert ends(ledger) == ["completed"]
    record = read_record(tmp_path / JOB)
    assert (record["value"], record["reason"]) == (1.5, "")
    assert record["remark"] == "it finished; after that it ended with status 3 and said nothing"


def test_a_trial_whose_checkpoints_were_not_saved_completes_and_says_so(work, tmp_path):
    behaviour = {"": {"value": 1.5, "not_saved": ["step=8.ckpt", "last.ckpt"]}}
    ledger = work(behaviour, **ONE)
    assert ends(ledger) == ["completed"]
    record = read_record(tmp_path / JOB)
    remark = "checkpoints not saved: step=8.ckpt, last.ckpt; output.log says why"
    assert (record["value"], record["reason"], record["remark"]) == (1.5, "", remark)
