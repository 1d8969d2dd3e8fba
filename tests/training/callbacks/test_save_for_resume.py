import pytest
import torch

from lit_t6.training import SafeCheckpointIO, SaveForResume
from lit_t6.training.callbacks import save_for_resume
from tests.training.runs import fit


def steps(folder):
    files = (folder / "run" / "checkpoints" / "resume").glob("*.ckpt")
    return sorted(int(path.stem.removeprefix("step=")) for path in files)


def run(tmp_path, prepared, *savers, **options):
    options = {"enable_checkpointing": True, "plugins": [SafeCheckpointIO()], **options}
    return fit(tmp_path, prepared, callbacks=list(savers), **options)


def test_saves_by_steps_and_leaves_the_newest(tmp_path, prepared):
    run(tmp_path, prepared, SaveForResume(every_n_steps=2, keep=2), val_check_interval=100)
    assert steps(tmp_path) == [4, 6]


def test_a_training_that_goes_on_from_one_is_the_undisturbed_one(tmp_path, prepared):
    straight, _ = run(tmp_path, prepared, SaveForResume(every_n_steps=3), accumulate_grad_batches=2)
    assert steps(tmp_path) == [3, 6]
    path = tmp_path / "run" / "checkpoints" / "resume" / "step=3.ckpt"
    resumed, trainer = run(tmp_path / "b", prepared, SaveForResume(), ckpt_path=path, accumulate_grad_batches=2)
    assert trainer.global_step == 7
    for ours, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Clock:
    """A step takes as many seconds as it says."""

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0

    def monotonic(self):
        return self.now


class Ticks(SaveForResume):
    def on_train_batch_end(self, trainer, *arguments):
        save_for_resume.time.now += save_for_resume.time.seconds
        super().on_train_batch_end(trainer, *arguments)


@pytest.mark.parametrize(("seconds", "expected"), [(30, [4, 6]), (120, [6, 7]), (1, [])])
def test_saves_by_minutes(tmp_path, prepared, monkeypatch, seconds, expected):
    monkeypatch.setattr(save_for_resume, "time", Clock(seconds))
    run(tmp_path, prepared, Ticks(every_n_minutes=1), val_check_interval=100, limit_val_batches=0)
    assert steps(tmp_path) == expected


def test_ranks_agree_a_dozen_times_and_not_at_every_step(monkeypatch):
    clock, asked = Clock(0.1), []
    monkeypatch.setattr(save_for_resume, "time", clock)

    class Strategy:
        def broadcast(self, decision):
            asked.append(decision)
            return decision

    class Trainer:
        strategy, global_step = Strategy(), 0

    saver = SaveForResume()
    saver.on_train_start(Trainer, None)
    for _step in range(6100):
        clock.now += 0.1
        if saver._is_time(Trainer):
            break
    assert 600 <= clock.now < 602
    assert len(asked) < 15


def test_a_validation_that_follows_saves_by_itself(tmp_path, prepared):
    saver = SaveForResume(every_n_steps=5, every_n_minutes=0)
    run(tmp_path, prepared, _checkpoint(), saver, max_steps=10, val_check_interval=5)
    assert steps(tmp_path) == []
    assert (tmp_path / "run" / "checkpoints").exists()


def test_saves_after_a_validation_that_saves_nothing(tmp_path, prepared):
    run(tmp_path, prepared, SaveForResume(every_n_steps=5), max_steps=6, val_check_interval=5)
    assert steps(tmp_path) == [5]
    content = torch.load(tmp_path / "run/checkpoints/resume/step=5.ckpt", weights_only=True)
    assert content["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]["completed"] > 0


def test_later_steps_are_not_ours_to_remove(tmp_path, prepared):
    folder = tmp_path / "run" / "checkpoints" / "resume"
    folder.mkdir(parents=True)
    for name in ("step=900.ckpt", "step=1.ckpt", "mine.ckpt"):
        (folder / name).touch()
    run(tmp_path, prepared, SaveForResume(every_n_steps=2, keep=1), val_check_interval=100)
    assert {path.name for path in folder.iterdir()} == {"step=900.ckpt", "step=6.ckpt", "mine.ckpt"}


def test_nothing_old_is_removed_while_the_new_one_cannot_be_written(tmp_path, prepared, monkeypatch, capsys):
    from lit_t6.training import checkpoint_io

    write = checkpoint_io.write_atomically

    def fill(content, path):
        if content["global_step"] > 2:
            raise OSError(28, "No space left on device")
        write(content, path)

    monkeypatch.setattr(checkpoint_io, "write_atomically", fill)
    _, trainer = run(tmp_path, prepared, SaveForResume(every_n_steps=2, keep=1), val_check_interval=100)
    assert trainer.global_step == 7
    assert steps(tmp_path) == [2]
    assert capsys.readouterr().err.count("step=4.ckpt: the checkpoint was not saved: No space left on device") == 1


def test_without_a_run_folder_nothing_is_saved(tmp_path, prepared):
    run(tmp_path, prepared, SaveForResume(every_n_steps=1), logger=False)
    assert not list(tmp_path.rglob("resume"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": -1}, "resume.every_n_steps=-1: must be"),
        ({"every_n_minutes": float("nan")}, "resume.every_n_minutes=nan: must be"),
        ({"keep": 0}, "resume.keep=0: must be a finite number of at least 1"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SaveForResume(**options)


def _checkpoint():
    from lit_t6.training import SafeModelCheckpoint

    return SafeModelCheckpoint(monitor="val/loss", save_last=True, save_top_k=-1)
