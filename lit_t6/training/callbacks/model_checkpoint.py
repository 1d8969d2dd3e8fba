"""Lightning's ModelCheckpoint, for disks that are full and folders that are written with `~` and variables."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import proxy

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_t6.training.callbacks.interrupt import TrainingInterrupted
from lit_t6.training.checkpoint_io import save_checkpoint
from lit_t6.training.messages import say
from lit_t6.training.places import expand, home_of, is_rehearsal

_RANKING = (
    "current_score",
    "best_model_score",
    "best_model_path",
    "kth_best_model_path",
    "kth_value",
    "last_model_path",
)


class _NotSavedError(Exception):
    """Training goes on without this checkpoint; the warning has been given."""


class SafeModelCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that knows when a file was not written.

    Lightning's own ranks the new checkpoint first and writes it then. If that fails here, it ranks as before: no file
    that is not there counts as the best or the last one, and none that is there is removed for it.

    Args:
        dirpath: folder of the files; `~` and variables of the environment are read. By default `checkpoints` in the
            run's folder.
        *options: of Lightning's class.
        **more: the same.
    """

    def __init__(self, dirpath: str | Path | None = None, *options: Any, **more: Any) -> None:
        super().__init__(None if dirpath is None else expand(dirpath), *options, **more)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """As Lightning's, which would write a logger's folder as it was typed."""
        if self.dirpath is None and "://" not in str(trainer.loggers[0].save_dir if trainer.loggers else ""):
            self.dirpath = str(home_of(trainer) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    @property
    def state_key(self) -> str:
        """That of Lightning's class, so that either takes up what the other has saved."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        """As Lightning's does, and raise where it was not saved: all that would follow in Lightning's code is left."""
        if not save_checkpoint(trainer, filepath, self.save_weights_only):
            raise _NotSavedError
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        with self._as_before_if_not_saved():
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        with self._as_before_if_not_saved():
            super()._save_last_checkpoint(trainer, monitor_candidates)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save where `save_on_exception` says so; a signal is no failure, and has saved or is not to be waited for.

        Lightning's own writes over a file of the same step, which may be another run's where two save into one folder:
        here it gets a name that is free, as at every other save.
        """
        if isinstance(exception, TrainingInterrupted) or not self._should_save_on_exception(trainer):
            return
        figures = self._monitor_candidates(trainer)
        with self._as_before_if_not_saved():
            path = self._get_metric_interpolated_filepath_name(figures, trainer)
            self._save_checkpoint(trainer, path)
            self._save_last_checkpoint(trainer, figures)
            if trainer.is_global_zero:
                say(f"Saved {path} at an error, {type(exception).__name__}.")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As Lightning's, which writes a last checkpoint also where `fast_dev_run` is to write none."""
        if not is_rehearsal(trainer):
            super().on_train_end(trainer, pl_module)

    @contextlib.contextmanager
    def _as_before_if_not_saved(self) -> Iterator[None]:
        before = {name: getattr(self, name, None) for name in _RANKING} | {"best_k_models": dict(self.best_k_models)}
        try:
            yield
        except _NotSavedError:
            for name, value in before.items():
                setattr(self, name, value)
