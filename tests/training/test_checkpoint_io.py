import errno
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_t6 import LitT6, TokenDataModule
from lit_t6.cli import main, run
from lit_t6.training import CheckpointNotSaved, DamagedCheckpoint, SafeCheckpointIO, SafeModelCheckpoint, checkpoint_io
from lit_t6.training.checkpoint_files import verify_file
from tests.training.disks import small_disk
from tests.training.runs import fit, make_trainer

FULL = "the checkpoint was not saved: No space left on device"


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that takes nothing of the steps it is told of."""
    write = checkpoint_io.write_atomically

    def fill(*steps):
        def attempt(content, path):
            if content["global_step"] in steps:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(content, path)

        monkeypatch.setattr(checkpoint_io, "write_atomically", attempt)

    return fill


class Improving(SafeModelCheckpoint):
    """Every validation is the best so far."""

    def _monitor_candidates(self, trainer):
        return super()._monitor_candidates(trainer) | {"val/loss": torch.tensor(1.0 / trainer.global_step)}


def train(tmp_path, prepared, on_save_error="warn", **options):
    saver = Improving(
        monitor="val/loss", filename="step={step}", auto_insert_metric_name=False, save_last=True, **options
    )
    plugin = SafeCheckpointIO(on_save_error)
    _, trainer = fit(tmp_path, prepared, callbacks=[saver], plugins=[plugin], max_steps=6, val_check_interval=2)
    return trainer, saver


def names(tmp_path):
    return sorted(path.name for path in tmp_path.glob("run/checkpoints/*"))


def test_a_full_disk_never_costs_the_last_good_checkpoint(tmp_path, prepared, full_disk, capsys):
    full_disk(4, 6)
    trainer, saver = train(tmp_path, prepared)
    assert trainer.global_step == 6
    assert names(tmp_path) == ["last.ckpt", "step=2.ckpt"]
    assert Path(saver.best_model_path).name == "step=2.ckpt"
    assert Path(saver.last_model_path).name == "last.ckpt"
    assert saver.best_model_score == 0.5
    errors = capsys.readouterr().err
    assert errors.count("warning: ") == 2
    for text in (f"step=4.ckpt: {FULL}", "bytes are free there", "last.ckpt, is whole", "Training goes on."):
        assert text in errors
    torch.load(saver.best_model_path, weights_only=True)


def test_ranks_again_once_there_is_room(tmp_path, prepared, full_disk):
    full_disk(4)
    _, saver = train(tmp_path, prepared)
    assert names(tmp_path) == ["last.ckpt", "step=6.ckpt"]
    assert [Path(path).name for path in saver.best_k_models] == ["step=6.ckpt"]


def test_a_full_disk_stops_if_that_is_set(tmp_path, prepared, full_disk):
    full_disk(4)
    with pytest.raises(CheckpointNotSaved, match=f"step=4.ckpt: {FULL}.* is whole"):
        train(tmp_path, prepared, "stop")
    assert names(tmp_path) == ["last.ckpt", "step=2.ckpt"]


@pytest.mark.parametrize(("policy", "status"), [("warn", 0), ("stop", 1)])
def test_the_command_line_sets_what_a_full_disk_does(options, full_disk, capsys, policy, status):
    full_disk(3)
    assert main(["fit", *options, f"--on_save_error={policy}"]) == status
    errors = capsys.readouterr().err
    assert errors.count(f"step=3.ckpt: {FULL}") == 1
    assert ("error: " in errors) == (status == 1)


@pytest.mark.slow
def test_a_training_goes_on_over_a_real_full_disk(tmp_path, prepared, capsys):
    with small_disk(tmp_path / "disk", "1500k") as disk:
        trainer, saver = train(tmp_path, prepared, dirpath=disk, save_top_k=-1)
        assert trainer.global_step == 6
        assert "No space left on device" in capsys.readouterr().err
        assert {str(path) for path in disk.iterdir()} == {*saver.best_k_models, saver.last_model_path}
        for path in disk.iterdir():
            verify_file(path)
        again = Improving(monitor="val/loss", dirpath=disk, save_top_k=0)
        fit(tmp_path / "b", prepared, ckpt_path=saver.last_model_path, max_steps=7, callbacks=[again])


def test_the_state_is_that_of_lightnings_own_class():
    settings = dict(monitor="val/loss", every_n_train_steps=3)
    assert SafeModelCheckpoint(**settings).state_key == ModelCheckpoint(**settings).state_key


def test_a_trainer_without_our_callbacks_raises(tmp_path, prepared, full_disk):
    _, trainer = fit(tmp_path, prepared, plugins=[SafeCheckpointIO()], max_steps=1)
    full_disk(1)
    with pytest.raises(CheckpointNotSaved, match=FULL):
        trainer.save_checkpoint(tmp_path / "a.ckpt")


def test_no_reader_takes_a_damaged_file(tmp_path, prepared):
    module, trainer = fit(tmp_path, prepared, plugins=[SafeCheckpointIO()], max_steps=1)
    path = tmp_path / "a.ckpt"
    trainer.save_checkpoint(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(DamagedCheckpoint, match="a.ckpt: not a checkpoint, or a damaged one: .*SHA-256"):
        LitT6.load_from_checkpoint(path)
    again = make_trainer(tmp_path / "b", plugins=[SafeCheckpointIO()])
    with pytest.raises(DamagedCheckpoint):
        again.validate(module, TokenDataModule(str(prepared), 4, num_workers=0), ckpt_path=path)


def test_what_would_run_code_is_not_loaded(tmp_path):
    torch.save({"function": print}, tmp_path / "a.ckpt")
    with pytest.raises(Exception, match="weights_only|Weights only"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
    assert SafeCheckpointIO().load_checkpoint(tmp_path / "a.ckpt", weights_only=False)["function"] is print


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.ckpt"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")


def test_a_plugin_of_the_users_is_left(options):
    words = ["--trainer.plugins=lightning.pytorch.plugins.io.AsyncCheckpointIO"]
    finished = run(["fit", *options, *words])
    assert not isinstance(finished.trainer.strategy.checkpoint_io, SafeCheckpointIO)
    assert isinstance(run(["fit", *options]).trainer.strategy.checkpoint_io, SafeCheckpointIO)
