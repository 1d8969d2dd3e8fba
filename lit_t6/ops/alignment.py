"""Where rows may begin in memory."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_t6.ops.token_linear import takes, token_linear

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


COLUMNS = 64
"""Matrix products on a GPU are fastest when each size is a multiple of this."""


def padding(size: int, x: Tensor) -> int:
    """By how much a size of weights is worth filling up with zeros, before they multiply x (…, C).

    GPU libraries take slow kernels for rows that are no multiples of 16 bytes. Filling up copies the weights, which
    pays for many tokens only: in training.
    """
    if not x.is_cuda or not torch.is_grad_enabled() or size * 2 % ALIGNMENT == 0:
        return 0
    half = x.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled("cuda")
    return -size % COLUMNS if half else 0


def is_plain(*layers: nn.Module) -> bool:
    """Whether nobody has put something in the place of linear layers, or looks at what goes through them."""
    return all(type(x) is nn.Linear and x.bias is None and is_unwatched(x) for x in layers)


def is_unwatched(module: nn.Module) -> bool:
    """Whether a call of a module is what its class computes, and nothing else: no hooks, no other `forward`."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" not in vars(module) and not any(getattr(module, name) for name in hooks)


class AlignedLinear(nn.Linear):
    """nn.Linear whose rows of results lie at aligned places where that pays (`padding`); quick for few tokens."""

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None and takes(x, self.weight):
            return token_linear(x, self.weight)
        fill = padding(self.out_features, x)
        if not fill:
            return F.linear(x, self.weight, self.bias)
        assert self.bias is None
        return F.linear(x, F.pad(self.weight, (0, 0, 0, fill)))[..., : self.out_features]
