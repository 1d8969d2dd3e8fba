"""SIGINT, SIGTERM or SLURM's warning ends a training after the step at hand, with a checkpoint."""

import atexit
import itertools
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lit_t6.training.callbacks.agreement import Agreement
from lit_t6.training.callbacks.loop_state import validation_follows
from lit_t6.training.callbacks.slurm import requeue_job
from lit_t6.training.callbacks.throughput import ends_training
from lit_t6.training.callbacks.unheard_presses import UnheardPresses
from lit_t6.training.checkpoint_io import save_checkpoint
from lit_t6.training.messages import say
from lit_t6.training.places import is_rehearsal

EXIT_SAVED = 75
"""Exit status after a signal and the checkpoint that followed it: EX_TEMPFAIL of sysexits.h, "try again later"."""

_STOP, _STOP_AND_REQUEUE = 1, 2


class TrainingInterrupted(SystemExit):
    """A signal ended the training; `code` is 75 if a checkpoint was saved, else 128 + the signal's number.

    Not a KeyboardInterrupt, which Lightning turns into status 1 on its way.
    """


class SaveOnInterrupt(Checkpoint):
    """At a signal, training finishes its step, saves its `last.ckpt` and ends the process with status 75.

    The signals are SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and the one that Lightning's SLURM plugin was told to listen to. A
    validation that is running or follows the step is done first. Before the first step there is nothing to save: the
    process ends at once with 128 + the signal's number, or, where it goes on from a checkpoint, with 75, since that is
    there. After the last step the training finishes, with status 0. A second SIGINT stops at once, with 130, unless the
    checkpoint is written by then, also in a call that takes minutes (`UnheardPresses`); other signals may come more
    than once, as schedulers send them.

    Where several processes train, a signal to any of them stops all, at most two steps later, with one checkpoint; also
    before the first step after a checkpoint: a process that went alone would leave the others waiting.
    Where the SLURM plugin is to requeue the job (`auto_requeue`), that is asked for after the save. Its own handlers,
    which would save a second checkpoint in the middle of a step, are not installed.

    It is a Checkpoint so that Lightning calls it after all others, whose state is saved with it.

    Args:
        same_command: whether the command that started the training goes on with it when typed again; said at the end.
        ends_process: whether the process ends with the training. Once that is saved, no further signal then changes its
            status. Else the signals do again what they did before when `Trainer.fit` has ended, also where a program
            catches the SystemExit; one that comes after that is the program's own, and may end it with another status.
        goes_on_from: the checkpoint that the training begins with, if it is known before the trainer has read it.
    """

    def __init__(
        self, same_command: bool = True, ends_process: bool = False, goes_on_from: str | Path | None = None
    ) -> None:
        self.same_command, self.ends_process, self.goes_on_from = same_command, ends_process, goes_on_from
        self._before: dict[int, Any] = {}
        self._unheard: UnheardPresses | None = None
        self._agreement: Agreement | None = None
        self._begin()

    def _begin(self) -> None:
        """Nothing has come yet; also where one training after another has this callback."""
        self.interrupted = False
        self._requeue = self._requeue_at_end = False
        self._pressed = 0  # how often SIGINT came
        self._last_step = 0
        self._stepped = False  # there is something to save
        self._over = False  # the last step is done, or the checkpoint saved
        self.saved = False
        """Whether a signal ended the training and its checkpoint is there."""
        self._agreed = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or threading.current_thread() is not threading.main_thread():
            return
        self._begin()
        self._trainer = trainer
        trainer._signal_connector = _NoHandlers(trainer, self)
        # Asks at every step, with a wait for the GPU, whether rank 0 got a SIGTERM: we ask on the CPU, and every rank.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
        numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
        environment = trainer._accelerator_connector.cluster_environment
        self._requeue_at: int | None = None
        if isinstance(environment, SLURMEnvironment) and environment.requeue_signal is not None:
            numbers.add(environment.requeue_signal)
            self._requeue_at = environment.requeue_signal if environment.auto_requeue else None
        self._pid, self._speaks = os.getpid(), trainer.is_global_zero
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        self._unheard = UnheardPresses(lambda: self._pressed, self._say, lambda: not self.saved)
        # A signal while the interpreter shuts down, or waits for other processes, does not change the outcome.
        for number in numbers - {signal.SIGINT}:
            atexit.register(signal.signal, number, signal.SIG_IGN)
        atexit.register(self._ignore_ctrl_c)

    def _ignore_ctrl_c(self) -> None:
        """Once the outcome is known: in its last moments Python has SIGINT kill the process, or print a traceback."""
        if self.ends_process and (self.saved or self._pressed > 1):
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step = trainer.global_step
        self._agreement = Agreement(trainer.world_size)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a loader's process that was just forked; its parent decides
            return
        self._pressed += number == signal.SIGINT
        if self.saved:  # the process is about to end with the status that says so
            return
        if self._pressed > 1 and number == signal.SIGINT:
            self._say("Stopped at once by a second Ctrl-C: what came after the last checkpoint is lost.")
            raise TrainingInterrupted(128 + number)
        if self._over:
            return
        if not self._stepped and not self.interrupted:
            self._stop_before_first_step(number)
        self._requeue |= number == self._requeue_at
        if not self.interrupted:
            saves = isinstance(self._trainer.checkpoint_callback, ModelCheckpoint)
            how = ", with a checkpoint" if saves else ""
            self._say(f"Stopping after this step{how}; Ctrl-C stops at once if it comes a second time.")
        self.interrupted = True

    def _stop_before_first_step(self, number: int) -> None:
        """Stop at once, unless there are peers, who go on from the same checkpoint: then all stop after a step."""
        name = signal.Signals(number).name
        checkpoint = self._trainer.ckpt_path or self.goes_on_from
        if checkpoint is None:
            self._say(f"Stopped by {name} before the first step: nothing to save.")
            raise TrainingInterrupted(128 + number)
        if self._trainer.world_size == 1:
            self._over = self.saved = True
            self._requeue_at_end = number == self._requeue_at
            goes_on = "the same command" if self.same_command else "the same --ckpt_path"
            self._say(f"Stopped by {name} before the first new step: {checkpoint} is there; {goes_on} goes on.")
            raise TrainingInterrupted(EXIT_SAVED)

    def _say(self, text: str) -> None:
        if self._speaks:
            with suppress(OSError):  # not print: the signal may have come in the middle of one
                os.write(1, f"\n{text}\n".encode())

    def _wish(self) -> int:
        return _STOP_AND_REQUEUE if self._requeue else _STOP if self.interrupted else 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped, self._last_step = trainer.global_step != self._last_step, trainer.global_step
        if not stepped or self._agreement is None:
            return
        self._stepped = True
        self._agreed = max(self._agreed, self._agreement.ask(self._wish()))
        if ends_training(trainer, trainer.global_step):
            self._over = True
        elif self._agreed and not validation_follows(trainer):
            self._save_and_stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or self._agreement is None:
            return
        self._agreed = max(self._agreed, self._agreement.settle(self._wish()))
        if self._agreed and not self._over and not trainer.should_stop:
            self._save_and_stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._over = True
        if self._agreement is not None:
            self._agreement.close()
            self._agreement = None

    def _save_and_stop(self, trainer: L.Trainer) -> None:
        saver, step = trainer.checkpoint_callback, f"{trainer.global_step:,}"
        if not isinstance(saver, ModelCheckpoint) or saver.dirpath is None or is_rehearsal(trainer):
            self._say(f"Stopped after step {step}; nothing is saved: checkpoints are turned off.")
            raise TrainingInterrupted(128 + signal.SIGTERM)
        saver.last_model_path = saver.last_model_path or _free_name(saver, trainer)
        saved = save_checkpoint(trainer, saver.last_model_path)
        self._over, self.saved = True, saved
        if not saved:
            self._say(f"Stopped after step {step}; it could not be saved: the checkpoint before it is the last.")
            raise TrainingInterrupted(128 + signal.SIGTERM)
        if trainer.is_global_zero:
            goes_on = "the same command" if self.same_command else f"--ckpt_path {saver.last_model_path}"
            say(f"Saved {saver.last_model_path} after step {step}; {goes_on} goes on.")
            if self._agreed == _STOP_AND_REQUEUE:
                requeue_job()
        raise TrainingInterrupted(EXIT_SAVED)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.hand_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self._requeue_at_end and self._speaks:
            requeue_job()
        if not self.saved:  # else as late as may be, at the end of Trainer.fit
            self.hand_back()

    def hand_back(self) -> None:
        """Let the signals do again what they did before the training, unless it is saved and the process ends with it.

        A second SIGTERM would kill a process that is about to end with the status that says so.
        """
        if self.saved and self.ends_process:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._unheard is not None:
            self._unheard.close()
            self._unheard = None


def _free_name(saver: ModelCheckpoint, trainer: L.Trainer) -> str:
    """A name for the last checkpoint that is not taken: another run may save into the same folder."""
    numbers = itertools.count(saver.STARTING_VERSION)
    path = saver.format_checkpoint_name({}, saver.CHECKPOINT_NAME_LAST)
    while saver.file_exists(path, trainer):  # asks rank 0
        path = saver.format_checkpoint_name({}, saver.CHECKPOINT_NAME_LAST, ver=next(numbers))
    return path


class _NoHandlers(_SignalConnector):
    """In the place of Lightning's handlers.

    Those pass SIGTERM on to the other processes, who may have got it already, and start a collective inside of the
    handler, between whatever collectives the processes are in.
    """

    def __init__(self, trainer: L.Trainer, callback: SaveOnInterrupt) -> None:
        super().__init__(trainer)
        self._callback = callback

    def register_signal_handlers(self) -> None:
        """Nothing."""

    def teardown(self) -> None:
        """Hand back what a training that was saved still keeps: an exception goes its way after this."""
        if self._callback.saved:
            self._callback.hand_back()


def _nothing() -> None:
    pass
