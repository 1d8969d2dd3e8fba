"""Callbacks for the command line, with which a training meets its end at a step."""

import os
import signal

import torch
from lightning.pytorch.callbacks import Callback


class GetsSigterm(Callback):
    """The process gets a SIGTERM in a step.

    Args:
        step: counted from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


class Fails(Callback):
    """Raises a ValueError in a step.

    Args:
        step: counted from 1.
        ranks: on which.
    """

    def __init__(self, step: int, ranks: list[int]) -> None:
        self.step, self.ranks = step, ranks

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step - 1 and trainer.global_rank in self.ranks:
            raise ValueError(f"rank {trainer.global_rank} fails")


class FailsBeforeTheFirstStep(Callback):
    """Raises a ValueError when all is ready."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        raise ValueError("not a single step")


class FailsAmongPeers(Callback):
    """Rank 0 raises a ValueError in a step, and leaves a collective behind that the others will never answer.

    Args:
        step: counted from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_start(self, trainer, pl_module):
        self.group = torch.distributed.new_group(backend="gloo")

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step - 1 and trainer.is_global_zero:
            torch.distributed.all_reduce(torch.ones(3), group=self.group, async_op=True)
            raise ValueError("rank 0 fails")
