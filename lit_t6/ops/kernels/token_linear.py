"""Products of a matrix with a few tokens, with what stands before and after them in a layer.

Letters: N tokens, K numbers of a token that goes in, O of one that comes out. A program takes a few rows of the matrix,
whole, and holds them while it computes token after token.
"""

import triton
import triton.language as tl

from lit_t6.ops.kernels.parts import _let_next_start, _start_early, _wait_for_last


@triton.jit
def _load_token(x_ptr, offs_k, IN: tl.constexpr, EPS: tl.constexpr):
    """One token in float32, and what scales it: one over its root mean square, if EPS is none below zero."""
    x = tl.load(x_ptr + offs_k, mask=offs_k < IN, other=0.0).to(tl.float32)
    return x, tl.rsqrt(tl.sum(x * x, axis=0) / IN + EPS) if EPS >= 0 else 1.0


@triton.jit
def _token_norm_kernel(
    x_ptr,  # (N, K) contiguous
    out_ptr,  # likewise
    IN: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EARLY: tl.constexpr,
):
    _start_early(EARLY)
    offs_k = tl.arange(0, BLOCK_K)
    place = tl.program_id(0) * IN
    x, scale = _load_token(x_ptr + place, offs_k, IN, EPS)
    tl.store(out_ptr + place + offs_k, (x * scale).to(out_ptr.dtype.element_ty), mask=offs_k < IN)


@triton.jit
def _token_linear_kernel(
    x_ptr,  # (N, K) contiguous
    weight_ptr,  # (O, K) contiguous; if GATED (2·O, K), gates first
    residual_ptr,  # (N, O) contiguous; unused unless RESIDUAL
    out_ptr,  # (N, O) contiguous
    NUM_TOKENS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    EPS: tl.constexpr,  # of the norm before, or -1 for none
    GATED: tl.constexpr,  # SiLU of the gates times the values
    RESIDUAL: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EARLY: tl.constexpr,
):
    _let_next_start(EARLY)
    offs_o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    offs_k = tl.arange(0, BLOCK_K)
    mask_o = offs_o < OUT
    mask = mask_o[:, None] & (offs_k < IN)[None, :]
    place = weight_ptr + offs_o.to(tl.int64)[:, None] * IN + offs_k[None, :]
    # Weights are nobody's result: they are on their way while the kernel before this one still runs.
    weight = tl.load(place, mask=mask, other=0.0)
    if GATED:
        values = tl.load(place + OUT * IN, mask=mask, other=0.0)
    _wait_for_last(EARLY)
    for n in tl.static_range(NUM_TOKENS):
        x, scale = _load_token(x_ptr + n * IN, offs_k, IN, EPS)
        y = tl.sum(weight.to(tl.float32) * x[None, :], axis=1) * scale
        if GATED:
            y = y * tl.sigmoid(y) * (tl.sum(values.to(tl.float32) * x[None, :], axis=1) * scale)
        if RESIDUAL:
            y += tl.load(residual_ptr + n * OUT + offs_o, mask=mask_o, other=0.0).to(tl.float32)
        tl.store(out_ptr + n * OUT + offs_o, y.to(out_ptr.dtype.element_ty), mask=mask_o)
