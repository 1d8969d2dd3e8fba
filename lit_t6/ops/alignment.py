"""Where rows may begin in memory."""

import torch
from torch import Tensor

ALIGNMENT = 16
"""Bytes. GPU kernels, PyTorch's fused ones and ours, read rows in pieces of this size."""


def aligned(x: Tensor) -> Tensor:
    """The tensor itself, or a packed copy if its rows do not begin at multiples of `ALIGNMENT`.

    A slice of a wider matrix may have such rows. The fused kernels of PyTorch 2.11 then compute something else, and say
    nothing: in bfloat16 on an H100, keys and values cut out of rows of 196 numbers came out wrong by their own size.
    """
    # A compiler does not tell where a slice begins; slices before it are likely to be as wide as itself.
    begin = x.shape[-1] if torch.compiler.is_compiling() else x.storage_offset()
    starts = (begin, *x.stride()[:-1])
    return x if all(start * x.itemsize % ALIGNMENT == 0 for start in starts) else x.contiguous()
