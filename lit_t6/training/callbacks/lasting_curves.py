"""What becomes of a training whose curves cannot be written."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lit_t6.training.callbacks.agreement import Agreement
from lit_t6.training.checkpoint_io import SafeCheckpointIO
from lit_t6.training.event_file import CurvesNotWritten, LastingWriter


class LastingCurves(Callback):
    """Stops a training whose curves cannot be written, if that is set; else `LastingTensorBoardLogger` keeps them.

    Set it is by `on_save_error="stop"` of the trainer's `SafeCheckpointIO`. All ranks stop, at most one step after the
    one whose curves could not be written.
    """

    def __init__(self) -> None:
        self._agreement: Agreement | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        io = trainer.strategy.checkpoint_io
        stops = isinstance(io, SafeCheckpointIO) and io.on_save_error == "stop"
        self._agreement = Agreement(trainer.world_size) if stops else None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._agreement is not None and self._agreement.ask(int(bool(_failed(trainer)))):
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._agreement is not None and self._agreement.settle(int(bool(_failed(trainer)))):
            self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        assert self._agreement is not None
        self._agreement.close()  # a process that ends while something is under way is aborted
        failed = _failed(trainer)  # there may be space again by now
        why = "; ".join(f"{w.log_dir}: curves cannot be written: {w.error.strerror}" for w in failed if w.error)
        why = trainer.strategy.broadcast(why or "curves could not be written")
        raise CurvesNotWritten(f"{why}. --on_save_error warn would train on and keep them in memory meanwhile.")


def _failed(trainer: L.Trainer) -> list[LastingWriter]:
    """Writers of this process that cannot write."""
    writers = [logger._experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [w for w in writers if isinstance(w, LastingWriter) and w.error is not None]
