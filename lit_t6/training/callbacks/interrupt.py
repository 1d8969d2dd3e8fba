"""Ctrl-C, or SIGTERM, ends a training after the step at hand, with a checkpoint."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from lit_t6.training.callbacks.throughput import ends_training


class SaveOnInterrupt(Checkpoint):
    """At the first SIGINT or SIGTERM, training finishes its step, saves `last.ckpt` and stops; a second stops at once.

    It is a Checkpoint so that Lightning calls it after all others, whose state is saved with it. Only where one process
    trains: several would have to agree on the step.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: dict[int, Any] = {}
        self._last_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step = trainer.global_step
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("\nStopping after this step, with a checkpoint; Ctrl-C again stops at once.", flush=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped, self._last_step = trainer.global_step != self._last_step, trainer.global_step
        if self.interrupted and stepped and not _validation_follows(trainer):
            self._save_and_stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.interrupted and not ends_training(trainer, trainer.global_step):
            self._save_and_stop(trainer)

    @staticmethod
    def _save_and_stop(trainer: L.Trainer) -> None:
        saver = trainer.checkpoint_callback
        if isinstance(saver, ModelCheckpoint) and saver.dirpath is not None:
            saver.last_model_path = str(Path(saver.dirpath) / f"{saver.CHECKPOINT_NAME_LAST}.ckpt")
            trainer.save_checkpoint(saver.last_model_path, weights_only=False)
            print(f"Saved {saver.last_model_path} after step {trainer.global_step:,}; the same command goes on.")
        raise KeyboardInterrupt

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._hand_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt):  # then Lightning refuses further ones, and ends the process
            self._hand_back()

    def _hand_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _validation_follows(trainer: L.Trainer) -> bool:
    """Whether this batch is followed by a validation, which is not to be lost; only Lightning's loop knows."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
