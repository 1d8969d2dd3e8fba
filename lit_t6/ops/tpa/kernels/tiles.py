"""Tiles of a token's factors and heads, as the kernels of heads read them.

Letters: B batch, T tokens, H heads, D head size.
"""

import triton
import triton.language as tl

from lit_t6.ops.dense.kernels.query_tiles import _row_in_tile


@triton.jit
def _features(SIZE: tl.constexpr, BLOCK_D: tl.constexpr):
    """Of a tile's columns (BLOCK_D,): features, whether they are there, places in a half, whether in the second one."""
    HALF: tl.constexpr = (SIZE + 1) // 2
    column = tl.arange(0, BLOCK_D)
    place = column % (BLOCK_D // 2)
    second = column >= BLOCK_D // 2
    features = place + tl.where(second, HALF, 0)
    return features, (place < HALF) & (features < SIZE), place, second


@triton.jit
def _token(token, batch, tensor, stride_b, stride_t):
    return tensor + batch * stride_b + token * stride_t


@triton.jit
def _multiple_of(x, STEP: tl.constexpr):
    """What is known to be one; 1 may be a constant."""
    return x if STEP == 1 else tl.multiple_of(x, STEP)


@triton.jit
def _load_tile(start, rows, row_stride, rows_there, columns, column_stride, columns_there):
    mask = rows_there[:, None] & columns_there[None, :]
    places = rows.to(tl.int64)[:, None] * row_stride + columns[None, :] * column_stride
    return tl.load(start + places, mask=mask, other=0.0)


@triton.jit
def _start_in_tiles(grad, batch, token, NUM_HEADS: tl.constexpr):
    """Of a token in a `QueryGradient`, of heads of 64; and how far it is from one head to the next."""
    row = token % 64
    stride_h = grad[1].to(tl.int64) * 4096
    return grad[0] + batch * NUM_HEADS * stride_h + token // 64 * 4096 + _row_in_tile(row), stride_h


@triton.jit
def _partners(features, second, SIZE: tl.constexpr):
    """The other features of the pairs that RoPE turns."""
    return tl.where(second, features - SIZE // 2, features + SIZE // 2)


@triton.jit
def _load_angles(cos, sin, place, there, second):
    """Cosines and signed sines: a turned feature is cos · itself + sin · its partner."""
    sines = tl.load(sin + place, mask=there, other=0.0)
    return tl.load(cos + place, mask=there, other=0.0), tl.where(second, -sines, sines)
