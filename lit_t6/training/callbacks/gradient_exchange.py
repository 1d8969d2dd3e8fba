"""How ranks of data-parallel training (DDP) exchange gradients: no needless copies, over fast links all at once."""

import inspect
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.distributed_c10d import _coalescing_manager
from torch.nn.parallel import DistributedDataParallel

from lit_t6.training.messages import say

FAST_LINK = 100e9
"""Bytes a second and direction from which gradients are exchanged after the backward pass. NVLink has 200 to 450 · 10⁹,
a PCI Express 5.0 slot 63 · 10⁹, networks less."""
_PROBE_BYTES = 2**28
_ROUNDS = 5

_DDP_MUST_DO_IT = ("bucket_cap_mb", "find_unused_parameters", "static_graph", "process_group")
"""Options that mean something only where DDP itself exchanges gradients."""

_BUFFERS = "forward_sync_buffers"
if _BUFFERS not in inspect.signature(DistributedDataParallel).parameters:
    _BUFFERS = "broadcast_buffers"  # its name before PyTorch 2.13
_OPTIONS: dict[str, Any] = {
    # Gradients stay where DDP exchanges them, instead of being copied back.
    "gradient_as_bucket_view": True,
    # All buffers are tables of angles, the same on every rank from the start.
    _BUFFERS: False,
}


class GradientExchange(Callback):
    """Sets up PyTorch's DistributedDataParallel before it is built; what the strategy was given holds.

    DDP exchanges gradients in buckets of 25 MiB while the backward pass goes on. On GPUs the exchange takes
    multiprocessors: products of matrices, laid out for all of them, then need another round. Where the link is fast
    (`FAST_LINK`, measured) all gradients are exchanged at once after the backward pass, where they lie, which is
    faster; DDP's own buckets, as large as all gradients, then stay empty. Elsewhere the exchange takes longer than what
    it slows down, and stays beside it; also with a `ddp_comm_hook` of the strategy's own, or with options that DDP
    itself must see to (`bucket_cap_mb`, `find_unused_parameters`, `static_graph`, `process_group`).

    The exchange is this callback's `on_after_backward`: callbacks before it see gradients of their rank alone there.
    `on_before_optimizer_step` sees the mean in any case.
    """

    def __init__(self) -> None:
        self._after_backward = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Choose, when ranks know each other and the model is not wrapped yet.

        Raises:
            ValueError: `static_graph` with gradient accumulation.
        """
        strategy = trainer.strategy
        self._after_backward = False
        if stage != "fit" or type(strategy) is not DDPStrategy:
            return
        given = strategy._ddp_kwargs
        if given.get("static_graph") and trainer.accumulate_grad_batches > 1:
            raise ValueError(
                f"trainer.strategy.static_graph: PyTorch cannot have it with gradient accumulation, here over "
                f"{trainer.accumulate_grad_batches} batches; leave it out."
            )
        names = {"broadcast_buffers", _BUFFERS}
        taken = names if names & given.keys() else set()
        strategy._ddp_kwargs = {name: value for name, value in _OPTIONS.items() if name not in taken} | given
        chosen = any(given.get(name) for name in _DDP_MUST_DO_IT) or strategy._ddp_comm_hook is not None
        rate = None if chosen or trainer.world_size == 1 else exchange_rate(strategy.root_device)
        if rate is None:
            return
        self._after_backward = rate >= FAST_LINK
        when = "after the backward pass" if self._after_backward else "during the backward pass"
        if trainer.is_global_zero:
            say(f"gradients are exchanged {when}: {rate / 1e9:,.0f} GB/s between {trainer.world_size} GPUs")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The wrapped model exchanges nothing itself, as in DDP's `no_sync`."""
        if self._after_backward:
            model = trainer.strategy.model
            assert isinstance(model, DistributedDataParallel)
            model.require_backward_grad_sync = False

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The exchange, once an optimizer step, before losses' scales are taken out and norms are limited."""
        if self._after_backward and not trainer.fit_loop._should_accumulate():
            all_reduce_mean([p.grad for p in pl_module.parameters() if p.grad is not None])


def all_reduce_mean(gradients: Sequence[torch.Tensor]) -> None:
    """Each becomes its mean over all ranks, in place, in one exchange of all that are of the same type.

    Args:
        gradients: of this rank, as many and in the same order on all.
    """
    by_type: dict[torch.dtype, list[torch.Tensor]] = {}
    for gradient in gradients:
        by_type.setdefault(gradient.dtype, []).append(gradient)
    # Gloo has sums only. NCCL takes parts of a whole as it adds.
    mean = dist.ReduceOp.AVG if dist.get_backend() == "nccl" else dist.ReduceOp.SUM
    for alike in by_type.values():
        with _coalescing_manager():
            for gradient in alike:
                dist.all_reduce(gradient, mean)
        if mean == dist.ReduceOp.SUM:
            torch._foreach_div_(alike, dist.get_world_size())


def exchange_rate(device: torch.device) -> float | None:
    """Bytes a second and direction at which sums over all ranks are formed; the same on every rank, which all call it.

    None on CPUs, which have no link of their own.

    Of n ranks each sends 2 (n − 1) / n times what is summed, as rings do (the bus bandwidth of NCCL's tests).

    Args:
        device: of this rank.
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
