"""Kernels beside the way back of attention: what it needs beforehand, and its gradient of queries put into rows.

Letters: B batch, T positions, H heads, D head size.
"""

import triton
import triton.language as tl


@triton.jit
def _dense_attention_sums_kernel(
    out_ptr,  # the result (B, T, H, D), contiguous
    do_ptr,  # its gradient, likewise
    lse_ptr,  # logarithms of sums of exponentials (B, H, T)
    delta_ptr,  # (B, H, T): sums of the result times its gradient
    lse2_ptr,  # (B, H, T): the logarithms to the base of 2
    dq_ptr,  # (B, H, padded T, D): becomes zeros
    length,  # T
    num_heads,  # H
    token_blocks,  # of TOKENS, in the padded T
    D: tl.constexpr,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
):
    # Heads of a token lie beside each other in what is read, tokens of a head in what is written: a block of both.
    block = tl.program_id(0) % token_blocks
    part = tl.program_id(0) // token_blocks
    head_blocks = tl.cdiv(num_heads, HEADS)
    batch = (part // head_blocks).to(tl.int64)
    tokens = block * TOKENS + tl.arange(0, TOKENS)
    heads = (part % head_blocks) * HEADS + tl.arange(0, HEADS)
    cols = tl.arange(0, D)
    rows = (batch * length + tokens[:, None]) * num_heads + heads[None, :]
    places = rows[:, :, None] * D + cols[None, None, :]
    mask_heads = heads < num_heads
    mask = (tokens < length)[:, None] & mask_heads[None, :]
    out = tl.load(out_ptr + places, mask=mask[:, :, None], other=0.0).to(tl.float32)
    grad = tl.load(do_ptr + places, mask=mask[:, :, None], other=0.0).to(tl.float32)
    lines = (batch * num_heads + heads[None, :]) * length + tokens[:, None]
    tl.store(delta_ptr + lines, tl.sum(out * grad, 2), mask=mask)
    tl.store(lse2_ptr + lines, tl.load(lse_ptr + lines, mask=mask, other=0.0) * 1.4426950408889634, mask=mask)
    starts = ((batch * num_heads + heads) * token_blocks + block) * (TOKENS * D)
    cells = starts[:, None] + tl.arange(0, TOKENS * D)[None, :]
    tl.store(dq_ptr + cells, tl.zeros((HEADS, TOKENS * D), tl.float32), mask=mask_heads[:, None])


@triton.jit
def _dense_attention_rows_kernel(
    tiles_ptr,  # (B, H, tiles, ROWS · D) float32, each tile in the order that `attention_backward.py` beside this says
    out_ptr,  # (B, T, H, D), contiguous
    length,  # T
    num_heads,  # H
    scale,
    tiles_there,  # that have a position
    tiles_kept,  # of each head in memory
    D: tl.constexpr,
    ROWS: tl.constexpr,
):
    tile = tl.program_id(0) % tiles_there
    head = (tl.program_id(0) // tiles_there).to(tl.int64)
    x = tl.load(tiles_ptr + (head * tiles_kept + tile) * (ROWS * D) + tl.arange(0, ROWS * D))
    x = tl.reshape(x, (ROWS // 16, 2, D // 16, 8, 4, 2, 2))
    x = tl.reshape(tl.permute(x, (0, 1, 3, 2, 5, 4, 6)), (ROWS, D))
    tokens = tile * ROWS + tl.arange(0, ROWS)
    rows = ((head // num_heads) * length + tokens) * num_heads + head % num_heads
    places = rows[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(out_ptr + places, (x * scale).to(out_ptr.dtype.element_ty), mask=(tokens < length)[:, None])
