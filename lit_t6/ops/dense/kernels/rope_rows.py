"""RoPE of queries and keys that lie in the rows of one projection, q | k | v, and the way back into such rows.

Letters: B batch, T positions, H heads, D head size. A program takes a few tokens, and tiles (heads, tokens, pairs) of
each part of their rows. RoPE turns pairs (i, i + D/2), whose features are two tiles. Sums are in float32, rounded once.
"""

import triton
import triton.language as tl

from lit_t6.ops.dense.kernels.query_tiles import _column_in_tile, _row_in_tile


@triton.jit
def _tokens(num_tokens, length, BLOCK_T: tl.constexpr):
    """Of a program's tokens (1, BLOCK_T, 1): numbers among all, rows of the batch, positions, whether there."""
    number = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)[None, :, None]
    row, position = number // length, number % length
    return number.to(tl.int64), row.to(tl.int64), position.to(tl.int64), number < num_tokens


@triton.jit
def _load_angles(cos_ptr, sin_ptr, table_stride_b, row, position, there, pairs, HALF: tl.constexpr):
    """Cosines and sines (1, tokens, pairs)."""
    places = row * table_stride_b + position * HALF + pairs
    mask = there & (pairs < HALF)
    return tl.load(cos_ptr + places, mask=mask, other=0.0), tl.load(sin_ptr + places, mask=mask, other=0.0)


@triton.jit
def _in_order(tile, SHAPE: tl.constexpr):
    """Features 0 to 31 of tiles, of which each 16 lie as 0, 1, 8, 9, 2, 3, 10, 11, ..."""
    apart = tl.reshape(tile, (SHAPE[2], SHAPE[3], 2, 4, 2, 2))
    return tl.reshape(tl.permute(apart, (0, 1, 2, 4, 3, 5)), (SHAPE[2], SHAPE[3], 32))


@triton.jit
def _load_gradients(grad, row, position, heads, pairs, mask, scale, SHAPE: tl.constexpr, TILED: tl.constexpr):
    """Gradients of both features of each pair, in float32, of a tensor (B, T, H, D) and its first three strides.

    Or (TILED, D = 64), of float32 tiles of 64 tokens of a head, (B, H, tiles, 4096), and the number of tiles of a head:
    in the order in which matrix units hold sums, and still to be scaled.
    """
    if TILED:
        place = (position % 64).to(tl.int32)
        start = ((row * SHAPE[0] + heads) * grad[1] + position // 64) * 4096
        places = grad[0] + (start + (_row_in_tile(place) + _column_in_tile(pairs)))  # in the order in which they lie
        first = _in_order(tl.load(places, mask=mask, other=0.0), SHAPE) * scale
        second = _in_order(tl.load(places + 256, mask=mask, other=0.0), SHAPE) * scale
    else:
        places = grad[0] + row * grad[1] + position * grad[2] + heads.to(tl.int64) * grad[3] + pairs
        first = tl.load(places, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(places + SHAPE[1] // 2, mask=mask, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def _rope_rows_fwd_kernel(
    rows_ptr,  # (B, T, 3·H·D), contiguous
    parts,  # of q, k and, if PARTS is 3, v: (B, T, H, D), contiguous
    cos_ptr,  # (T, D / 2) or (B, T, D / 2) float32, contiguous
    sin_ptr,
    num_tokens,  # B·T
    length,  # T
    table_stride_b,  # 0 if all rows of the batch stand at the same positions
    PARTS: tl.constexpr,
    SHAPE: tl.constexpr,  # H, D, and tiles of heads, tokens and pairs
):
    SIZE: tl.constexpr = SHAPE[0] * SHAPE[1]
    HALF: tl.constexpr = SHAPE[1] // 2
    number, row, position, there = _tokens(num_tokens, length, SHAPE[3])
    pairs = tl.arange(0, SHAPE[4])[None, None, :]
    cos, sin = _load_angles(cos_ptr, sin_ptr, table_stride_b, row, position, there, pairs, HALF)
    for i in tl.static_range(PARTS):
        for start in tl.range(0, SHAPE[0], SHAPE[2]):
            heads = start + tl.arange(0, SHAPE[2])[:, None, None]
            mask = there & (heads < SHAPE[0]) & (pairs < HALF)
            place = heads * SHAPE[1] + pairs
            source = rows_ptr + number * (3 * SIZE) + i * SIZE + place
            first = tl.load(source, mask=mask, other=0.0)
            second = tl.load(source + HALF, mask=mask, other=0.0)
            if i < 2:
                x, y = first.to(tl.float32), second.to(tl.float32)
                first = (x * cos + y * sin).to(first.dtype)
                second = (y * cos - x * sin).to(second.dtype)
            target = parts[i] + number * SIZE + place
            tl.store(target, first, mask=mask)
            tl.store(target + HALF, second, mask=mask)


@triton.jit
def _rope_rows_bwd_kernel(
    grads,  # of q, k and v each: as _load_gradients takes them
    rows_ptr,  # (B, T, 3·H·D), contiguous: what is written
    cos_ptr,  # this and the next four: as of the way forward
    sin_ptr,
    num_tokens,
    length,
    table_stride_b,
    scale,  # of the gradient of q, if that is TILED
    TILED: tl.constexpr,
    SHAPE: tl.constexpr,
):
    SIZE: tl.constexpr = SHAPE[0] * SHAPE[1]
    HALF: tl.constexpr = SHAPE[1] // 2
    dtype = rows_ptr.dtype.element_ty
    number, row, position, there = _tokens(num_tokens, length, SHAPE[3])
    pairs = tl.arange(0, SHAPE[4])[None, None, :]
    cos, sin = _load_angles(cos_ptr, sin_ptr, table_stride_b, row, position, there, pairs, HALF)
    for i in tl.static_range(3):
        for start in tl.range(0, SHAPE[0], SHAPE[2]):
            heads = start + tl.arange(0, SHAPE[2])[:, None, None]
            mask = there & (heads < SHAPE[0]) & (pairs < HALF)
            x, y = _load_gradients(grads[i], row, position, heads, pairs, mask, scale, SHAPE, TILED and i == 0)
            if i < 2:  # by the transpose
                first, second = x * cos - y * sin, y * cos + x * sin
            else:
                first, second = x, y
            target = rows_ptr + number * (3 * SIZE) + i * SIZE + heads * SHAPE[1] + pairs
            tl.store(target, first.to(dtype), mask=mask)
            tl.store(target + HALF, second.to(dtype), mask=mask)
