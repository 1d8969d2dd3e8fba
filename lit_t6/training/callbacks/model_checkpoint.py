"""Lightning's ModelCheckpoint, for a last checkpoint that is the last, disks that are full, and folders with `~`."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import proxy

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_t6.training.callbacks.interrupt import TrainingInterrupted
from lit_t6.training.callbacks.throughput import ends_training
from lit_t6.training.checkpoint_io import SafeCheckpointIO, save_checkpoint
from lit_t6.training.messages import say
from lit_t6.training.places import expand, home_of, is_rehearsal

_RANKING = (
    "current_score",
    "best_model_score",
    "best_model_path",
    "kth_best_model_path",
    "kth_value",
    "last_model_path",
    "_last_checkpoint_saved",
)


class _NotSavedError(Exception):
    """Training goes on without this checkpoint; the warning has been given."""


class SafeModelCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose last checkpoint is of the last step, and that knows when a file was not written.

    Lightning's own writes the last checkpoint (`save_last`) where it writes one of the best, and leaves it behind where
    a validation is none of the best. Here it is brought up to date by every validation and by the end of the training,
    unless it is of that step already. A figure that is infinite or NaN is none of the best.

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
        self._step_of_last = self._not_saved_at = -1  # the last checkpoint's; where a disk was full
        self.not_saved: list[str] = []
        """Files that this process could not write, and has not since."""
        self._validated_at = -1  # and the last checkpoint of that step is left to the end of the epoch

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
        saved = save_checkpoint(trainer, filepath, self.save_weights_only)
        self.not_saved = [path for path in self.not_saved if path != filepath] + ([] if saved else [filepath])
        if not saved:
            raise _NotSavedError
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """As Lightning's, for which infinity and NaN are among the best while there are few; all ranks decide alike."""
        finite = current is None or trainer.strategy.reduce_boolean_decision(bool(torch.isfinite(current)))
        return (finite or self.save_top_k == -1) and super().check_monitor_top_k(trainer, current)

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        with self._as_before_if_not_saved(trainer):
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """As Lightning's, which also links to a file of an earlier step: where this one has none, it is written."""
        with self._as_before_if_not_saved(trainer):
            if self.save_last == "link" and self._last_global_step_saved != trainer.global_step:
                self._last_checkpoint_saved = ""  # nothing to link to
                self._make_way(trainer)
            super()._save_last_checkpoint(trainer, monitor_candidates)
            self._step_of_last = trainer.global_step

    def _make_way(self, trainer: L.Trainer) -> None:
        """Remove the link that stands for the last checkpoint, or writers of others would write into what it is to."""
        one_file_at_once = isinstance(trainer.strategy.checkpoint_io, SafeCheckpointIO)
        link = self.last_model_path
        if trainer.is_global_zero and os.path.islink(link) and (os.path.isdir(link) or not one_file_at_once):
            os.unlink(link)
        trainer.strategy.barrier()

    def _bring_last_up_to_date(self, trainer: L.Trainer) -> None:
        if self.save_last and trainer.global_step not in (self._step_of_last, self._not_saved_at):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As Lightning's, and see whether the checkpoint that the training begins with is the last of this saver."""
        super().on_train_start(trainer, pl_module)
        self._step_of_last = self._not_saved_at = self._validated_at = -1
        begins_with, last = trainer.ckpt_path, self.last_model_path
        counts_as_saved = self._last_global_step_saved == trainer.global_step  # not before a validation; `ExactResume`
        if begins_with is not None and last and counts_as_saved:  # the same on all ranks
            same = os.path.realpath(begins_with) == os.path.realpath(last)
            self._step_of_last = trainer.global_step if trainer.strategy.broadcast(same) else -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As Lightning's, and bring the last checkpoint up to date where this was none of the best."""
        super().on_validation_end(trainer, pl_module)
        if is_rehearsal(trainer) or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self._should_save_on_train_epoch_end(trainer) and _ends_epoch(trainer):
            self._validated_at = trainer.global_step  # a file of this step now, and Lightning would rank none then
        else:
            self._bring_last_up_to_date(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same, for those that save at the ends of epochs."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._validated_at == trainer.global_step:
            self._bring_last_up_to_date(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save where `save_on_exception` says so; a signal is no failure, and has saved or is not to be waited for.

        Lightning's own writes over a file of the same step, which may be another run's where two save into one folder:
        here it gets a name that is free, as at every other save.
        """
        if isinstance(exception, TrainingInterrupted) or not self._should_save_on_exception(trainer):
            return
        figures = self._monitor_candidates(trainer)
        with self._as_before_if_not_saved(trainer):
            path = self._get_metric_interpolated_filepath_name(figures, trainer)
            self._save_checkpoint(trainer, path)
            self._save_last_checkpoint(trainer, figures)
            if trainer.is_global_zero:
                say(f"Saved {path} at an error, {type(exception).__name__}.")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring the last checkpoint up to date; Lightning's writes it where there is none, and in a rehearsal too."""
        if not is_rehearsal(trainer):
            self._bring_last_up_to_date(trainer)

    @contextlib.contextmanager
    def _as_before_if_not_saved(self, trainer: L.Trainer) -> Iterator[None]:
        before = {name: getattr(self, name, None) for name in _RANKING} | {"best_k_models": dict(self.best_k_models)}
        try:
            yield
        except _NotSavedError:
            self._not_saved_at = trainer.global_step
            for name, value in before.items():
                setattr(self, name, value)


def _ends_epoch(trainer: L.Trainer) -> bool:
    """Whether an epoch ends after the validation at hand, its data being used up or the training over."""
    used_up = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    stops = trainer.should_stop and trainer.fit_loop._can_stop_early
    return used_up or stops or ends_training(trainer, trainer.global_step)
