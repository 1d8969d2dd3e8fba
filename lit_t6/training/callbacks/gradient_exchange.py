"""How ranks of data-parallel training (DDP) exchange gradients: no needless copies, over fast links all at once."""

import inspect
import math
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from lit_t6.training.messages import say

FAST_LINK = 100e9
"""Bytes a second and direction from which gradients are exchanged after the backward pass. NVLink has 200 to 450 · 10⁹,
a PCI Express 5.0 slot 63 · 10⁹, networks less."""
_MEBIBYTE = 2**20
_PROBE_BYTES = 256 * _MEBIBYTE
_ROUNDS = 5

_BUFFERS = "forward_sync_buffers"
if _BUFFERS not in inspect.signature(DistributedDataParallel).parameters:
    _BUFFERS = "broadcast_buffers"  # its name before PyTorch 2.13
_OPTIONS: dict[str, Any] = {
    # Gradients lie where they are exchanged, instead of being copied there and back.
    "gradient_as_bucket_view": True,
    # All buffers are tables of angles, the same on every rank from the start.
    _BUFFERS: False,
}


class GradientExchange(Callback):
    """Options of PyTorch's DistributedDataParallel, before it is built; what the strategy was given holds.

    DDP exchanges gradients in buckets of 25 MiB while the backward pass goes on. On GPUs the exchange takes
    multiprocessors: products of matrices, laid out for all of them, then need another round. Where the link is fast
    (`FAST_LINK`, measured) one bucket for all gradients, after the backward pass, is faster. Elsewhere the exchange
    takes longer than what it slows down, and stays beside it.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Choose, when ranks know each other and the model is not wrapped yet."""
        strategy = trainer.strategy
        if stage != "fit" or type(strategy) is not DDPStrategy:
            return
        given = strategy._ddp_kwargs
        names = {"broadcast_buffers", _BUFFERS}
        taken = names if names & given.keys() else set()
        strategy._ddp_kwargs = {name: value for name, value in _OPTIONS.items() if name not in taken} | given
        if "bucket_cap_mb" in given or trainer.world_size == 1 or strategy.root_device.type != "cuda":
            return
        rate = exchange_rate(strategy.root_device)
        if rate >= FAST_LINK:
            strategy._ddp_kwargs |= one_bucket(pl_module)
        when = "after the backward pass" if rate >= FAST_LINK else "during the backward pass"
        if trainer.is_global_zero:
            say(f"gradients are exchanged {when}: {rate / 1e9:,.0f} GB/s between {trainer.world_size} GPUs")


def one_bucket(module: torch.nn.Module) -> dict[str, Any]:
    """Options with which one bucket holds all gradients.

    Args:
        module: that trains.
    """
    gradients = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return {"bucket_cap_mb": math.ceil(gradients / _MEBIBYTE) + 1}


def exchange_rate(device: torch.device) -> float:
    """Bytes a second and direction at which sums over all ranks are formed; the same on every rank, which all call it.

    Of n ranks each sends 2 (n − 1) / n times what is summed, as rings do (the bus bandwidth of NCCL's tests).

    Args:
        device: of this rank, a GPU.
    """
    world_size = dist.get_world_size()
    probe = torch.zeros(_PROBE_BYTES // 4, device=device)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(2):  # the first one makes the connections
        dist.all_reduce(probe)
    begin.record()
    for _ in range(_ROUNDS):
        dist.all_reduce(probe)
    end.record()
    end.synchronize()
    sent = _ROUNDS * _PROBE_BYTES * 2 * (world_size - 1) / world_size
    slowest = torch.tensor(begin.elapsed_time(end) / 1000, device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return sent / slowest.item()
