"""Speed, memory and progress, logged beside the loss."""

import resource
import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from lit_t6.model import T6Config

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


class Throughput(Callback):
    """Logs speed, memory and progress at the trainer's logging interval, as means since the last time.

    `perf/tokens_per_sec` over all ranks; `perf/step_ms` of an optimizer step; `perf/mfu` on GPUs of the table: our own
    FLOP formula, three times `T6Config.flops_per_token`, over the dense bfloat16 peak; `memory/peak_gib` of training on
    this rank's GPU, or of the process on a CPU; `optim/lr` of the step; `progress/tokens` trained on so far; and once
    `cache/bytes_per_token`, in the type that activations have. Validation and saving after it are left out of the time.

    Args:
        config: of the model that trains, its head count known.
    """

    def __init__(self, config: T6Config) -> None:
        self.config = config
        self._total_tokens = self._last_step = 0
        self._lr = 0.0
        self.latest: dict[str, float] = {}
        """What was logged last."""
        self._restart()

    @property
    def total_tokens(self) -> int:
        """Tokens trained on so far, over all ranks."""
        return self._total_tokens

    def _restart(self) -> None:
        self._steps = self._tokens = 0
        self._seconds = 0.0
        self._running_since: float | None = None

    def _pause(self, device: torch.device) -> None:
        if self._running_since is not None:
            _synchronise(device)
            self._seconds += time.perf_counter() - self._running_since
            self._running_since = None

    def state_dict(self) -> dict[str, Any]:
        return {"tokens": self._total_tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._total_tokens = state_dict["tokens"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()
        self._last_step = trainer.global_step
        _reset_peak(pl_module.device)
        cached = cache_bytes_per_token(self.config, str(trainer.precision))
        for logger in trainer.loggers:
            logger.log_metrics({"cache/bytes_per_token": cached}, step=trainer.global_step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._running_since is None:
            _synchronise(pl_module.device)
            self._running_since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        tokens = batch["tokens"].numel() * trainer.world_size
        self._tokens += tokens
        self._total_tokens += tokens
        if trainer.global_step == self._last_step:  # in the middle of gradient accumulation
            return
        self._last_step = trainer.global_step
        self._steps += 1
        if is_logging_step(trainer, trainer.global_step):
            self._pause(pl_module.device)
            self._log(trainer, pl_module, batch["tokens"].shape[1])
            self._restart()
            self._running_since = time.perf_counter()  # fetching the next batch is a part of its step

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._lr = optimizer.param_groups[0]["lr"]  # of this step; the schedule moves on before the batch ends

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pause(pl_module.device)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _reset_peak(pl_module.device)

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule, seq_len: int) -> None:
        rate = self._tokens / self._seconds
        values = {
            "perf/tokens_per_sec": rate,
            "perf/step_ms": 1000 * self._seconds / self._steps,
            "optim/lr": self._lr,
            "progress/tokens": float(self._total_tokens),
        }
        values["memory/peak_gib"] = _peak_memory(pl_module.device) / 2**30
        peak = peak_flops(pl_module.device)
        if peak is not None:
            values["perf/mfu"] = rate * 3 * self.config.flops_per_token(seq_len) / (peak * trainer.world_size)
        self.latest = values
        pl_module.log_dict(values)


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


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU since `_reset_peak`; of the whole process, since its start, on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
