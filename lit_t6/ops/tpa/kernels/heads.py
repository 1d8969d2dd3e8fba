"""Kernels that make heads of factors, (1/R) Σ_r a_r ⊗ b_r, and take their gradients back to the factors.

Letters: B batch, T tokens, R rank, H heads, D head size, A numbers of a row of a: of H heads, and zeros behind them. A
program makes the queries, keys and values of one token, a tile of heads after the other: by (heads × R)(R × D) on the
way forward, (D × heads)(heads × R) and (heads × D)(D × R) on the way back. Sums are in float32 and rounded once.

RoPE turns pairs (i, i + D/2). On the way forward, a feature of b is read beside the other one of its pair. Turning is
linear: on the way back, the gradient of b is turned back after the sum over heads, when it is small.

A kernel takes queries, keys and values as a tuple each, of tensors and of their strides; a rank of 0 leaves one out.
Dense queries have that rank too. If they are to turn, their heads are copied a tile after the other, and turned.

The gradient of queries may come in the tiles of the kernel that summed it up (`QueryGradient`). Each 16 features of a
token are in another order there. Sums over features do not mind: numbers are taken as they come, and b is read in the
same order. Halves of a head stay halves. Those of dense queries are put in order when they are turned back and rounded.
"""

import triton
import triton.language as tl

from lit_t6.ops.dense.kernels.query_tiles import _column_in_tile, _from_tile_order, _to_tile_order
from lit_t6.ops.tpa.kernels.dense_queries import _turn_gradients, _turn_heads
from lit_t6.ops.tpa.kernels.tiles import (
    _features,
    _load_angles,
    _load_tile,
    _multiple_of,
    _partners,
    _start_in_tiles,
    _token,
)


@triton.jit
def _form_heads(
    out,  # (H, D) of this token, contiguous
    part,  # a (B, T, R, A), b (B, T, R, D), and the strides of both, but of the last axis, where they are 1
    cos,  # of this token, (D / 2,) float32
    sin,
    batch,
    token,
    RANK: tl.constexpr,
    ROTATED: tl.constexpr,
    SHAPE: tl.constexpr,
):
    NUM_HEADS: tl.constexpr = SHAPE[0]
    SIZE: tl.constexpr = SHAPE[1]
    BLOCK_H: tl.constexpr = SHAPE[2]
    BLOCK_D: tl.constexpr = SHAPE[3]
    BLOCK_R: tl.constexpr = SHAPE[4]
    PRECISION: tl.constexpr = SHAPE[5]
    NUM_A: tl.constexpr = SHAPE[6]
    STEP: tl.constexpr = SHAPE[7]
    features, there, place, second = _features(SIZE, BLOCK_D)
    ranks = tl.arange(0, BLOCK_R)
    start_a = part[0] + _multiple_of(batch * part[2] + token * part[3], STEP)
    start_b = part[1] + _multiple_of(batch * part[5] + token * part[6], STEP)
    stride_a, stride_b = _multiple_of(part[4], STEP), _multiple_of(part[7], STEP)
    b = _load_tile(start_b, ranks, stride_b, ranks < RANK, features, 1, there)
    if ROTATED:
        partner = _load_tile(start_b, ranks, stride_b, ranks < RANK, _partners(features, second, SIZE), 1, there)
        cosines, sines = _load_angles(cos, sin, place, there, second)
        turned = b.to(tl.float32) * cosines[None, :] + partner.to(tl.float32) * sines[None, :]
        b = turned.to(b.dtype)
    for first in tl.range(0, NUM_HEADS, BLOCK_H):
        heads = first + tl.arange(0, BLOCK_H)
        a = _load_tile(start_a, heads, 1, heads < NUM_A, ranks, stride_a, ranks < RANK)
        tile = tl.dot(a, b, input_precision=PRECISION) * (1.0 / RANK)
        mask = (heads < NUM_HEADS)[:, None] & there[None, :]
        # Not kept in the cache: other heads are wanted next.
        places = out + heads[:, None] * SIZE + features[None, :]
        tl.store(places, tile.to(b.dtype), mask=mask, eviction_policy="evict_first")


