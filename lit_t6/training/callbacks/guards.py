"""Watches every optimizer step: one that is not finite is not taken, a leap of the loss is written down."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.optim import Optimizer

from lit_t6.data import TokenDataModule
from lit_t6.training.callbacks.throughput import Mark, mark

FILE_NAME = "guards.jsonl"
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
    (`guards/spikes`); nothing else happens.

    No step waits for the GPU: a fused AdamW leaves weights alone by a flag on the GPU, and the figures are read when
    the next step's forward and backward are queued. Another optimizer waits for the flag. It costs a norm of the
    gradient at every step, which clipping takes in any case, and, with several ranks, a sum of three numbers. With
    precision 16-mixed an infinite gradient is the scaler's business, which skips the step and lowers its scale; here
    only the loss counts.

    Args:
        on_nonfinite: "stop" ends the training with an error, "skip" goes on without the step.
        max_skips: stop when more steps than this are skipped one after another.
        spike_sigma: a loss is a spike that many standard deviations above the running mean; 0 looks for none.

    Raises:
        ValueError: a negative number, or an unknown word.
    """

    def __init__(
        self, on_nonfinite: Literal["stop", "skip"] = "stop", max_skips: int = 10, spike_sigma: float = 6.0
    ) -> None:
        if on_nonfinite not in ("stop", "skip"):
            raise ValueError(f"guards.on_nonfinite must be 'stop' or 'skip', got {on_nonfinite!r}.")
        if max_skips < 0 or spike_sigma < 0:
            raise ValueError(
                f"guards: expected max_skips >= 0 and spike_sigma >= 0, got {max_skips} and {spike_sigma}."
            )
        self.on_nonfinite, self.max_skips, self.spike_sigma = on_nonfinite, max_skips, spike_sigma
        self._trainer: L.Trainer | None = None
        self._pending: Step | None = None
        self._counts = {"skipped": 0, "in_a_row": 0, "spikes": 0, "seen": 0}
        self._mean = self._variance = 0.0

    # What is kept.

    def state_dict(self) -> dict[str, Any]:
        self._settle()  # the schedule, which is saved next, may have to be put back
        return {**self._counts, "mean": self._mean, "variance": self._variance}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._counts = {name: state_dict[name] for name in self._counts}
        self._mean, self._variance = state_dict["mean"], state_dict["variance"]

    # When figures are read: as late as they are needed.

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trainer, self._pending = trainer, None
        path = self._path()
        if path is not None and path.exists():  # of steps that are computed again
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= trainer.global_step]
            path.write_text("".join(kept), encoding="utf-8")

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        self._settle()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._settle()

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
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        loss = losses.float().mean()
        bad = ~loss.isfinite() if scaler is not None else ~(loss.isfinite() & norm.isfinite())
        figures = torch.stack((loss, norm.float(), bad.float()))
        if trainer.world_size > 1:
            torch.distributed.all_reduce(figures)
            figures = figures / figures.new_tensor([trainer.world_size, trainer.world_size, 1.0])
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
        else:
            self._counts["in_a_row"] = 0
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
            raise ValueError(self._explain(trainer, step, loss, norm))

    def _put_schedules_back(self, trainer: L.Trainer, step: Step) -> None:
        for config, state in zip(trainer.lr_scheduler_configs, step.schedules, strict=True):
            config.scheduler.load_state_dict(state)
            for group, rate in zip(config.scheduler.optimizer.param_groups, state["_last_lr"], strict=True):
                group["lr"] = rate

    def _explain(self, trainer: L.Trainer, step: Step, loss: float, norm: float) -> str:
        times = self._counts["in_a_row"]
        several = f"; {times} steps in a row were not finite (guards.max_skips={self.max_skips})" if times > 1 else ""
        samples = f", on samples {_first_and_last(step.samples)}" if step.samples else ""
        path = self._path()
        noted = f" Details are in {path}." if path is not None else ""
        saver = trainer.checkpoint_callback
        last = (saver.last_model_path or saver.best_model_path) if isinstance(saver, ModelCheckpoint) else ""
        go_on = f"go on from {last} with" if last else "no checkpoint was written yet; start again with"
        return (
            f"step {step.number}: loss {loss:g}, gradient norm {norm:g}{samples}{several}. The step was not taken."
            f"{noted} Look at these samples, or {go_on} a smaller --model.optimizer.lr, more warmup_steps, or "
            f"--guards.on_nonfinite skip."
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

    def _path(self) -> Path | None:
        trainer = self._trainer
        if trainer is None or not trainer.is_global_zero or not trainer.loggers:
            return None
        folder = getattr(trainer.loggers[0], "log_dir", None) or trainer.loggers[0].save_dir
        return Path(folder) / FILE_NAME if folder else None

    def _write(self, trainer: L.Trainer, step: Step, what: str, figures: dict[str, Any]) -> None:
        path = self._path()
        if path is None:
            return
        entry = {
            "step": step.number,
            "what": what,
            **figures,
            "samples": step.samples,
            "windows": _windows(trainer, step),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

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
