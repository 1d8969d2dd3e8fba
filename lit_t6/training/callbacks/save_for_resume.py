"""Checkpoints to go on from after a crash, by steps and by minutes."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from lit_t6.training.callbacks.loop_state import validation_follows
from lit_t6.training.callbacks.throughput import Throughput
from lit_t6.training.checkpoint_files import FOLDER
from lit_t6.training.checkpoint_io import save_checkpoint
from lit_t6.training.places import folder_of, is_rehearsal


class SaveForResume(Checkpoint):
    """Saves the whole state of a training, so that the same command goes on after a crash and little is lost.

    Files are `checkpoints/resume/step=N.ckpt` in the run's folder; none are written where there is no logger, and so no
    such folder. Independent of `--checkpoint.*`, which keeps the best models: it saves after an optimizer step; where
    a validation follows, after that, and not if a whole checkpoint was saved there. Training stands still meanwhile.

    It is a Checkpoint so that Lightning calls it after all others, whose state is saved with it; in a list of callbacks
    of your own it stands behind ModelCheckpoint.

    Args:
        every_n_steps: save after these many optimizer steps, at multiples of the number; 0 does not.
        every_n_minutes: save when this time has passed since the last time; 0 does not. The clock of rank 0 decides, to
            about a second.
        keep: how many of these files are kept, the newest; older ones are removed once the new one is on the disk.

    Raises:
        ValueError: a negative number, or `keep` below 1.
    """

    def __init__(self, every_n_steps: int = 0, every_n_minutes: float = 10.0, keep: int = 2) -> None:
        for name, value, least in (
            ("every_n_steps", every_n_steps, 0),
            ("every_n_minutes", every_n_minutes, 0),
            ("keep", keep, 1),
        ):
            if not least <= value < math.inf:
                raise ValueError(f"resume.{name}={value}: must be a finite number of at least {least}.")
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.keep = keep
        self.folder: Path | None = None
        self._due = False
        self._last_step = 0
        self._saved_at = self._asked_at = 0.0
        self._steps_to_ask = self._steps_since_asked = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        folder = folder_of(trainer)
        if stage == "fit" and folder is not None and not is_rehearsal(trainer):
            self.folder = trainer.strategy.broadcast(folder / "checkpoints" / FOLDER)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step = trainer.global_step
        self._due = False
        self._saved_at = self._asked_at = time.monotonic()
        self._steps_to_ask, self._steps_since_asked = 1, 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.folder is None or trainer.global_step == self._last_step:  # the second: gradients are accumulated
            return
        self._last_step = trainer.global_step
        by_steps = self.every_n_steps > 0 and trainer.global_step % self.every_n_steps == 0
        self._due |= self._is_time(trainer) or by_steps
        if self._due and not validation_follows(trainer):
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._due and not trainer.sanity_checking:
            self._save(trainer, pl_module)

    def _is_time(self, trainer: L.Trainer) -> bool:
        """Whether rank 0 says so.

        To agree is to wait for a GPU. So every answer brings the number of steps until the next question, half of the
        time that is left, and at least a second: a dozen questions in ten minutes, not one at every step.
        """
        if not self.every_n_minutes:
            return False
        self._steps_since_asked += 1
        if self._steps_since_asked < self._steps_to_ask:
            return False
        now = time.monotonic()
        left = self._saved_at + 60 * self.every_n_minutes - now
        pace = max(now - self._asked_at, 1e-6) / self._steps_since_asked
        is_time, self._steps_to_ask = trainer.strategy.broadcast((left <= 0, max(1, int(max(left / 2, 1.0) / pace))))
        self._asked_at, self._steps_since_asked = now, 0
        return is_time

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._due = False
        if not _is_saved(trainer):
            assert self.folder is not None
            for throughput in trainer.callbacks:  # type: ignore[attr-defined]  # set outside of its class
                if isinstance(throughput, Throughput):
                    throughput.pause(pl_module.device)
            if save_checkpoint(trainer, self.folder / f"step={trainer.global_step}.ckpt"):
                self._prune(trainer)
        self._saved_at = time.monotonic()

    def _prune(self, trainer: L.Trainer) -> None:
        """Leave the newest; later steps than this one are of another course of the run, which is not ours to remove."""
        assert self.folder is not None
        if trainer.is_global_zero:
            steps = {step_of_name(path): path for path in self.folder.glob("step=*.ckpt")}
            ours = sorted(step for step in steps if 0 <= step <= trainer.global_step)
            for step in ours[: -self.keep]:
                with contextlib.suppress(OSError):  # an old file more is no reason to stop
                    trainer.strategy.remove_checkpoint(steps[step])


def step_of_name(path: Path) -> int:
    """The step in a name such as step=300.ckpt, or -1."""
    number = path.stem.removeprefix("step=")
    return int(number) if number.isdecimal() else -1


def _is_saved(trainer: L.Trainer) -> bool:
    """Whether a ModelCheckpoint has saved the whole state at this step."""
    return any(
        isinstance(saver, ModelCheckpoint)
        and not saver.save_weights_only
        and saver._last_checkpoint_saved != ""
        and saver._last_global_step_saved == trainer.global_step
        for saver in trainer.checkpoint_callbacks
    )
