"""Writing new tokens into the buffers of a cache: on a GPU in one launch.

Letters: B batch, N new positions, M cached positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_t6.ops.implementation import HAS_TRITON

MAX_BUFFERS = 6
"""Of one launch: the factors of keys and values, of third order."""


def append_tokens(buffers: Sequence[Tensor], new: Sequence[Tensor], lengths: Tensor) -> None:
    """Write new tokens behind the last of each row of each buffer.

    Args:
        buffers: each (B, M, …) of one or two axes more; written to.
        new: for each, (B, N, …), of any type.
        lengths: (B,) int64: tokens that each row holds; not changed. There must be room for N more.
    """
    if lengths.is_cuda and HAS_TRITON and len(buffers) <= MAX_BUFFERS:
        append_in_one_launch(list(buffers), list(new), lengths)
        return
    batch, num_new = new[0].shape[:2]
    rows = torch.arange(batch, device=lengths.device)[:, None]
    places = lengths[:, None] + torch.arange(num_new, device=lengths.device)
    for buffer, values in zip(buffers, new, strict=True):
        buffer[rows, places] = values.to(buffer.dtype)


@torch.library.custom_op("lit_t6::append_tokens", mutates_args=("buffers",))
def append_in_one_launch(buffers: list[Tensor], new: list[Tensor], lengths: Tensor) -> None:
    """`append_tokens` of at most `MAX_BUFFERS` buffers by a kernel."""
    from lit_t6.ops.kernels.append import _append_kernel  # needs Triton

    batch, num_new = new[0].shape[:2]
    arguments: list[Tensor | int] = []
    shapes = {}
    for number in range(MAX_BUFFERS):
        if number >= len(buffers):
            arguments += [lengths, 0, 0, lengths, 0]  # in the place of what is not there
            shapes[f"SHAPE{number}"] = (1, 1, 0, 0, 0)
            continue
        kept, values = (x if x.ndim == 4 else x.unsqueeze(2) for x in (buffers[number], new[number]))
        if values.stride(-1) != 1:
            values = values.contiguous()
        arguments += [values, values.stride(0), values.stride(1), kept, kept.stride(0)]
        shapes[f"SHAPE{number}"] = (*kept.shape[2:], values.stride(2), kept.stride(2), kept.stride(1))
    _append_kernel[(batch * num_new, len(buffers))](lengths, num_new, *arguments, **shapes, num_warps=4)


@append_in_one_launch.register_fake
def _(buffers, new, lengths):  # type: ignore[no-untyped-def]
    return None
