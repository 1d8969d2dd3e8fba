from pathlib import Path

import pytest
import torch

from lit_t6.cli import main, run
from lit_t6.training import SafeCheckpointIO, SafeModelCheckpoint, SaveForResume, checkpoint_io
from tests.training.endings import Fails

from ..runs import fit


def fails_at_step_3(folder, prepared, shared):
    saver = SafeModelCheckpoint(shared, "{step}", monitor=None, save_on_exception=True, save_last=True)
    with pytest.raises(ValueError, match="rank 0 fails"):
        fit(folder, prepared, callbacks=[saver, Fails(step=3, ranks=[0])])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_an_error_does_not_overwrite_what_another_run_saved_at_its_own(tmp_path, prepared, capsys):
    """At the same step, into the same folder."""
    shared = tmp_path / "shared"
    fails_at_step_3(tmp_path / "one", prepared, shared)
    before = {path.name: path.read_bytes() for path in shared.iterdir()}
    assert set(before) == {"step=2.ckpt", "last.ckpt"}
    fails_at_step_3(tmp_path / "two", prepared, shared)
    assert {name: (shared / name).read_bytes() for name in before} == before
    assert {path.name for path in shared.iterdir()} - set(before) == {"step=2-v1.ckpt", "last-v1.ckpt"}
    assert f"Saved {shared / 'step=2-v1.ckpt'} at an error, ValueError." in capsys.readouterr().out


class Worsening(SafeModelCheckpoint):
    """The first validation is the best."""

    def _monitor_candidates(self, trainer):
        return super()._monitor_candidates(trainer) | {"val/loss": torch.tensor(float(trainer.global_step))}


@pytest.fixture
def written(monkeypatch):
    """Name and step of every checkpoint that is written."""
    files, write = [], checkpoint_io.write_atomically

    def note(content, path):
        files.append((Path(path).name, content["global_step"]))
        write(content, path)

    monkeypatch.setattr(checkpoint_io, "write_atomically", note)
    return files


def worsening(folder, prepared, *more, saver=None, **options):
    given = {"monitor": "val/loss", "filename": "{step}", "save_last": True, **(saver or {})}
    savers = [Worsening(folder / "c", **given), *more]
    options = {"max_steps": 6, "val_check_interval": 2, "limit_val_batches": 1, **options}
    return fit(folder, prepared, callbacks=savers, plugins=[SafeCheckpointIO()], **options)[1]


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


def test_the_last_checkpoint_is_of_the_last_validation_though_that_is_none_of_the_best(tmp_path, prepared, written):
    worsening(tmp_path, prepared)
    assert written == [("step=2.ckpt", 2), ("last.ckpt", 2), ("last.ckpt", 4), ("last.ckpt", 6)]
    content = torch.load(tmp_path / "c" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 6
    assert not content["callbacks"]["ExactResume"]["validation_due"]
    (ranking,) = (state for key, state in content["callbacks"].items() if "ModelCheckpoint" in key)
    assert ranking["best_model_path"] == str(tmp_path / "c" / "step=2.ckpt")
    assert ranking["last_model_path"] == str(tmp_path / "c" / "last.ckpt")


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"max_steps": 99_999, "max_time": "00:00:00:01"}])
def test_the_last_checkpoint_is_of_the_last_step_where_that_is_not_validated(tmp_path, prepared, options):
    trainer = worsening(tmp_path, prepared, saver={"monitor": None, "every_n_train_steps": 4}, **options)
    assert step_of(tmp_path / "c" / "last.ckpt") == trainer.global_step


def test_what_is_of_the_last_step_already_is_not_written_again(tmp_path, prepared, written):
    every = {"monitor": None, "every_n_train_steps": 3, "save_top_k": -1}
    worsening(tmp_path, prepared, SaveForResume(every_n_steps=6), saver=every, val_check_interval=100)
    assert written == [(name, step) for step in (3, 6) for name in (f"step={step}.ckpt", "last.ckpt")]


