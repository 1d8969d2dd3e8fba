"""Trainings one after another, with the same callback for signals."""

import os
import signal

import pytest

from lit_t6.training import SafeModelCheckpoint, SaveOnInterrupt

from ..runs import fit


class PressedAt(SaveOnInterrupt):
    """Ctrl-C comes in the step after this one."""

    step: int | None = None

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_next_training_begins_anew(prepared, tmp_path, capfd):
    callback = PressedAt()

    def train():
        saver = SafeModelCheckpoint(monitor=None, every_n_train_steps=100)
        return fit(tmp_path, prepared, callbacks=[saver, callback], max_steps=4)[1]

    for step in (1, 2):
        callback.step = step
        with pytest.raises(SystemExit) as stopped:
            train()
        assert stopped.value.code == 75
        assert f" after step {step + 1};" in capfd.readouterr().out
    callback.step = None
    assert train().global_step == 4
