"""How ranks of data-parallel training (DDP) exchange gradients: no needless copies, over fast links all at once."""

import inspect
from collections.abc import Sequence
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
_PROBE_BYTES = 2**28
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
    """Sets up PyTorch's DistributedDataParallel before it is built; what the strategy was given holds.

    DDP exchanges gradients in buckets of 25 MiB while the backward pass goes on. On GPUs the exchange takes
    multiprocessors: products of matrices, laid out for all of them, then need another round. Where the link is fast
    (`FAST_LINK`, measured) all gradients are exchanged at once after the backward pass, where they lie, which is
    faster. Elsewhere the exchange takes longer than what it slows down, and stays beside it; also with a
    `bucket_cap_mb` or a `ddp_comm_hook` of the strategy's own.
    """

    def __init__(self) -> None:
        self._afterwards = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Choose, when ranks know each other and the model is not wrapped yet."""
        strategy = trainer.strategy
        self._afterwards = False
        if stage != "fit" or type(strategy) is not DDPStrategy:
            return
        given = strategy._ddp_kwargs
        names = {"broadcast_buffers", _BUFFERS}
        taken = names if names & given.keys() else set()
        strategy._ddp_kwargs = {name: value for name, value in _OPTIONS.items() if name not in taken} | given
        chosen = "bucket_cap_mb" in given or strategy._ddp_comm_hook is not None
        rate = None if chosen or trainer.world_size == 1 else exchange_rate(strategy.root_device)
        if rate is None:
            return
        self._afterwards = rate >= FAST_LINK
        when = "after the backward pass" if self._afterwards else "during the backward pass"
        if trainer.is_global_zero:
            say(f"gradients are exchanged {when}: {rate / 1e9:,.0f} GB/s between {trainer.world_size} GPUs")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The wrapped model leaves the exchange to this callback, as if every step but accumulated gradients."""
        if self._afterwards:
            assert trainer.strategy.model is not None
            trainer.strategy.model.require_backward_grad_sync = False

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The exchange, once an optimizer step, before losses' scales are taken out and norms are limited."""
        if self._afterwards and not trainer.fit_loop._should_accumulate():
            take_mean([p.grad for p in pl_module.parameters() if p.grad is not None])


def take_mean(gradients: Sequence[torch.Tensor]) -> None:
    """Each becomes its mean over all ranks, in one exchange and in place.

    Args:
        gradients: of this rank, in the same order on all.
    """
    # Gloo has sums only. NCCL takes parts of a whole as it adds.
    mean = dist.ReduceOp.AVG if dist.get_backend() == "nccl" else dist.ReduceOp.SUM
    with dist._coalescing_manager():
        for gradient in gradients:
            dist.all_reduce(gradient, mean)
    if mean == dist.ReduceOp.SUM:
        torch._foreach_div_(list(gradients), dist.get_world_size())


def exchange_rate(device: torch.device) -> float | None:
    """Bytes a second and direction at which sums over all ranks are formed; the same on every rank, which all call it.

    Of n ranks each sends 2 (n − 1) / n times what is summed, as rings do (the bus bandwidth of NCCL's tests).

    Args:
        device: of this rank; None is returned for a CPU, which has no link.
    """
    if device.type != "cuda":
        return None
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