@pytest.mark.parametrize("every", [{"save_on_train_epoch_end": True}, {}])
def test_savers_at_the_ends_of_epochs(tmp_path, prepared, written, every):
    """They rank there, after the validation, and the last checkpoint follows."""
    epochs = {"max_steps": -1, "max_epochs": 2, "limit_train_batches": 4, "check_val_every_n_epoch": 1}
    worsening(tmp_path, prepared, saver=every, **epochs | {"val_check_interval": 1.0})
    assert written == [("step=4.ckpt", 4), ("last.ckpt", 4), ("last.ckpt", 8)]


def test_a_validation_within_an_epoch_where_the_saver_ranks_at_its_end(tmp_path, prepared, written):
    worsening(tmp_path, prepared, saver={"save_on_train_epoch_end": True}, max_steps=5)
    steps = [("last.ckpt", 2), ("last.ckpt", 4), ("step=5.ckpt", 5), ("last.ckpt", 5)]
    assert written == steps


def test_no_last_checkpoint_where_none_is_asked_for(tmp_path, prepared, written):
    worsening(tmp_path, prepared, saver={"save_last": None})
    assert written == [("step=2.ckpt", 2)]


@pytest.mark.parametrize("plugin", [SafeCheckpointIO, None])
def test_a_link_gives_way_where_the_best_is_older(tmp_path, prepared, plugin):
    """What it linked to stays as it was."""
    given = {"monitor": "val/loss", "filename": "{step}", "save_last": "link"}
    plugins = [plugin()] if plugin else []
    folder, options = tmp_path / "c", {"val_check_interval": 2, "limit_val_batches": 1, "plugins": plugins}
    fit(tmp_path / "a", prepared, callbacks=[Worsening(folder, **given)], max_steps=2, **options)
    assert (folder / "last.ckpt").is_symlink()
    fit(tmp_path / "b", prepared, callbacks=[Worsening(tmp_path / "d", **given)], max_steps=6, **options)
    last = tmp_path / "d" / "last.ckpt"
    assert not last.is_symlink()
    assert (step_of(last), step_of(tmp_path / "d" / "step=2.ckpt")) == (6, 2)
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt", "step=2.ckpt"}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_several_savers_and_runs_of_one_folder(tmp_path, prepared):
    """Each has a last checkpoint of its own, which is brought up to date."""
    shared = tmp_path / "shared"
    for name in ("one", "two"):
        savers = [
            Worsening(shared, "a-{step}", monitor="val/loss", save_last=True),
            Worsening(shared, "b-{step}", monitor="val/loss", save_last=True, mode="max"),
        ]
        fit(tmp_path / name, prepared, callbacks=savers, max_steps=4, val_check_interval=2, limit_val_batches=1)
    names = ["last.ckpt", "last-v1.ckpt", "last-v2.ckpt", "last-v3.ckpt"]
    assert {path.name for path in shared.glob("last*")} == set(names)
    assert [step_of(shared / name) for name in names] == [4] * 4


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_last_checkpoint_that_is_begun_with_is_not_written_again(tmp_path, prepared, written):
    worsening(tmp_path, prepared)
    path, before = tmp_path / "c" / "last.ckpt", len(written)
    worsening(tmp_path, prepared, ckpt_path=path)
    assert len(written) == before
    worsening(tmp_path, prepared, ckpt_path=path, max_steps=8)
    assert written[before:] == [("last.ckpt", 8)]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_finished_run_whose_last_validation_is_not_its_best(options, monkeypatch, capsys):
    """Its last checkpoint is refused by the same limit, and goes on with a larger one."""
    monkeypatch.setattr("lit_t6.training.cli_settings.SafeModelCheckpoint", Worsening)
    words = [*options, "--trainer.val_check_interval=1", "--samples.max_new_tokens=0", "--data.eval_windows=2"]
    folder = run(["fit", *words]).trainer.log_dir
    last = f"{folder}/checkpoints/last.ckpt"
    assert step_of(last) == 3
    assert step_of(f"{folder}/checkpoints/step=1.ckpt") == 1
    assert main(["fit", *words, f"--ckpt_path={last}"]) == 1
    assert "is at the end of step 3, and trainer.max_steps=3: nothing is left to train" in capsys.readouterr().err
    assert run(["fit", *words, f"--ckpt_path={last}", "--trainer.max_steps=5"]).trainer.global_step == 5
