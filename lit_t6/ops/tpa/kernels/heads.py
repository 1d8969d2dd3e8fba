"""Kernels that make heads of factors, (1/R) Σ_r a_r ⊗ b_r, and take their gradients back to the factors.

Letters: B batch, T tokens, R rank, H heads, D head size. A program makes BLOCK_T tokens, all heads of each, by one
small matrix product a token: (H × R)(R × D) on the way forward, (R × H)(H × D) and (R × D)(D × H) on the way back. Sums
are in float32 and rounded once.

RoPE turns pairs (i, i + D/2): the two halves of the features are two tiles, so that turning is arithmetic between
tiles. Turning is linear: on the way back, the gradient of b is turned back after the sum over heads, when it is small.
"""

import triton
import triton.language as tl


@triton.jit
def _tokens(num_all, num_tokens, BLOCK_T: tl.constexpr):
    """Of a program's tokens (BLOCK_T,): numbers among all, whether they are there, rows of the batch, places."""
    at = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    there = at < num_all
    return at, there, at // num_tokens, at % num_tokens


@triton.jit
def _load_rows(ptr, start, there, stride_r, offs, RANK: tl.constexpr, SIZE: tl.constexpr, BLOCK_R: tl.constexpr):
    """(BLOCK_T, R, ·) of a factor, from `start` (BLOCK_T,) of each token."""
    offs_r = tl.arange(0, BLOCK_R)
    mask = there[:, None, None] & (offs_r < RANK)[None, :, None] & (offs < SIZE)[None, None, :]
    place = start[:, None, None] + offs_r.to(tl.int64)[None, :, None] * stride_r + offs[None, None, :]
    return tl.load(ptr + place, mask=mask, other=0.0)


@triton.jit
def _load_angles(ptr, batch, token, there, table_stride_b, offs, HALF: tl.constexpr):
    """(BLOCK_T, 1, HALF) of a table of cosines or sines."""
    place = batch * table_stride_b + token * HALF
    mask = there[:, None, None] & (offs < HALF)[None, None, :]
    return tl.load(ptr + place[:, None, None] + offs[None, None, :], mask=mask, other=0.0)