@triton.jit
def _factor_gradients(
    grad,  # of the heads, (B, T, H, D), and its strides but the last, which is 1; or the tiles, their number, the scale
    part,  # as _form_heads takes it
    gradients,  # of a and b, and their strides of a token and of a row
    cos,
    sin,
    batch,
    token,
    at,  # the token's number among all
    RANK: tl.constexpr,
    ROTATED: tl.constexpr,
    IN_TILES: tl.constexpr,
    SHAPE: tl.constexpr,
):
    NUM_HEADS: tl.constexpr = SHAPE[0]
    SIZE: tl.constexpr = SHAPE[1]
    BLOCK_H: tl.constexpr = SHAPE[2]
    BLOCK_D: tl.constexpr = SHAPE[3]
    BLOCK_R: tl.constexpr = SHAPE[4]
    PRECISION: tl.constexpr = SHAPE[5]
    NUM_A: tl.constexpr = SHAPE[6]
    STEP: tl.constexpr = SHAPE[7]
    # Ranks are columns here: tensor cores take eight of those, and sixteen rows.
    features, there, place, second = _features(SIZE, BLOCK_D)
    ranks = tl.arange(0, BLOCK_R)
    ranked = ranks < RANK
    columns = features
    if IN_TILES:
        start, stride_h = _start_in_tiles(grad, batch, token, NUM_HEADS)
        columns = _column_in_tile(tl.arange(0, BLOCK_D))
    else:
        start, stride_h = _token(token, batch, grad[0], grad[1], grad[2]), grad[3]
    start_a = part[0] + _multiple_of(batch * part[2] + token * part[3], STEP)
    start_b = part[1] + _multiple_of(batch * part[5] + token * part[6], STEP)
    stride_a, stride_b = _multiple_of(part[4], STEP), _multiple_of(part[7], STEP)
    # A tile is on its way to the program while the one before it is multiplied.
    heads = tl.arange(0, BLOCK_H)
    tile = _load_tile(start, heads, stride_h, heads < NUM_HEADS, columns, 1, there)
    a = _load_tile(start_a, heads, 1, heads < NUM_A, ranks, stride_a, ranked)
    b = _load_tile(start_b, features, 1, there, ranks, stride_b, ranked)
    if ROTATED:
        partner = _load_tile(start_b, _partners(features, second, SIZE), 1, there, ranks, stride_b, ranked)
        cosines, sines = _load_angles(cos, sin, place, there, second)
        turned = b.to(tl.float32) * cosines[:, None] + partner.to(tl.float32) * sines[:, None]
        b = turned.to(b.dtype)
    if IN_TILES:
        b = _to_tile_order(b, BLOCK_D, BLOCK_R)
    grad_a = gradients[0] + _multiple_of(at * gradients[2], STEP)
    grad_b = gradients[1] + _multiple_of(at * gradients[4], STEP)
    rank_a, rank_b = _multiple_of(gradients[3], STEP), _multiple_of(gradients[5], STEP)
    of_b = tl.zeros((BLOCK_D, BLOCK_R), tl.float32)
    for first in tl.range(0, NUM_HEADS, BLOCK_H):
        heads = first + tl.arange(0, BLOCK_H)
        later = heads + BLOCK_H
        next_tile = _load_tile(start, later, stride_h, later < NUM_HEADS, columns, 1, there)
        next_a = _load_tile(start_a, later, 1, later < NUM_A, ranks, stride_a, ranked)
        if IN_TILES:
            tile = (tile * grad[2]).to(b.dtype)
        of_b = tl.dot(tl.trans(tile), a, of_b, input_precision=PRECISION)
        of_a = tl.dot(tile, b, input_precision=PRECISION) * (1.0 / RANK)
        mask = (heads < NUM_A)[:, None] & ranked[None, :]
        tl.store(grad_a + heads[:, None] + ranks[None, :] * rank_a, of_a.to(b.dtype), mask=mask)
        tile, a = next_tile, next_a
    of_b *= 1.0 / RANK
    if IN_TILES:
        of_b = _from_tile_order(of_b, BLOCK_D, BLOCK_R)
    if ROTATED:
        HALF: tl.constexpr = BLOCK_D // 2
        first_half, second_half = tl.split(tl.permute(tl.reshape(of_b, (2, HALF, BLOCK_R)), (1, 2, 0)))
        pairs = tl.arange(0, HALF)
        paired = pairs < SIZE // 2
        cosines = tl.load(cos + pairs, mask=paired, other=0.0)[:, None]
        sines = tl.load(sin + pairs, mask=paired, other=0.0)[:, None]
        places = grad_b + pairs[:, None] + ranks[None, :] * rank_b
        mask = paired[:, None] & ranked[None, :]
        tl.store(places, (first_half * cosines - second_half * sines).to(b.dtype), mask=mask)
        tl.store(places + SIZE // 2, (second_half * cosines + first_half * sines).to(b.dtype), mask=mask)
    else:
        mask = there[:, None] & ranked[None, :]
        tl.store(grad_b + features[:, None] + ranks[None, :] * rank_b, of_b.to(b.dtype), mask=mask)


@triton.jit
def _tpa_heads_fwd_kernel(
    heads,  # of queries, keys and values each: as _form_heads takes them, and the others alike
    parts,
    cos_ptr,  # (T, D / 2) or (B, T, D / 2) float32, contiguous
    sin_ptr,
    num_tokens,  # T
    table_stride_b,  # 0 if all rows of the batch stand at the same positions
    RANKS: tl.constexpr,
    DENSE: tl.constexpr,  # whether queries are, and are to be turned
    ROTATED: tl.constexpr,  # whether queries and keys are
    SHAPE: tl.constexpr,  # H, D, tiles of heads, features and ranks, how exact products are, A, what divides strides
):
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    angle = batch * table_stride_b + token * (SHAPE[1] // 2)
    cos, sin, at = cos_ptr + angle, sin_ptr + angle, (batch * num_tokens + token) * (SHAPE[0] * SHAPE[1])
    for i in tl.static_range(3):
        if RANKS[i]:
            _form_heads(heads[i] + at, parts[i], cos, sin, batch, token, RANKS[i], ROTATED and i < 2, SHAPE)
        elif DENSE and i == 0:
            _turn_heads(heads[i] + at, parts[i], cos, sin, batch, token, ROTATED, SHAPE)


@triton.jit
def _tpa_heads_bwd_kernel(
    grads,  # of queries, keys and values each: as _factor_gradients takes them, and the others alike
    parts,
    gradients,
    cos_ptr,  # this and all that follow: as of the way forward
    sin_ptr,
    num_tokens,
    table_stride_b,
    RANKS: tl.constexpr,
    DENSE: tl.constexpr,
    ROTATED: tl.constexpr,
    SHAPE: tl.constexpr,
    IN_TILES: tl.constexpr,  # whether the gradient of queries is
):
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    angle = batch * table_stride_b + token * (SHAPE[1] // 2)
    cos, sin, at = cos_ptr + angle, sin_ptr + angle, batch * num_tokens + token
    for i in tl.static_range(3):
        if RANKS[i]:
            _factor_gradients(
                *(grads[i], parts[i], gradients[i], cos, sin, batch, token, at),
                *(RANKS[i], ROTATED and i < 2, IN_TILES and i == 0, SHAPE),
            )
        elif DENSE and i == 0:
            _turn_gradients(grads[i], gradients[i], cos, sin, batch, token, at, ROTATED, IN_TILES, SHAPE)
