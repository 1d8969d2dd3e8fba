"""A signal that comes before the first step of a training that goes on from a checkpoint."""

import os
import signal
from pathlib import Path

import pytest

from lit_t6.cli import main, run
from lit_t6.training import SafeModelCheckpoint, SaveOnInterrupt, read_checkpoint

from ..endless import Endless
from ..runs import fit


class SignalsBeforeAStep(SaveOnInterrupt):
    """Gets a signal when the checkpoint is read."""

    number = signal.SIGTERM

    def on_fit_start(self, trainer, pl_module):
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_before_the_first_new_step_the_checkpoint_is_named(options, monkeypatch, capfd, number):
    folder = Path(run(["fit", *options]).trainer.log_dir)
    (folder / "finished").unlink()
    monkeypatch.setattr(SignalsBeforeAStep, "number", number)
    monkeypatch.setattr("lit_t6.training.cli.SaveOnInterrupt", SignalsBeforeAStep)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *options])
    assert stopped.value.code == 75
    last = folder / "checkpoints" / "last.ckpt"
    said = f"before the first new step: {last} is there; the same command goes on."
    assert f"Stopped by {signal.Signals(number).name} {said}" in capfd.readouterr().out
    assert read_checkpoint(last).content["global_step"] == 3


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_slurm_is_asked_to_requeue_also_before_the_first_new_step(prepared, tmp_path, monkeypatch, capfd):
    class Warned(SignalsBeforeAStep):
        def setup(self, *arguments, **named):
            super().setup(*arguments, **named)
            self._requeue_at = signal.SIGTERM  # as with Lightning's SLURM plugin

    saver = SafeModelCheckpoint(monitor=None, every_n_train_steps=100, save_last=True)
    _, trainer = fit(tmp_path, prepared, max_steps=2, callbacks=[saver])
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", str(tmp_path))
    saver = SafeModelCheckpoint(monitor=None, every_n_train_steps=100)
    last = trainer.checkpoint_callback.last_model_path
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, prepared, callbacks=[saver, Warned(same_command=False)], ckpt_path=last)
    assert stopped.value.code == 75
    out = capfd.readouterr().out
    assert f"{last} is there; the same --ckpt_path goes on." in out
    assert out.count("scontrol requeue 17: ") == 1


@pytest.mark.slow
def test_a_process_that_goes_on_tells_of_its_checkpoint(options, tmp_path):
    with Endless(options, tmp_path) as training:
        training.wait_for_step()
        training.process.send_signal(signal.SIGTERM)
        assert training.status() == 75, training.said()
    with Endless(options, tmp_path) as again:
        assert again.wait_for_text("parameters"), again.said()  # the panel
        again.process.send_signal(signal.SIGUSR1)
        assert again.status() == 75, again.said()
    assert f"{training.folder()}/checkpoints/last.ckpt" in again.said()
