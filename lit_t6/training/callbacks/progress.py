"""A progress bar over the whole training, with loss, tokens a second and the time left."""

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lit_t6.training.callbacks.throughput import Throughput, ends_training
from lit_t6.training.callbacks.validation_figures import describe
from lit_t6.training.messages import say


class TrainingProgress(ProgressBar):
    """Shows how far training, validation, testing or prediction is.

    In a terminal it is a bar; elsewhere, as in a log file, a line of text now and then, and one for every validation
    but the last, whose figures the command says when all is done.

    Args:
        seconds_between_lines: at least so long passes between two lines where there is no terminal.
    """

    def __init__(self, seconds_between_lines: float = 30.0) -> None:
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self._progress: Progress | None = None
        self._training: TaskID | None = None
        self._evaluating: TaskID | None = None
        self._enabled = True
        self._terminal = sys.stdout.isatty()  # asked now, since the bar itself stands in for stdout later
        self._last_line = float("-inf")
        self._last_step = self._last_printed = 0
        self._validated: float | None = None  # the last val/loss
        self.told_at = -1
        """The step of the last validation that had a line of its own."""
        self._first: tuple[float, int] | None = None  # time and step from which the speed is measured

    def disable(self) -> None:
        """Show nothing from here on: another rank does."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._enabled:
            self._console().print(*args, **kwargs)

    def _console(self) -> Console:
        return self._progress.console if self._progress else Console(soft_wrap=True)

    @property
    def _draws(self) -> bool:
        return self._enabled and self._terminal

    def _start(self) -> Progress:
        if self._progress is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(), speed_estimate_period=300)
            self._progress.start()
        return self._progress

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._training = self._evaluating = None

    # Training.

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._first = self._validated = None
        self.told_at = -1
        self._last_step = self._last_printed = trainer.global_step
        if self._draws:
            progress = self._start()
            total = self._total_steps(trainer)
            self._training = progress.add_task("training", total=total, completed=trainer.global_step, figures="")

    @staticmethod
    def _total_steps(trainer: L.Trainer) -> int | None:
        if trainer.max_steps > 0:
            return trainer.max_steps
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            return None
        return trainer.max_epochs * int(trainer.num_training_batches) // trainer.accumulate_grad_batches

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        step = trainer.global_step
        if not self._enabled or step == self._last_step:  # in the middle of gradient accumulation
            return
        self._last_step = step
        if self._first is None:  # the first step compiles, so that it tells nothing of the others
            self._first = (time.monotonic(), step)
        if self._progress is not None and self._training is not None:
            self._progress.update(self._training, completed=step, figures=self._figures(trainer))
        else:
            self._print_line(trainer)

    def _print_line(self, trainer: L.Trainer) -> None:
        step = int(_latest(trainer).get("step", -1)) + 1
        if step > self._last_printed and time.monotonic() - self._last_line >= self.seconds_between_lines:
            self._last_line, self._last_printed = time.monotonic(), step
            total = self._total_steps(trainer)
            time_left = self._time_left(trainer.global_step, total)
            say(f"step {self._step_of(trainer, step)}  {self._figures(trainer)}{time_left}")

    def _step_of(self, trainer: L.Trainer, step: int) -> str:
        total = self._total_steps(trainer)
        return f"{step:,} of {total:,}" if total else f"{step:,}"

    def _print_validation(self, trainer: L.Trainer) -> None:
        step, figures = trainer.global_step, describe(trainer.callback_metrics)
        ends = ends_training(trainer, step) or (trainer.should_stop and trainer.fit_loop._can_stop_early)
        if figures and not ends:
            self.told_at = step
            say(f"validation at step {self._step_of(trainer, step)}: {figures}")

    def _time_left(self, step: int, total: int | None) -> str:
        assert self._first is not None
        since, first = self._first
        if total is None or step <= first:
            return ""
        seconds = (total - step) * (time.monotonic() - since) / (step - first)
        hours, minutes = divmod(round(seconds / 60), 60)
        return (
            f"  about {f'{hours} h ' if hours else ''}{minutes} min left" if seconds >= 60 else "  under a minute left"
        )

    def _figures(self, trainer: L.Trainer) -> str:
        """What was logged last, in words; nothing here waits for a GPU."""
        latest = _latest(trainer)
        parts = [f"loss {latest['train/loss']:.4f}"] if "train/loss" in latest else []
        parts += [f"val {self._validated:.4f}"] if self._validated is not None else []
        parts += [f"{latest['perf/tokens_per_sec']:,.0f} tokens/s"] if latest else []
        return "  ".join(parts)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._stop()

    # Evaluation: validation within a training too.

    def _begin_evaluation(self, name: str, batches: list[int | float] | int | float) -> None:
        if self._draws:
            total = sum(batches) if isinstance(batches, list) else batches
            self._evaluating = self._start().add_task(name, total=total, figures="")

    def _advance(self) -> None:
        if self._progress is not None and self._evaluating is not None:
            self._progress.advance(self._evaluating)

    def _end_evaluation(self) -> None:
        if self._progress is not None and self._evaluating is not None:
            self._progress.remove_task(self._evaluating)
            self._evaluating = None
        if self._training is None:
            self._stop()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._begin_evaluation("validation", trainer.num_val_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._advance()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking and "val/loss" in trainer.callback_metrics:
            self._validated = float(trainer.callback_metrics["val/loss"])
        if self._progress is not None and self._training is not None:
            self._progress.update(self._training, figures=self._figures(trainer))
        elif self._enabled and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._print_validation(trainer)
        self._end_evaluation()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin_evaluation("test", trainer.num_test_batches)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._advance()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end_evaluation()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin_evaluation("prediction", trainer.num_predict_batches)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._advance()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end_evaluation()


def _latest(trainer: L.Trainer) -> dict[str, float]:
    """What the trainer's Throughput logged last."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of its class
    return next((callback.latest for callback in callbacks if isinstance(callback, Throughput)), {})
