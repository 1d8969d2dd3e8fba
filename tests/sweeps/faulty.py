"""Callbacks that spoil a training after some steps."""

import time
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class Spoils(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            self.spoil()


class Raises(Spoils):
    def spoil(self):
        raise RuntimeError("the shapes differ")


class EndsMemory(Spoils):
    def spoil(self):
        raise MemoryError("no room")


class PoisonsOnce(Callback):
    """The first time, the weights are no numbers after the last step, and nothing of it is seen before the end."""

    def on_train_batch_end(self, trainer, module, *_):
        mark = Path(trainer.log_dir).parent / "poisoned"
        if trainer.global_step == trainer.max_steps and not mark.exists():
            mark.touch()
            for weights in module.parameters():
                weights.data.fill_(float("nan"))


class Hangs(Spoils):
    def spoil(self):
        time.sleep(3600)
