"""What a resumed training keeps of its savers, and where it goes on after an exception."""

import shutil

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lit_t6.training import SafeModelCheckpoint
from tests.training.test_resume import Noisy, check, curves, differences, train, undisturbed

pytestmark = [
    pytest.mark.filterwarnings(w)
    for w in (
        "ignore:Be aware that when using .ckpt_path.",
        "ignore:The number of training batches",
        "ignore:Total length of `list` across ranks is zero",
        "ignore:Checkpoint directory .* exists and is not empty",
        "ignore:The dirpath has changed",
    )
]
RANKING = (
    "best_k_models",
    "best_model_path",
    "best_model_score",
    "kth_best_model_path",
    "kth_value",
    "last_model_path",
)


class Keeping(ModelCheckpoint):
    """Keeps the folder as it was when it had saved, as a kill right then would leave it."""

    def _save_checkpoint(self, trainer, filepath):
        super()._save_checkpoint(trainer, filepath)
        kept = trainer.default_root_dir + f"/kept-{trainer.global_step}"
        if not trainer.ckpt_path:
            shutil.copytree(self.dirpath, kept)


def savers(folder):
    """The best two; the best two of every second step, the first of which waits for a validation; every step."""
    name = {"dirpath": folder / "c", "auto_insert_metric_name": False}
    best = {"monitor": "val/loss", "save_top_k": 2, **name}
    return [
        SafeModelCheckpoint(filename="best-{step}", save_last=True, **best),
        SafeModelCheckpoint(filename="second-{step}", every_n_train_steps=2, **best),
        Keeping(filename="step-{step}", every_n_train_steps=1, save_top_k=-1, **name),
    ]


def rankings(trainer):
    return [{name: getattr(saver, name) for name in RANKING} for saver in trainer.checkpoint_callbacks]


@pytest.mark.parametrize("interval", [2, 3])
def test_every_saver_ranks_as_in_the_undisturbed_run(tmp_path, prepared, interval):
    """Also where the checkpoint is one saver's and the validation that others wait for was still to come."""
    options = {"max_steps": 6, "limit_train_batches": 4, "val_check_interval": interval}
    _, straight = train(tmp_path, prepared, save=savers(tmp_path), **options)
    expected, files = rankings(straight), {path.name for path in (tmp_path / "c").iterdir()}
    assert len(expected[0]["best_k_models"]) == 2
    for step in range(1, 7):
        shutil.rmtree(tmp_path / "c")
        shutil.copytree(tmp_path / f"kept-{step}", tmp_path / "c")
        path = tmp_path / "c" / f"step-{step}.ckpt"
        _, resumed = train(tmp_path, prepared, path, save=savers(tmp_path), **options)
        assert not differences(expected, rankings(resumed)), step
        assert {path.name for path in (tmp_path / "c").iterdir()} == files


def due_at_the_end(tmp_path, prepared):
    """A checkpoint of the last step, before its validation."""
    train(tmp_path / "straight", prepared, max_steps=5)
    path = tmp_path / "straight" / "c" / "step-5.ckpt"
    assert torch.load(path, weights_only=True)["callbacks"]["ExactResume"]["validation_due"]
    return path


@pytest.mark.parametrize(
    "without", [{"limit_val_batches": 0}, {"limit_val_batches": 0.0}, {"check_val_every_n_epoch": 9}]
)
def test_no_step_more_where_a_validation_is_due_and_turned_off(tmp_path, prepared, without):
    path = due_at_the_end(tmp_path, prepared)
    module, trainer = train(tmp_path / "again", prepared, path, save=False, max_steps=5, **without)
    assert trainer.global_step == 5
    assert trainer.max_steps == 5
    assert not hasattr(module, "trained")


def test_no_step_more_where_there_is_nothing_to_validate_on(tmp_path, prepared, monkeypatch):
    from lit_t6 import TokenDataModule

    path = due_at_the_end(tmp_path, prepared)
    monkeypatch.setattr(TokenDataModule, "val_dataloader", lambda self: [])
    _, trainer = train(tmp_path / "again", prepared, path, save=False, max_steps=5)
    assert (trainer.global_step, trainer.max_steps) == (5, 5)


def test_settings_are_the_trainers_own_again_where_nothing_is_run(tmp_path, prepared):
    path = due_at_the_end(tmp_path, prepared)
    _, trainer = train(tmp_path / "again", prepared, path, save=False, max_steps=5, limit_train_batches=0)
    assert (trainer.global_step, trainer.max_steps) == (5, 5)


class FailingError(Exception):
    pass


