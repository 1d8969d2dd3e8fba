import tarfile

import pytest
from optuna.trial import TrialState

from lit_t6.sweeps import commands, load_study
from lit_t6.sweeps.jobs import outcome_of
from lit_t6.sweeps.pack import give_up_running, pack, unpack
from lit_t6.sweeps.records import read_record, write_record
from lit_t6.sweeps.same_study import agree

from .ledgers import make_ledger, make_study, statuses


@pytest.fixture
def begun(tmp_path):
    """A study with one trial done, one failed for good, one running, and a folder of a trial with a checkpoint."""
    (tmp_path / "base.yaml").write_text("trainer: {max_steps: 3}\n")
    study = make_study(tmp_path, configs=["base.yaml"], seeds=[0])
    folder = tmp_path / "logs" / "sweeps" / "study"
    ledger = make_ledger(study, folder)
    ledger.make_due()
    agree(ledger)
    for outcome, value in (("completed", 1.25), ("diverged", None)):
        claim = ledger.claim()
        ledger.finish(claim, outcome, value, {"reason": "", "metrics": {"val/loss": 2.0}, "step": 3})
        write_record(folder / claim.job.key, ledger.storage.get_trial(claim.trial_id), study)
    ledger.claim()
    (folder / "a/seed-0/checkpoints").mkdir()
    (folder / "a/seed-0/checkpoints/last.ckpt").write_bytes(bytes(1 << 20))
    (folder / "a/seed-0/events.out.tfevents.1.host.t6").write_bytes(b"curves")
    (folder / "a/seed-0/metrics.json").write_text('{"step": 3}')
    (folder / "a/seed-0/output.log").write_text("much")
    return ledger, folder


def test_a_study_is_packed_without_checkpoints(begun, tmp_path):
    ledger, folder = begun
    archive = tmp_path / "out" / "study.tar.gz"
    assert pack(ledger, folder, archive) == (2, archive.stat().st_size)
    assert archive.stat().st_size < 10_000
    with tarfile.open(archive) as packed:
        assert {*packed.getnames()} == {
            *("study/study.yaml", "study/configs/base.yaml", "study/journal.log"),
            *("study/a/seed-0/trial.json", "study/a/seed-0/metrics.json"),
            *("study/a/seed-0/events.out.tfevents.1.host.t6", "study/b/seed-0/trial.json"),
        }


def test_it_goes_on_elsewhere(begun, tmp_path):
    ledger, folder = begun
    pack(ledger, folder, tmp_path / "study.tar.gz")
    (tmp_path / "base.yaml").unlink()  # another machine has other files
    file = unpack(tmp_path / "study.tar.gz", tmp_path / "there")
    study = load_study([file])
    again = make_ledger(study, file.parent)
    agree(again)
    give_up_running(again)
    again.make_due()
    assert statuses(again) == {"a/seed-0": "completed", "b/seed-0": "diverged", "c/seed-0": "waiting"}
    assert again.standings()["a/seed-0"].trial.value == 1.25
    assert read_record(file.parent / "a/seed-0")["value"] == 1.25
    ended = [trial for trial in again.trials() if trial.state == TrialState.FAIL]
    assert sorted(map(outcome_of, ended)) == ["diverged", "interrupted"]
    assert again.claim().job.key == "c/seed-0"
    assert len(again.standings()["c/seed-0"].failures) == 1


def test_a_look_at_an_archive_unpacks_nothing_for_good(begun, tmp_path, monkeypatch):
    ledger, folder = begun
    pack(ledger, folder, tmp_path / "study.tar.gz")
    seen = []
    monkeypatch.setattr(commands, "_preview", lambda study, workers, folder, *_: seen.append((study.name, folder)))
    archive, logs = str(tmp_path / "study.tar.gz"), tmp_path / "there"
    commands.sweep_run([], from_archive=archive, logs=str(logs), dry_run=True)
    [(name, unpacked)] = seen
    assert name == "study"
    assert not unpacked.exists()
    assert not logs.exists()


def test_what_is_there_is_not_replaced(begun, tmp_path):
    ledger, folder = begun
    pack(ledger, folder, tmp_path / "study.tar.gz")
    with pytest.raises(ValueError, match="is there already. Go on with it by `sweep run"):
        unpack(tmp_path / "study.tar.gz", tmp_path / "logs" / "sweeps")


def test_another_archive_is_refused(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be read as an archive"):
        unpack(path, tmp_path / "there")
    for names in (["x/test.py"], ["x/study.yaml", "y/study.yaml"], ["./x/study.yaml"], []):
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                archive.add(__file__, name)
        with pytest.raises(ValueError, match="is no archive of a study"):
            unpack(path, tmp_path / "there")


def test_a_half_written_archive_is_never_seen(begun, tmp_path, monkeypatch):
    ledger, folder = begun
    archive = tmp_path / "study.tar.gz"
    monkeypatch.setattr("lit_t6.sweeps.pack.record_of", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack(ledger, folder, archive)
    assert not [path for path in tmp_path.iterdir() if "tar.gz" in path.name]