@triton.jit
def _store_heads(
    ptr, at, there, offs_h, offs, heads, shift, NUM_HEADS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr
):
    """Write (BLOCK_T, H, WIDTH) to heads (B, T, H, SIZE), contiguous, from feature `shift` on."""
    place = at[:, None, None] * (NUM_HEADS * SIZE) + offs_h[None, :, None] * SIZE + offs[None, None, :] + shift
    mask = there[:, None, None] & (offs_h < NUM_HEADS)[None, :, None] & (offs < WIDTH)[None, None, :]
    tl.store(ptr + place, heads.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def _store_rows(
    ptr,
    at,
    there,
    offs,
    rows,
    shift,
    RANK: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Write (BLOCK_T, R, WIDTH) to rows (B, T, R, SIZE), contiguous, from `shift` on."""
    offs_r = tl.arange(0, BLOCK_R)
    place = at[:, None, None] * (RANK * SIZE) + offs_r[None, :, None] * SIZE + offs[None, None, :] + shift
    mask = there[:, None, None] & (offs_r < RANK)[None, :, None] & (offs < WIDTH)[None, None, :]
    tl.store(ptr + place, rows.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def _tpa_heads_fwd_kernel(
    a_ptr,  # (B, T, R, H), the last axis contiguous
    b_ptr,  # (B, T, R, D), likewise
    cos_ptr,  # (T, D / 2) or (B, T, D / 2) float32, contiguous
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
    ROTATED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,  # of all features, or if ROTATED of half of them
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    at, there, batch, token = _tokens(num_all, num_tokens, BLOCK_T)
    offs_h = tl.arange(0, BLOCK_H)
    offs = tl.arange(0, BLOCK_D)
    start_b = batch * b_stride_b + token * b_stride_t
    a = _load_rows(a_ptr, batch * a_stride_b + token * a_stride_t, there, a_stride_r, offs_h, RANK, NUM_HEADS, BLOCK_R)
    WIDTH: tl.constexpr = SIZE // 2 if ROTATED else SIZE
    b1 = _load_rows(b_ptr, start_b, there, b_stride_r, offs, RANK, WIDTH, BLOCK_R)
    if ROTATED:
        b2 = _load_rows(b_ptr, start_b + WIDTH, there, b_stride_r, offs, RANK, WIDTH, BLOCK_R)
        cos = _load_angles(cos_ptr, batch, token, there, table_stride_b, offs, WIDTH)
        sin = _load_angles(sin_ptr, batch, token, there, table_stride_b, offs, WIDTH)
        x1, x2 = b1.to(tl.float32), b2.to(tl.float32)
        b1, b2 = (x1 * cos + x2 * sin).to(a.dtype), (x2 * cos - x1 * sin).to(a.dtype)
    a = tl.permute(a, (0, 2, 1))
    heads = tl.dot(a, b1, input_precision=PRECISION) / RANK
    _store_heads(out_ptr, at, there, offs_h, offs, heads, 0, NUM_HEADS, WIDTH, SIZE)
    if ROTATED:
        heads = tl.dot(a, b2, input_precision=PRECISION) / RANK
        _store_heads(out_ptr, at, there, offs_h, offs, heads, WIDTH, NUM_HEADS, WIDTH, SIZE)


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
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Arguments as of the way forward."""
    at, there, batch, token = _tokens(num_all, num_tokens, BLOCK_T)
    offs_h = tl.arange(0, BLOCK_H)
    offs = tl.arange(0, BLOCK_D)
    WIDTH: tl.constexpr = SIZE // 2 if ROTATED else SIZE
    start = batch * grad_stride_b + token * grad_stride_t
    start_b = batch * b_stride_b + token * b_stride_t
    # A head is a row here, and a row of the factors' gradients a sum over heads.
    grad1 = _load_rows(grad_ptr, start, there, grad_stride_h, offs, NUM_HEADS, WIDTH, BLOCK_H)
    a = _load_rows(a_ptr, batch * a_stride_b + token * a_stride_t, there, a_stride_r, offs_h, RANK, NUM_HEADS, BLOCK_R)
    b1 = _load_rows(b_ptr, start_b, there, b_stride_r, offs, RANK, WIDTH, BLOCK_R)
    if ROTATED:
        grad2 = _load_rows(grad_ptr, start + WIDTH, there, grad_stride_h, offs, NUM_HEADS, WIDTH, BLOCK_H)
        b2 = _load_rows(b_ptr, start_b + WIDTH, there, b_stride_r, offs, RANK, WIDTH, BLOCK_R)
        cos = _load_angles(cos_ptr, batch, token, there, table_stride_b, offs, WIDTH)
        sin = _load_angles(sin_ptr, batch, token, there, table_stride_b, offs, WIDTH)
        x1, x2 = b1.to(tl.float32), b2.to(tl.float32)
        b1, b2 = (x1 * cos + x2 * sin).to(a.dtype), (x2 * cos - x1 * sin).to(a.dtype)
    grad_a = tl.dot(b1, tl.permute(grad1, (0, 2, 1)), input_precision=PRECISION)
    grad_b = tl.dot(a, grad1, input_precision=PRECISION) / RANK
    if ROTATED:
        grad_a = tl.dot(b2, tl.permute(grad2, (0, 2, 1)), grad_a, input_precision=PRECISION)
        other = tl.dot(a, grad2, input_precision=PRECISION) / RANK
        _store_rows(grad_b_ptr, at, there, offs, other * cos + grad_b * sin, WIDTH, RANK, WIDTH, SIZE, BLOCK_R)
        grad_b = grad_b * cos - other * sin
    _store_rows(grad_b_ptr, at, there, offs, grad_b, 0, RANK, WIDTH, SIZE, BLOCK_R)
    _store_rows(grad_a_ptr, at, there, offs_h, grad_a / RANK, 0, RANK, NUM_HEADS, NUM_HEADS, BLOCK_R)