class FailsInStep(Noisy):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if len(self.trained) == 8:
            raise FailingError
        return loss


class FailsInValidation(Callback):
    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        torch.rand(())
        if trainer.global_step == 5 and batch_idx == 1:
            raise FailingError


@pytest.mark.parametrize("accumulate", [1, 2])
def test_goes_on_from_what_an_exception_in_a_step_left(tmp_path, prepared, accumulate):
    options = {"accumulate_grad_batches": accumulate, "limit_train_batches": 8}
    straight = undisturbed(tmp_path / "straight", prepared, save=False, **options)
    saver = SafeModelCheckpoint(tmp_path / "c", "failed", monitor="val/loss", save_on_exception=True)
    with pytest.raises(FailingError):
        train(tmp_path / "failed", prepared, save=[saver], model=FailsInStep, **options)
    check(straight, tmp_path / "again", tmp_path / "c" / "failed.ckpt", prepared, **options)


def test_goes_on_from_what_an_exception_in_a_validation_left(tmp_path, prepared):
    class Draws(FailsInValidation):
        def on_validation_batch_start(self, *arguments):
            torch.rand(())

    straight = undisturbed(tmp_path / "straight", prepared, save=False, callbacks=[Draws()])
    saver = SafeModelCheckpoint(tmp_path / "c", "failed", monitor="val/loss", save_on_exception=True)
    with pytest.raises(FailingError):
        train(tmp_path / "failed", prepared, save=[saver], callbacks=[FailsInValidation()])
    check(straight, tmp_path / "again", tmp_path / "c" / "failed.ckpt", prepared, callbacks=[Draws()])
    assert ("val/loss", 4) in curves(tmp_path / "again")  # of step 5, counted from 0


def test_a_validation_that_an_exception_ended_counts_once_it_is_done(tmp_path, prepared):
    """The checkpoint of the exception is the saver's own, and of that very step."""

    def saver():
        return SafeModelCheckpoint(
            tmp_path / "c", "{step}", monitor="val/loss", save_top_k=-1, save_last=True, save_on_exception=True
        )

    _, straight = train(tmp_path, prepared, save=[saver()])
    shutil.rmtree(tmp_path / "c")
    with pytest.raises(FailingError):
        train(tmp_path, prepared, save=[saver()], callbacks=[FailsInValidation()])
    _, resumed = train(tmp_path, prepared, tmp_path / "c" / "last.ckpt", save=[saver()])
    scores = [list(trainer.checkpoint_callback.best_k_models.values()) for trainer in (straight, resumed)]
    assert len(scores[0]) == 3
    assert scores[0] == scores[1]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.ckpt")}


def best_and_last(folder, **when):
    return [SafeModelCheckpoint(folder, "best-{step}", monitor="val/loss", save_last=True, **when)]


def test_another_runs_files_are_left_alone(tmp_path, prepared):
    """Savers into the same folder would go on with the last and the best of the run whose checkpoint it was."""
    options = {"val_check_interval": 1, "max_steps": 4}
    train(tmp_path / "a", prepared, save=best_and_last(tmp_path / "c"), **options)
    before = contents(tmp_path)
    assert {path.name for path in before} == {"best-step=4.ckpt", "last.ckpt"}
    options["max_steps"] = 8
    path = tmp_path / "c" / "last.ckpt"
    _, trainer = train(tmp_path / "b", prepared, path, save=best_and_last(tmp_path / "c"), **options)
    after, saver = contents(tmp_path), trainer.checkpoint_callback
    assert {path: after.get(path) for path in before} == before
    assert {str(path) for path in after.keys() - before} == {saver.best_model_path, saver.last_model_path}


@pytest.mark.parametrize(("mode", "worst"), [("min", torch.inf), ("max", -torch.inf)])
@pytest.mark.parametrize("place", ["c", "d"])
def test_another_runs_best_is_not_this_ones(tmp_path, prepared, mode, worst, place):
    train(tmp_path / "a", prepared, save=best_and_last(tmp_path / "c", mode=mode), max_steps=4, val_check_interval=2)
    options = {"save": best_and_last(tmp_path / place, mode=mode), "max_steps": 6, "limit_val_batches": 0}
    _, trainer = train(tmp_path / "b", prepared, tmp_path / "c" / "last.ckpt", **options)
    (ranking,) = rankings(trainer)
    last = tmp_path / place / ("last-v1.ckpt" if place == "c" else "last.ckpt")
    assert ranking.pop("last_model_path") == str(last)
    assert ranking.pop("kth_value") == worst
    assert not any(ranking.values())
