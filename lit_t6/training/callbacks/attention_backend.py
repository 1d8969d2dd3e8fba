"""Which of PyTorch's fused kernels attention takes: the same on every rank, and told."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lit_t6.data import TokenDataModule
from lit_t6.model import T6Config
from lit_t6.ops import fused
from lit_t6.training.callbacks.text_page import add_text, as_code
from lit_t6.training.messages import say


class AttentionBackend(Callback):
    """Has all ranks take the same backend, and tells after the first step what was measured, if anything was.

    Args:
        config: of the model, its head count known.
    """

    def __init__(self, config: T6Config) -> None:
        self.config = config
        self._told = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Agree before anything is attended to: later, a rank may have no batch where others have one."""
        self._told = False
        attention, dtype = self.config.attention, _dtype(str(trainer.precision))
        several = trainer.world_size > 1 and torch.distributed.is_initialized()
        device = trainer.strategy.root_device
        one_only = dtype == torch.float32 or device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
        if stage != "fit" or not several or one_only:
            return
        data = getattr(trainer, "datamodule", None)
        batch, length = (data.batch_size, data.seq_len) if isinstance(data, TokenDataModule) else (1, None)
        length = length or self.config.max_seq_len
        fused.agree((batch, length, attention.heads(), attention.head_dim), dtype, device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._told:
            return
        self._told = True
        lines = [f"attention, {choice}" for choice in fused.choices()]
        if not lines or not trainer.is_global_zero:
            return
        for line in lines:
            say(line)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                add_text(logger.experiment, "run/attention", as_code("\n".join(lines)))


def _dtype(precision: str) -> torch.dtype:
    """Of queries, keys and values at a precision of the trainer's."""
    if "bf16" in precision:
        return torch.bfloat16
    return torch.float16 if "16" in precision else torch.float32
