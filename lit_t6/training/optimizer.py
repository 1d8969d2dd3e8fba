"""AdamW and its schedule: linear warm-up, then a cosine to a minimum rate (paper appendix H.1)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class OptimizerConfig:
    """Optimizer and learning-rate schedule.

    Args:
        lr: highest learning rate, reached at the end of the warm-up.
        min_lr: rate that the cosine ends at; at most lr.
        warmup_steps: optimizer steps of the linear warm-up from 0.
        decay_steps: optimizer step at which the cosine ends; null takes the trainer's last step.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: on matrices only (weights of two or more dimensions).

    Raises:
        ValueError: a rate or a number of steps out of range.
    """

    lr: float = 6e-4
    min_lr: float = 3e-5
    warmup_steps: int = 2000
    decay_steps: int | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        self.betas = (self.betas[0], self.betas[1])
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"optimizer: expected 0 <= min_lr <= lr, got min_lr={self.min_lr} and lr={self.lr}.")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer: warmup_steps must be at least 0, got {self.warmup_steps}.")
        if self.decay_steps is not None and self.decay_steps < 1:
            raise ValueError(f"optimizer: decay_steps must be at least 1 or null, got {self.decay_steps}.")

    def build(self, parameters: Iterable[nn.Parameter], *, fused: bool = True) -> AdamW:
        """AdamW over `parameters`; in one fused kernel, if asked for, where their device has it."""
        trained = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        fused = fused and all(p.device.type in ("cuda", "cpu") for p in trained)
        return AdamW(
            [group for group in groups if group["params"]], lr=self.lr, betas=self.betas, eps=self.eps, fused=fused
        )

    def schedule(self, optimizer: torch.optim.Optimizer, last_step: int) -> LambdaLR:
        """The schedule, to be stepped once an optimizer step; its cosine ends at `last_step`."""
        return LambdaLR(optimizer, lambda step: self.rate(step, last_step) / self.lr if self.lr else 0.0)

    def rate(self, step: int, decay_steps: int) -> float:
        """Learning rate of the optimizer step number `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, decay_steps - self.warmup_steps)
        return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))
