"""Cross-entropy of rows of logits by a kernel: what it can take, and what it is started with.

Letters: N rows, V vocabulary.
"""

import torch
from torch import Tensor
from triton import next_power_of_2

from lit_t6.ops.device import no_gpu
from lit_t6.ops.linear_cross_entropy.kernels.rows import _cross_entropy_kernel

_BLOCK = 8192
_NUMBERS_A_THREAD = 16


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernel cannot take logits of a device and a type, or None if it can."""
    if problem := no_gpu(device):
        return problem
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"logits of {dtype}, expected one of float32, float16, bfloat16"
    return None


def cross_entropy_by_kernel(
    logits: Tensor,
    targets: Tensor,
    ignore_index: int,
    scales: Tensor | None,
    factor: float,
    backward: bool,
    *,
    vocabulary: int,
) -> Tensor:
    """As `cross_entropy_of_rows`; a target that is none of the V gives NaN.

    Args:
        logits: (N, V or more), contiguous; what is behind V does not count, and has gradients of 0.
        targets: as there, and the next four alike.
        ignore_index: likewise.
        scales: likewise.
        factor: likewise.
        backward: likewise.
        vocabulary: V.
    """
    assert logits.is_contiguous(), "the kernel writes into rows that lie one after the other"
    num_rows, columns = logits.shape
    losses = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    block = min(_BLOCK, next_power_of_2(columns))
    _cross_entropy_kernel[(num_rows,)](
        logits,
        targets.contiguous(),
        losses if scales is None else scales.contiguous(),
        losses,
        vocabulary,
        columns,
        ignore_index,
        FACTOR=factor,
        BACKWARD=backward,
        SCALED=scales is not None,
        BLOCK=block,
        num_warps=max(1, block // _NUMBERS_A_THREAD // 32),
    )
    return losses
