"""Kernels that make heads of factors, (1/R) Σ_r a_r ⊗ b_r, and take their gradients back to the factors.

Letters: B batch, T tokens, R rank, H heads, D head size, P rotated features. A program makes BLOCK_T tokens, one after
the other, all heads of each: a few rows are read, H·D numbers written. Sums are in float32 and rounded once.
"""

import triton
import triton.language as tl


@triton.jit
def _angles(cos_ptr, sin_ptr, batch, token, table_stride_b, offs_d, ROTATED: tl.constexpr):
    """Cosines and sines of features, 1 and 0 of those that do not turn; their partners; whether they are the first."""
    HALF: tl.constexpr = ROTATED // 2
    first = offs_d < HALF
    turns = offs_d < ROTATED
    partner = tl.where(first, offs_d + HALF, tl.where(turns, offs_d - HALF, offs_d))
    place = batch * table_stride_b + token * HALF + offs_d % HALF
    cos = tl.load(cos_ptr + place, mask=turns, other=1.0)
    sin = tl.load(sin_ptr + place, mask=turns, other=0.0)
    return cos, sin, partner, first


@triton.jit
def _tpa_heads_fwd_kernel(
    a_ptr,  # (B, T, R, H), the last axis contiguous
    b_ptr,  # (B, T, R, D), likewise
    cos_ptr,  # (T, P / 2) or (B, T, P / 2) float32, contiguous
    sin_ptr,
    out_ptr,  # (B, T, H, D) contiguous
    num_all,  # B·T
    num_tokens,  # T
    a_stride_b,
    a_stride_t,
    a_stride_r,
    b_stride_b,
    b_stride_t,
    b_stride_r,
    table_stride_b,  # 0 if all rows of the batch stand at the same positions
    RANK: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    ROTATED: tl.constexpr,  # P, or 0
    BLOCK_T: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    offs_h = tl.arange(0, BLOCK_H)
    offs_d = tl.arange(0, BLOCK_D)
    for number in range(BLOCK_T):
        at = tl.program_id(0).to(tl.int64) * BLOCK_T + number
        live = at < num_all
        mask_h = offs_h < tl.where(live, NUM_HEADS, 0)
        mask_d = offs_d < tl.where(live, SIZE, 0)
        batch, token = at // num_tokens, at % num_tokens
        rows_a = a_ptr + batch * a_stride_b + token * a_stride_t
        rows_b = b_ptr + batch * b_stride_b + token * b_stride_t
        heads = tl.zeros((BLOCK_H, BLOCK_D), tl.float32)
        if ROTATED:
            last = tl.minimum(at, num_all - 1)
            cos, sin, partner, first = _angles(
                cos_ptr, sin_ptr, last // num_tokens, last % num_tokens, table_stride_b, offs_d, ROTATED
            )
            sin = tl.where(first, sin, -sin)
        for r in tl.static_range(RANK):
            a = tl.load(rows_a + r * a_stride_r + offs_h, mask=mask_h, other=0.0).to(tl.float32)
            b = tl.load(rows_b + r * b_stride_r + offs_d, mask=mask_d, other=0.0).to(tl.float32)
            if ROTATED:
                b = b * cos + tl.load(rows_b + r * b_stride_r + partner, mask=mask_d, other=0.0).to(tl.float32) * sin
            heads += a[:, None] * b[None, :]
        place = at * (NUM_HEADS * SIZE) + offs_h[:, None] * SIZE + offs_d[None, :]
        tl.store(out_ptr + place, (heads / RANK).to(out_ptr.dtype.element_ty), mask=mask_h[:, None] & mask_d[None, :])


@triton.jit
def _tpa_heads_bwd_kernel(
    grad_ptr,  # of the heads, (B, T, H, D), the last axis contiguous
    a_ptr,
    b_ptr,
    cos_ptr,
    sin_ptr,
    grad_a_ptr,  # (B, T, R, H) contiguous
    grad_b_ptr,  # (B, T, R, D) contiguous
    num_all,
    num_tokens,
    grad_stride_b,
    grad_stride_t,
    grad_stride_h,
    a_stride_b,
    a_stride_t,
    a_stride_r,
    b_stride_b,
    b_stride_t,
    b_stride_r,
    table_stride_b,
    RANK: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    ROTATED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Arguments as of the way forward. Turning is linear: the gradient is turned back once, and meets unturned b."""
    offs_h = tl.arange(0, BLOCK_H)
    offs_d = tl.arange(0, BLOCK_D)
    for number in range(BLOCK_T):
        at = tl.program_id(0).to(tl.int64) * BLOCK_T + number
        live = at < num_all
        mask_h = offs_h < tl.where(live, NUM_HEADS, 0)
        mask_d = offs_d < tl.where(live, SIZE, 0)
        mask = mask_h[:, None] & mask_d[None, :]
        batch, token = at // num_tokens, at % num_tokens
        rows = grad_ptr + batch * grad_stride_b + token * grad_stride_t + offs_h[:, None] * grad_stride_h
        grad = tl.load(rows + offs_d[None, :], mask=mask, other=0.0).to(tl.float32)
        if ROTATED:
            last = tl.minimum(at, num_all - 1)
            cos, sin, partner, first = _angles(
                cos_ptr, sin_ptr, last // num_tokens, last % num_tokens, table_stride_b, offs_d, ROTATED
            )
            sin = tl.where(first, -sin, sin)
            other = tl.load(rows + partner[None, :], mask=mask, other=0.0).to(tl.float32)
            grad = grad * cos[None, :] + other * sin[None, :]
        grad = grad / RANK
        rows_a = a_ptr + batch * a_stride_b + token * a_stride_t
        rows_b = b_ptr + batch * b_stride_b + token * b_stride_t
        for r in tl.static_range(RANK):
            a = tl.load(rows_a + r * a_stride_r + offs_h, mask=mask_h, other=0.0).to(tl.float32)
            b = tl.load(rows_b + r * b_stride_r + offs_d, mask=mask_d, other=0.0).to(tl.float32)
            grad_a = tl.sum(grad * b[None, :], axis=1)
            grad_b = tl.sum(grad * a[:, None], axis=0)
            to_a = grad_a_ptr + (at * RANK + r) * NUM_HEADS + offs_h
            to_b = grad_b_ptr + (at * RANK + r) * SIZE + offs_d
            tl.store(to_a, grad_a.to(grad_a_ptr.dtype.element_ty), mask=mask_h)
            tl.store(to_b, grad_b.to(grad_b_ptr.dtype.element_ty), mask=mask_d)
