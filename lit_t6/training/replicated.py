"""Data-parallel training with whole weights on every rank (DDP): how gradients are exchanged."""

from typing import Any

from lightning.pytorch.strategies import DDPStrategy

_OPTIONS: dict[str, Any] = {
    # Gradients lie where they are exchanged, instead of being copied there and back.
    "gradient_as_bucket_view": True,
    # All buffers are tables of angles, the same on every rank from the start.
    "broadcast_buffers": False,
}


def spare_copies(strategy: DDPStrategy) -> None:
    """Options of PyTorch's DistributedDataParallel with which a step copies and sends no more than it must.

    Args:
        strategy: not set up yet; what its user has chosen holds.
    """
    strategy._ddp_kwargs = _OPTIONS | strategy._ddp_kwargs
