"""The second half of a SwiGLU feed-forward by kernels, which keeps gates and values, and not their product.

Letters: C model width, F hidden features.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_t6.ops.device import no_gpu
from lit_t6.ops.implementation import HAS_TRITON

_BLOCK, _WARPS, _VECTOR = 1024, 4, 8
"""Features of a program, its warps, and features of a vector at most: 16 bytes in half precision."""
_SHORT = 2**31 - _BLOCK
"""So many vectors are counted by 32 bits, which are divided in less time."""


def swiglu_linear(both: Tensor, weight: Tensor) -> Tensor:
    """(SiLU(gates) ⊙ values) Wᵀ (Shazeer, arXiv 2002.05202); the product is made again on the way back.

    That saves F numbers of a token in memory, and the compiler's several kernels are two. There are no second
    derivatives on a GPU.

    Args:
        both: gates and values, (…, 2·F), of a floating type.
        weight: W, (C, F), of the same type.

    Returns:
        (…, C).
    """
    if not HAS_TRITON or no_gpu(both.device) or both.dtype == torch.float64:
        gate, value = both.chunk(2, dim=-1)
        return F.linear(F.silu(gate) * value, weight)
    device = both.device.type
    if torch.is_autocast_enabled(device):  # whose rules would reach into the operator
        both, weight = (x.to(torch.get_autocast_dtype(device)) for x in (both, weight))
    rows = both.reshape(both.shape[:-1].numel(), both.shape[-1])
    return _swiglu_linear(rows, weight).view(*both.shape[:-1], weight.shape[0])


def _launch(kernel: str, both: Tensor, *tensors: Tensor) -> None:
    from triton import cdiv

    from lit_t6.ops.kernels import swiglu

    num_tokens, width = both.shape[0], both.shape[1] // 2
    size, vector = num_tokens * width, math.gcd(width, _VECTOR)
    if size:
        shape = (_BLOCK, vector, size // vector > _SHORT)
        getattr(swiglu, kernel)[(cdiv(size, _BLOCK),)](both, *tensors, size, width, SHAPE=shape, num_warps=_WARPS)


@torch.library.custom_op("lit_t6::swiglu_linear", mutates_args=())
def _swiglu_linear(both: Tensor, weight: Tensor) -> Tensor:
    both = both.contiguous()
    hidden = both.new_empty(both.shape[0], both.shape[1] // 2)
    _launch("_swiglu_fwd_kernel", both, hidden)
    return F.linear(hidden, weight)


@_swiglu_linear.register_fake
def _(both, weight):  # type: ignore[no-untyped-def]
    return both.new_empty(both.shape[0], weight.shape[0])


@torch.library.custom_op("lit_t6::swiglu_linear_backward", mutates_args=())
def _swiglu_linear_backward(grad: Tensor, both: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    both = both.contiguous()
    hidden, of_both = grad @ weight, torch.empty_like(both)
    _launch("_swiglu_bwd_kernel", both, hidden, of_both)
    return of_both, grad.T @ hidden


@_swiglu_linear_backward.register_fake
def _(grad, both, weight):  # type: ignore[no-untyped-def]
    return torch.empty_like(both, memory_format=torch.contiguous_format), torch.empty_like(weight)


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _back(ctx, grad):  # type: ignore[no-untyped-def]
    return _swiglu_linear_backward(grad, *ctx.saved_tensors)


_swiglu_linear.register_autograd(_back, setup_context=_keep)
