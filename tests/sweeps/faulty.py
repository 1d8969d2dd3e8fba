"""Callbacks that spoil a training after some steps."""

import time

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


class Hangs(Spoils):
    def spoil(self):
        time.sleep(3600)
