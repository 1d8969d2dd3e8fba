"""Dense queries beside factors of keys and values: copied out of the rows, and turned; and the way back.

Letters: B batch, T tokens, H heads, D head size.
"""

import triton
import triton.language as tl

from lit_t6.ops.dense.kernels.query_tiles import _column_in_tile, _feature_of
from lit_t6.ops.tpa.kernels.tiles import _load_tile, _multiple_of, _start_in_tiles, _token


@triton.jit
def _in_order(tile, BLOCK_H: tl.constexpr):
    """Half a head's features (BLOCK_H, 32) as they lie in a `QueryGradient`'s tile: the other way round."""
    apart = tl.reshape(tile, (BLOCK_H, 2, 4, 2, 2))
    return tl.reshape(tl.permute(apart, (0, 1, 3, 2, 4)), (BLOCK_H, 32))


@triton.jit
def _turn_heads(
    out,  # this and all that follow: as _form_heads takes them
    part,  # heads (B, T, H, D) twice, and their strides twice, but of the last axis, where they are 1
    cos,
    sin,
    batch,
    token,
    ROTATED: tl.constexpr,
    SHAPE: tl.constexpr,
):
    NUM_HEADS: tl.constexpr = SHAPE[0]
    SIZE: tl.constexpr = SHAPE[1]
    BLOCK_H: tl.constexpr = SHAPE[2]
    HALF: tl.constexpr = (SIZE + 1) // 2
    STEP: tl.constexpr = SHAPE[7]
    pairs = tl.arange(0, SHAPE[3] // 2)
    in_first, in_second = pairs < HALF, pairs < SIZE // 2
    start = part[0] + _multiple_of(batch * part[2] + token * part[3], STEP)
    if ROTATED:
        cosines = tl.load(cos + pairs, mask=in_second, other=0.0)[None, :]
        sines = tl.load(sin + pairs, mask=in_second, other=0.0)[None, :]
    for first in tl.range(0, NUM_HEADS, BLOCK_H):
        heads = first + tl.arange(0, BLOCK_H)
        there = heads < NUM_HEADS
        x = _load_tile(start, heads, part[4], there, pairs, 1, in_first)
        y = _load_tile(start + HALF, heads, part[4], there, pairs, 1, in_second)
        if ROTATED:
            wide_x, wide_y = x.to(tl.float32), y.to(tl.float32)
            x = (wide_x * cosines + wide_y * sines).to(x.dtype)
            y = (wide_y * cosines - wide_x * sines).to(y.dtype)
        places = out + heads[:, None] * SIZE + pairs[None, :]
        tl.store(places, x, mask=there[:, None] & in_first[None, :], eviction_policy="evict_first")
        tl.store(places + HALF, y, mask=there[:, None] & in_second[None, :], eviction_policy="evict_first")


@triton.jit
def _turn_gradients(
    grad,  # this and all that follow: as _factor_gradients takes them
    gradients,  # of the heads twice, and its strides of a token and of a head, twice
    cos,
    sin,
    batch,
    token,
    at,
    ROTATED: tl.constexpr,
    IN_TILES: tl.constexpr,
    SHAPE: tl.constexpr,
):
    NUM_HEADS: tl.constexpr = SHAPE[0]
    SIZE: tl.constexpr = SHAPE[1]
    BLOCK_H: tl.constexpr = SHAPE[2]
    HALF: tl.constexpr = (SIZE + 1) // 2
    STEP: tl.constexpr = SHAPE[7]
    dtype = gradients[0].dtype.element_ty
    pairs = tl.arange(0, SHAPE[3] // 2)
    in_first, in_second = pairs < HALF, pairs < SIZE // 2
    columns, turned = pairs, pairs
    if IN_TILES:
        start, stride_h = _start_in_tiles(grad, batch, token, NUM_HEADS)
        start_second = start + 256
        columns, turned = _column_in_tile(pairs), _feature_of(pairs)
    else:
        start, stride_h = _token(token, batch, grad[0], grad[1], grad[2]), grad[3]
        start_second = start + HALF
    if ROTATED:
        cosines = tl.load(cos + turned, mask=in_second, other=0.0)[None, :]
        sines = tl.load(sin + turned, mask=in_second, other=0.0)[None, :]
    into = gradients[0] + _multiple_of(at * gradients[2], STEP)
    # Tiles are on their way to the program while those before them are turned.
    heads = tl.arange(0, BLOCK_H)
    next_x = _load_tile(start, heads, stride_h, heads < NUM_HEADS, columns, 1, in_first)
    next_y = _load_tile(start_second, heads, stride_h, heads < NUM_HEADS, columns, 1, in_second)
    for first in tl.range(0, NUM_HEADS, BLOCK_H):
        heads = first + tl.arange(0, BLOCK_H)
        later = heads + BLOCK_H
        x, y = next_x.to(tl.float32), next_y.to(tl.float32)
        next_x = _load_tile(start, later, stride_h, later < NUM_HEADS, columns, 1, in_first)
        next_y = _load_tile(start_second, later, stride_h, later < NUM_HEADS, columns, 1, in_second)
        if IN_TILES:
            x, y = x * grad[2], y * grad[2]
        if ROTATED:  # by the transpose
            x, y = x * cosines - y * sines, y * cosines + x * sines
        x, y = x.to(dtype), y.to(dtype)
        if IN_TILES:
            x, y = _in_order(x, BLOCK_H), _in_order(y, BLOCK_H)
        there = (heads < NUM_HEADS)[:, None]
        places = into + heads[:, None] * gradients[3] + pairs[None, :]
        tl.store(places, x, mask=there & in_first[None, :])
        tl.store(places + HALF, y, mask=there & in_second[None, :])
