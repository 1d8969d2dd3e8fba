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
    lines_ptr,  # (B, H, tiles, 2, ROWS): the logarithms to the base of 2, and sums of the result times its gradient
    stored_ptr,  # (B·H,) int32, set to 0
    length,  # T
    num_heads,  # H
    tiles,
    D: tl.constexpr,
    ROWS: tl.constexpr,
):
    # Heads of the same tokens lie beside each other: programs that run at the same time read one piece of memory.
    tile = tl.program_id(0) // num_heads % tiles
    batch = (tl.program_id(0) // num_heads // tiles).to(tl.int64)
    head = batch * num_heads + tl.program_id(0) % num_heads
    inside = tl.arange(0, ROWS)
    tokens = tile * ROWS + inside
    mask = tokens < length
    rows = ((head // num_heads) * length + tokens) * num_heads + head % num_heads
    places = rows[:, None] * D + tl.arange(0, D)[None, :]
    out = tl.load(out_ptr + places, mask=mask[:, None], other=0.0).to(tl.float32)
    grad = tl.load(do_ptr + places, mask=mask[:, None], other=0.0).to(tl.float32)
    lse = tl.load(lse_ptr + head * length + tokens, mask=mask, other=float("inf"))
    lines_ptr += (head * tiles + tile) * (2 * ROWS) + inside
    tl.store(lines_ptr, lse * 1.4426950408889634)
    tl.store(lines_ptr + ROWS, tl.sum(out * grad, 1))
    if tile == 0:
        tl.store(stored_ptr + head, 0)


@triton.jit
def _dense_attention_rows_kernel(
    tiles_ptr,  # (B, H, tiles, ROWS · D) float32, each tile in `QueryGradient`'s order
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
