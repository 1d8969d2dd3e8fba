"""The specification: all logits at once."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]


def linear_cross_entropy_reference(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int = -100, reduction: Reduction = "mean"
) -> Tensor:
    """As `lit_t6.ops.linear_cross_entropy`."""
    logits = F.linear(hidden, weight).reshape(-1, weight.shape[0])
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    loss = F.cross_entropy(logits, targets.reshape(-1), ignore_index=ignore_index, reduction=reduction)
    return loss.view_as(targets) if reduction == "none" else loss
