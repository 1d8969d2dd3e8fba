"""Callbacks for the command line, with which a training meets its end at a step."""

import os
import signal

from lightning.pytorch.callbacks import Callback


class GetsSigterm(Callback):
    """The process gets a SIGTERM in a step.

    Args:
        step: counted from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
