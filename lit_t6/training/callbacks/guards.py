"""Watches every optimizer step: one that is not finite is not taken, a leap of the loss is written down."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.optim import Optimizer

from lit_t6.data import TokenDataModule
from lit_t6.training.callbacks.step_notes import StepNotes
from lit_t6.training.callbacks.throughput import Mark, mark
from lit_t6.training.callbacks.validation_figures import warn_if_not_finite
from lit_t6.training.checkpoint_choice import newest_whole, of_run, steps_done
from lit_t6.training.checkpoint_files import FOLDER
from lit_t6.training.places import folder_of

_MEMORY = 0.98
"""Share of the running mean and variance that stays at each step: they are of the last 50 steps or so."""
_STEPS_TO_KNOW = 20
"""Losses to have seen before one is called a spike."""


@dataclass
class Step:
    """An optimizer step whose figures may still be computed.

    Args:
        number: counted from 1.
        figures: loss, norm of the gradient, and 1 if the step was not taken; on the CPU once `ready`.
        losses: of this rank's batches, on its device.
        samples: of each rank, of each of its batches, the first and last global sample index; empty for other data.
        schedules: the learning-rate schedules as they were before it.
        ready: when the figures are there.
    """

    number: int
    figures: Tensor
    losses: Tensor
    samples: list[list[list[int]]]
    schedules: list[dict[str, Any]]
    ready: Mark


class Guards(Callback):
    """Keeps a loss or gradient that is not finite away from the weights, and logs leaps of the loss.

    A step whose loss, on any rank, or whose gradient norm is not finite is not taken: weights and optimizer stay bit by
    bit as they were. Then training stops, or, if it is to skip, goes on with the next batch; the learning-rate schedule
    stays where it is too. Both are written into guards.jsonl in the run's folder, with the samples of the step, and
    skipped steps are a curve, `guards/skipped_steps`. A loss far above its running mean is written down likewise
    (`guards/spikes`); nothing else happens. A validation whose loss is not finite is warned of.

    No step waits for the GPU: a fused AdamW leaves weights alone by a flag on the GPU, and the figures are read when
    the next step's forward and backward are queued. Another optimizer waits for the flag. It costs a norm of the
    gradient at every step, which clipping takes in any case, and, with several ranks, a sum of three numbers.

    With precision 16-mixed an infinite gradient under a finite loss is nothing unusual: the scaler skips the step and
    halves its scale until float16 can hold the gradient. Such a step is written down and is a curve
    (`guards/overflows`), the schedule stays, and training goes on, whatever `on_nonfinite` says; but if it happens
    step after step, a smaller scale is no remedy, and training stops.

    Args:
        on_nonfinite: "stop" ends the training with an error, "skip" goes on without the step.
        max_skips: stop when more steps than this are skipped one after another.
        max_overflows: 16-mixed: stop when the gradients of more steps than this, one after another, were infinite. The
            scale starts at 2^16; after 30 halvings a gradient that is still infinite is so by itself.
        spike_sigma: a loss is a spike that many standard deviations above the running mean; 0 looks for none.

    Raises:
        ValueError: a negative number, or an unknown word.
    """

    def __init__(
        self,
        on_nonfinite: Literal["stop", "skip"] = "stop",
        max_skips: int = 10,
        spike_sigma: float = 6.0,
        max_overflows: int = 30,
    ) -> None:
        if on_nonfinite not in ("stop", "skip"):
            raise ValueError(f"guards.on_nonfinite must be 'stop' or 'skip', got {on_nonfinite!r}.")
        if max_skips < 0 or spike_sigma < 0 or max_overflows < 0:
            raise ValueError(
                f"guards: expected max_skips >= 0, spike_sigma >= 0 and max_overflows >= 0, got {max_skips}, "
                f"{spike_sigma} and {max_overflows}."
            )
        self.on_nonfinite, self.max_skips, self.spike_sigma = on_nonfinite, max_skips, spike_sigma
        self.max_overflows = max_overflows
        self._trainer: L.Trainer | None = None
        self._pending: Step | None = None
        self._notes = StepNotes(None)
        self._counts = dict.fromkeys(("skipped", "in_a_row", "overflows", "overflows_in_a_row", "spikes", "seen"), 0)
        self._mean = self._variance = 0.0

    # What is kept.

    def state_dict(self) -> dict[str, Any]:
        self._settle()  # the schedule, which is saved next, may have to be put back
        return {**self._counts, "mean": self._mean, "variance": self._variance}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._counts = {name: state_dict.get(name, 0) for name in self._counts}
        self._mean, self._variance = state_dict["mean"], state_dict["variance"]

    # When figures are read: as late as they are needed.

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trainer, self._pending = trainer, None
        self._notes = StepNotes(folder_of(trainer) if trainer.is_global_zero else None)
        self._notes.forget_after(trainer.global_step)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        self._settle()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._settle()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._trainer is not None and not trainer.sanity_checking:
            warn_if_not_finite(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._settle()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._trainer = self._pending = None

    def inspect(self, optimizer: Optimizer, losses: Tensor, norm: Tensor) -> None:
        """Look at a step that is about to be taken, its gradient complete; the module calls this.

        Args:
            optimizer: that takes it.
            losses: of this rank's batches, (batches,).
            norm: of the whole gradient, before it was clipped.
        """
        trainer = self._trainer
        if trainer is None:
            return
        scaler, ranks = _scaler(trainer), trainer.world_size
        loss = losses.float().mean()
        bad = ~loss.isfinite() if scaler is not None else ~(loss.isfinite() & norm.isfinite())
        # Divided by a number and here: a tensor of divisors would be copied to the GPU, and the copy waits for it.
        figures = torch.stack((loss / ranks, norm.float() / ranks, bad.float()))
        if ranks > 1:
            torch.distributed.all_reduce(figures)
            bad = figures[2] > 0
        if scaler is None and getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # the fused kernel asks for it
        elif bad.item():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        data = getattr(trainer, "datamodule", None)
        self._pending = Step(
            trainer.global_step + 1,
            figures.to("cpu", non_blocking=True),
            losses,
            data.samples_of_step() if isinstance(data, TokenDataModule) else [],
            [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            mark(losses.device),
        )

    def _settle(self) -> None:
        """Read the figures of the last step, and do what follows from them."""
        step, self._pending = self._pending, None
        if step is None or self._trainer is None:
            return
        if isinstance(step.ready, torch.cuda.Event):
            step.ready.synchronize()
        loss, norm, bad = step.figures.tolist()
        if bad:
            self._refuse(self._trainer, step, loss, norm)
        elif not math.isfinite(norm):  # only a scaler lets that pass; it has skipped the step
            self._note_overflow(self._trainer, step, loss, norm)
        else:
            self._counts["in_a_row"] = self._counts["overflows_in_a_row"] = 0
            self._look_for_spike(self._trainer, step, loss)

    # Steps that are not taken.

    def _refuse(self, trainer: L.Trainer, step: Step, loss: float, norm: float) -> None:
        losses: list[list[float]] = (
            trainer.strategy.all_gather(step.losses.float()).cpu().view(trainer.world_size, -1).tolist()
        )
        self._counts["skipped"] += 1
        self._counts["in_a_row"] += 1
        stops = self.on_nonfinite == "stop" or self._counts["in_a_row"] > self.max_skips
        self._put_schedules_back(trainer, step)
        figures = {"loss": loss, "grad_norm": norm, "losses": losses}
        self._write(trainer, step, "stopped" if stops else "skipped", figures)
        self._log(trainer, step, "guards/skipped_steps", self._counts["skipped"])
        if stops:
            times = self._counts["in_a_row"]
            limit = f" (guards.max_skips={self.max_skips})"
            several = f"; {times} steps in a row were not finite{limit}" if times > 1 else ""
            self._stop(trainer, step, f"loss {loss:g}, gradient norm {norm:g}", several, "--guards.on_nonfinite skip")

    def _note_overflow(self, trainer: L.Trainer, step: Step, loss: float, norm: float) -> None:
        self._counts["overflows"] += 1
        self._counts["overflows_in_a_row"] += 1
        times, scale = self._counts["overflows_in_a_row"], _scaler(trainer).get_scale()
        stops = times > self.max_overflows
        self._put_schedules_back(trainer, step)
        figures = {"loss": loss, "grad_norm": norm, "scale": scale}
        self._write(trainer, step, "stopped" if stops else "overflow", figures)
        self._log(trainer, step, "guards/overflows", self._counts["overflows"])
        if stops:
            limit = f" (guards.max_overflows={self.max_overflows})"
            several = f"; {times} steps in a row were not taken{limit}, the scale of the loss fell to {scale:g}"
            self._stop(trainer, step, f"loss {loss:g}, infinite gradient", several, "--trainer.precision bf16-mixed")

    def _put_schedules_back(self, trainer: L.Trainer, step: Step) -> None:
        for config, state in zip(trainer.lr_scheduler_configs, step.schedules, strict=True):
            config.scheduler.load_state_dict(state)
            for group, rate in zip(config.scheduler.optimizer.param_groups, state["_last_lr"], strict=True):
                group["lr"] = rate

    def _stop(self, trainer: L.Trainer, step: Step, what: str, several: str, remedy: str) -> NoReturn:
        """End the training on all ranks, once the first has found out where it can be taken up."""
        message = self._explain(trainer, step, what, several, remedy) if trainer.is_global_zero else ""
        raise ValueError(trainer.strategy.broadcast(message))

    def _explain(self, trainer: L.Trainer, step: Step, what: str, several: str, remedy: str) -> str:
        samples = f", on samples {_first_and_last(step.samples)}" if step.samples else ""
        noted = f" Details are in {self._notes.path}." if self._notes.path is not None else ""
        last = _newest_checkpoint(trainer, step.number)
        go_on = f"Go on with --ckpt_path {last} and" if last else "No checkpoint is there yet: start again with"
        look = " Look at these samples first." if samples else ""
        return (
            f"step {step.number}: {what}{samples}{several}. The step was not taken.{noted}{look} {go_on} a smaller "
            f"--model.optimizer.lr, more warmup_steps, or {remedy}."
        )

    # Spikes.

    def _look_for_spike(self, trainer: L.Trainer, step: Step, loss: float) -> None:
        if not self.spike_sigma or not math.isfinite(loss):
            return
        deviation = math.sqrt(self._variance)
        if self._counts["seen"] >= _STEPS_TO_KNOW and loss > self._mean + self.spike_sigma * deviation:
            self._counts["spikes"] += 1
            self._write(trainer, step, "spike", {"loss": loss, "mean": self._mean, "deviation": deviation})
            self._log(trainer, step, "guards/spikes", self._counts["spikes"])
        self._counts["seen"] += 1
        keep = min(_MEMORY, 1 - 1 / self._counts["seen"])  # at first the plain mean of all
        difference = loss - self._mean
        self._mean += (1 - keep) * difference
        self._variance = keep * (self._variance + (1 - keep) * difference**2)

    # Where it is written.

    def _write(self, trainer: L.Trainer, step: Step, what: str, figures: dict[str, Any]) -> None:
        about = {"samples": step.samples, "windows": _windows(trainer, step)}
        self._notes.add({"step": step.number, "what": what, **figures, **about})

    @staticmethod
    def _log(trainer: L.Trainer, step: Step, tag: str, value: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({tag: value}, step=step.number - 1)
            logger.save()


def _first_and_last(samples: list[list[list[int]]]) -> str:
    """Of every rank: "64 … 79"."""
    ranks = [f"{batches[0][0]} … {batches[-1][1]}" for batches in samples]
    return ranks[0] if len(ranks) == 1 else ", ".join(f"{text} (rank {rank})" for rank, text in enumerate(ranks))


def _windows(trainer: L.Trainer, step: Step) -> list[int]:
    """The windows of the training split that the step's samples are, rank by rank."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, TokenDataModule):
        return []
    samples = [n for batches in step.samples for first, last in batches for n in range(first, last + 1)]
    return data.windows_of_samples(samples)


def _scaler(trainer: L.Trainer) -> Any:
    """What scales the loss of float16, if anything does."""
    return getattr(trainer.precision_plugin, "scaler", None)


def _newest_checkpoint(trainer: L.Trainer, step: int) -> Path | None:
    """The newest whole checkpoint of this run; one of a later step is of another course that the run once took."""
    run = folder_of(trainer)
    folders = {run / "checkpoints", run / "checkpoints" / FOLDER} if run is not None else set()
    folders |= {Path(s.dirpath) for s in trainer.checkpoint_callbacks if isinstance(s, ModelCheckpoint) and s.dirpath}
    paths = {path for folder in folders for path in folder.glob("*.ckpt")}
    paths = paths if run is None else of_run(run, paths)
    return newest_whole(path for path in paths if steps_done(path) <= step)[0]
