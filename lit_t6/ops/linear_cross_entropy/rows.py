"""Cross-entropy of rows of logits, and their gradient in the place of the logits, in plain PyTorch.

Letters: N rows, V vocabulary.
"""

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """In which softmax, losses and sums are computed: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def cross_entropy_of_rows(
    logits: Tensor,
    targets: Tensor,
    ignore_index: int,
    scales: Tensor | None,
    factor: float,
    backward: bool,
) -> Tensor:
    """Losses (N,), float32 at least, 0 where ignored.

    Args:
        logits: (N, V); overwritten: with `backward`, by scales · factor · (softmax − one-hot).
        targets: (N,) int64.
        ignore_index: the target that is not counted.
        scales: gradients of the losses (N,), in the type of the losses; 1 if not given.
        factor: of all gradients.
        backward: whether gradients are wanted.
    """
    counted = targets != ignore_index
    places = torch.where(counted, targets, 0)[:, None]
    x = logits.to(wide(logits.dtype))  # its own memory, or that of the logits
    x.sub_(x.amax(1, keepdim=True))
    chosen = x.gather(1, places)[:, 0]
    total = x.exp_().sum(1)
    losses = (total.log() - chosen).masked_fill_(~counted, 0)
    if backward:
        scale = torch.full_like(total, factor) if scales is None else scales * factor
        x.mul_((scale / total)[:, None])
        x.scatter_(1, places, x.gather(1, places) - scale[:, None])
        x.masked_fill_(~counted[:, None], 0)
        if x is not logits:
            logits.copy_(x)
    return losses
