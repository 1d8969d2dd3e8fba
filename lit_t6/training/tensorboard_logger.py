"""Lightning's TensorBoardLogger, for disks that are full and folders that are written with `~` and variables."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger

from lit_t6.training.event_file import LastingWriter
from lit_t6.training.places import expand


class LastingTensorBoardLogger(TensorBoardLogger):
    """A TensorBoardLogger that never raises for want of space: it keeps curves until there is some.

    The arguments are the same. TensorBoard's own writer would raise at the next step that is logged, on the first rank
    alone, and the others would wait for it. A folder that is an address (s3://…) is left to it all the same.
    """

    new_folders: Sequence[Path] = ()
    """Folders that were not there before this logger, the innermost first; known to rank 0, once the writer is made."""

    @property
    def save_dir(self) -> str:
        """As typed, expanded: Lightning's own is expanded for the curves alone, not for checkpoints."""
        return expand(super().save_dir)

    @property
    def root_dir(self) -> str:
        """Where the versions are counted; Lightning would count those in a folder that is called `~`."""
        return expand(super().root_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, which makes its file with the first event."""
        if self._experiment is None and "://" not in self.log_dir:
            folder = Path(self.log_dir)
            self.new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
            with contextlib.suppress(OSError):  # it is tried again with the first event
                os.makedirs(self.log_dir, exist_ok=True)
            self._experiment = LastingWriter(self.log_dir, **self._kwargs)
        return super().experiment if self._experiment is None else self._experiment

    @rank_zero_only
    def save(self) -> None:
        """Write what is kept, and hyperparameters if they are not there yet."""
        try:
            super().save()
        except OSError:  # of hparams.yaml, since the writer has none: half of it would pass for the whole
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.log_dir, self.NAME_HPARAMS_FILE))


def make_lasting(trainer: L.Trainer) -> None:
    """Let the trainer's TensorBoardLoggers be lasting ones; those of a class derived from it stay what they are.

    They keep their identity, since the user may hold them. Lightning has loggers open their files before it calls any
    callback, so this is called before that.

    Args:
        trainer: that is about to train.
    """
    for logger in trainer.loggers:
        if type(logger) is TensorBoardLogger and logger._experiment is None:
            logger.__class__ = LastingTensorBoardLogger
