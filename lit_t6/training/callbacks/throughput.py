"""Speed, memory and progress, logged beside the loss."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_t6.model import T6Config

Mark = float | torch.cuda.Event

PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12}
"""Dense bfloat16 matrix rate of a GPU in FLOP/s, by a part of its name; the first that fits counts."""


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 peak of a device in FLOP/s, or None where it is not known (a CPU, say)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def cache_bytes_per_token(config: T6Config, precision: str) -> int:
    """What decoding keeps of a token over all layers, in the type that activations have at this precision.

    Args:
        config: of the model, its head count known.
        precision: of the trainer, such as "bf16-mixed" or "32-true".
    """
    number = 2 if "16" in precision else 8 if "64" in precision else 4
    return config.attention.cache_numbers_per_token() * config.num_layers * number


@dataclass
class Record:
    """What a logging step has to say, its numbers perhaps still being computed.

    Args:
        step: as loggers count: optimizer steps from 0.
        total_tokens: trained on up to here.
        values: by tag; tensors of one number, or numbers.
        spans: beginnings and ends of the time since the last record.
        ready: after which the values are there.
        steps: optimizer steps in that time.
        tokens: in that time, over all ranks.
        seq_len: tokens of a sequence.
    """

    step: int
    total_tokens: int
    values: dict[str, Tensor | float]
    spans: list[tuple[Mark, Mark]]
    ready: Mark
    steps: int
    tokens: int
    seq_len: int


class Throughput(Callback):
    """Logs the figures of a step at the trainer's logging interval, speed and memory among them.

    Beside those that the module leaves in `step_figures` (`train/loss`, `optim/grad_norm`): `perf/tokens_per_sec` over
    all ranks; `perf/step_ms` of an optimizer step; `perf/mfu` on GPUs of the table: our own FLOP formula, three times
    `T6Config.flops_per_token`, over the dense bfloat16 peak; `memory/peak_gib` of training on this rank's GPU, or of
    the process on a CPU; `optim/lr` of the step; `progress/tokens` trained on so far; and once `cache/bytes_per_token`,
    in the type that activations have. Rates are means since the last time; validation and saving after it are left out.

    A GPU is never made to wait: what it has still to compute is written when the next step's work is queued.

    Args:
        config: of the model that trains, its head count known.
    """

    def __init__(self, config: T6Config) -> None:
        self.config = config
        self._total_tokens = self._last_step = 0
        self._saved_tokens = 0  # up to the last whole step
        self._lr = 0.0
        self._pending: Record | None = None
        self.latest: dict[str, float] = {}
        """What was logged last, and the `step` that it belongs to."""
        self.listeners: list[Callable[[Record, dict[str, float]], None]] = []
        """Called with every record and its values."""
        self._restart()

    @property
    def total_tokens(self) -> int:
        """Tokens trained on so far, over all ranks."""
        return self._total_tokens

    def _restart(self) -> None:
        self._steps = self._tokens = 0
        self._spans: list[tuple[Mark, Mark]] = []
        self._running_since: Mark | None = None

    def pause(self, device: torch.device) -> None:
        """Leave out of the rates what is done from here to the next batch, saving a checkpoint for one."""
        self._pause(device)

    def _pause(self, device: torch.device) -> Mark:
        now = mark(device)
        if self._running_since is not None:
            self._spans.append((self._running_since, now))
            self._running_since = None
        return now

    def state_dict(self) -> dict[str, Any]:
        return {"tokens": self._saved_tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._total_tokens = self._saved_tokens = state_dict["tokens"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # A run that is resumed from here computes nothing before again: its points must be on the disk.
        self._write(trainer)
        for logger in trainer.loggers:
            logger.save()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()
        self._pending, self.latest = None, {}
        self._last_step = trainer.global_step
        reset_peak(pl_module.device)
        cached = cache_bytes_per_token(self.config, str(trainer.precision))
        for logger in trainer.loggers:
            logger.log_metrics({"cache/bytes_per_token": cached}, step=0)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._running_since is None:
            self._running_since = mark(pl_module.device)
            if not self._spans:  # what callbacks did at a validation is not of the training
                reset_peak(pl_module.device)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._lr = optimizer.param_groups[0]["lr"]  # of this step; the schedule moves on before the batch ends
        self._write(trainer)  # forward and backward of this step are queued, so that nothing stands still meanwhile

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        tokens = batch["tokens"].numel() * trainer.world_size
        self._tokens += tokens
        self._total_tokens += tokens
        if trainer.global_step == self._last_step:  # in the middle of gradient accumulation
            return
        self._last_step, self._saved_tokens = trainer.global_step, self._total_tokens
        self._steps += 1
        if is_logging_step(trainer, trainer.global_step):
            now = self._pause(pl_module.device)
            self._pending = self._record(trainer, pl_module, batch["tokens"].shape[1])
            self._restart()
            self._running_since = now  # fetching the next batch is a part of its step

    def _record(self, trainer: L.Trainer, pl_module: L.LightningModule, seq_len: int) -> Record:
        values: dict[str, Tensor | float] = {
            "optim/lr": self._lr,
            "progress/tokens": float(self._total_tokens),
            "memory/peak_gib": peak_memory(pl_module.device) / 2**30,
        }
        for tag, figure in getattr(pl_module, "step_figures", {}).items():
            values[tag] = figure.detach().to("cpu", non_blocking=True)
        ready = mark(pl_module.device)
        return Record(
            logged_step(trainer), self._total_tokens, values, self._spans, ready, self._steps, self._tokens, seq_len
        )

    def _write(self, trainer: L.Trainer) -> None:
        """Log what is pending, once it is computed."""
        record, self._pending = self._pending, None
        if record is None:
            return
        if isinstance(record.ready, torch.cuda.Event):
            record.ready.synchronize()
        seconds = sum(seconds_between(*span) for span in record.spans)
        rate = record.tokens / seconds
        values = {tag: float(value) for tag, value in record.values.items()}
        values |= {"perf/tokens_per_sec": rate, "perf/step_ms": 1000 * seconds / record.steps}
        peak = peak_flops(trainer.strategy.root_device)
        if peak is not None:
            values["perf/mfu"] = rate * 3 * self.config.flops_per_token(record.seq_len) / (peak * trainer.world_size)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=record.step)
        self.latest = {**values, "step": record.step}
        for listener in self.listeners:
            listener(record, values)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pause(pl_module.device)
        self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SystemExit):  # after another error a GPU may not answer
            self._write(trainer)


def ends_training(trainer: L.Trainer, step: int) -> bool:
    """Whether training ends with optimizer step number `step`, counted from 1, while its last batch is at work."""
    by_steps = 0 < trainer.max_steps <= step
    by_epochs = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    return by_steps or (by_epochs and bool(trainer.is_last_batch))


def is_logging_step(trainer: L.Trainer, step: int) -> bool:
    """Whether the trainer writes to its loggers after optimizer step number `step`, counted from 1.

    Besides the multiples of its interval that is the last step, since it is validated.
    """
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set outside of Trainer's own class
    return interval > 0 and (step % interval == 0 or ends_training(trainer, step))


def logged_step(trainer: L.Trainer) -> int:
    """The number under which Lightning logs the optimizer step done last, and a validation after it: counted from 0."""
    return max(0, trainer.global_step - 1)


def mark(device: torch.device) -> Mark:
    """A point in time: on a GPU, when it has done what is queued so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds_between(begin: Mark, end: Mark) -> float:
    """Time between two marks, which a GPU must have passed."""
    if isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return begin.elapsed_time(end) / 1000
    assert isinstance(begin, float)
    assert isinstance(end, float)
    return end - begin


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU since `reset_peak`; of the whole process, since its start, on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak(device: torch.device) -> None:
    """Let `peak_memory` of a GPU start from what is there now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
