"""Linear layers for the few tokens of a decoding step: what they read is their weights, and then nothing should wait.

Letters: N tokens, K numbers of a token that goes in, O of one that comes out.
"""

import torch
from torch import Tensor, nn

from lit_t6.ops.device import early_start, no_gpu
from lit_t6.ops.implementation import HAS_TRITON

MAX_TOKENS = 4
"""More share the weights better in a matrix product."""
MAX_SIZE = 8192
"""Numbers of a token that goes in: a program holds whole rows of the matrix."""
_NUMBERS = 16384
"""Numbers of the matrix that a program holds at most."""
_PROGRAMS = 256
"""Programs that a GPU has use for."""


def takes(x: Tensor, *weights: Tensor) -> bool:
    """Whether `token_linear` and `token_norm` are for these tokens, (…, K), and weights (…, K): on a GPU few tokens in
    half precision, without gradients.

    Weights must be parameters themselves: kernels read them while the one before still runs, so that nothing may have
    computed them just now, as parametrizations do; and tensors of other kinds, such as shards of a weight or 4-bit
    ones, are more than their numbers.
    """
    return (
        HAS_TRITON
        and type(x) is Tensor
        and x.dtype in (torch.float16, torch.bfloat16)
        and not torch.is_grad_enabled()
        and 0 < x.numel() <= MAX_TOKENS * x.shape[-1]
        and x.shape[-1] <= MAX_SIZE
        and no_gpu(x.device) is None
        and not torch.is_autocast_enabled(x.device.type)
        and all(
            type(w) is nn.Parameter and w.dtype == x.dtype and w.device == x.device and w.is_contiguous()
            for w in weights
        )
    )


def token_norm(x: Tensor, eps: float) -> Tensor:
    """RMSNorm without weights of tokens that `takes` agrees to, (…, K)."""
    return _token_norm(x.contiguous(), eps)


def token_linear(
    x: Tensor, weight: Tensor, *, eps: float | None = None, gated: bool = False, residual: Tensor | None = None
) -> Tensor:
    """X Wᵀ of tokens that `takes` agrees to, in one kernel with what stands before and after it.

    Args:
        x: (…, K).
        weight: W, (O, K); with `gated`, (2·O, K), gates first.
        eps: of an RMSNorm without weights of x, before; no norm if not given.
        gated: SiLU(gates) ⊙ values of the product (Shazeer, arXiv 2002.05202).
        residual: what is added to the result, (…, O).

    Returns:
        (…, O).
    """
    if residual is not None:
        residual = residual.contiguous()
    return _token_linear(x.contiguous(), weight, -1.0 if eps is None else eps, gated, residual)


@torch.library.custom_op("lit_t6::token_norm", mutates_args=())
def _token_norm(x: Tensor, eps: float) -> Tensor:
    from triton import next_power_of_2

    from lit_t6.ops.kernels.token_linear import _token_norm_kernel

    size = x.shape[-1]
    out = torch.empty_like(x)
    _token_norm_kernel[(x.numel() // size,)](
        x, out, IN=size, EPS=eps, BLOCK_K=next_power_of_2(size), num_warps=4, **early_start(x.device)
    )
    return out


@_token_norm.register_fake
def _(x, eps):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


@torch.library.custom_op("lit_t6::token_linear", mutates_args=())
def _token_linear(x: Tensor, weight: Tensor, eps: float, gated: bool, residual: Tensor | None) -> Tensor:
    from triton import cdiv, next_power_of_2

    from lit_t6.ops.kernels.token_linear import _token_linear_kernel

    size, rows = x.shape[-1], weight.shape[0] // (2 if gated else 1)
    block_k = next_power_of_2(size)
    most = max(1, _NUMBERS // block_k // (2 if gated else 1))
    block_o = min(most, max(1, next_power_of_2(rows // _PROGRAMS)))
    out = x.new_empty(*x.shape[:-1], rows)
    _token_linear_kernel[(cdiv(rows, block_o),)](
        x,
        weight,
        x if residual is None else residual,
        out,
        NUM_TOKENS=x.numel() // size,
        IN=size,
        OUT=rows,
        EPS=eps,
        GATED=gated,
        RESIDUAL=residual is not None,
        BLOCK_O=block_o,
        BLOCK_K=block_k,
        num_warps=4,
        **early_start(x.device),
    )
    return out


@_token_linear.register_fake
def _(x, weight, eps, gated, residual):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], weight.shape[0] // (2 if gated else 1))
