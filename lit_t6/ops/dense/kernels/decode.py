"""The kernel of decoding with dense keys and values: attention of one part of the cache.

Letters: B batch, N new queries, M cached positions, H query heads, G key/value heads, D and E head sizes. A row is one
head of one query; a program takes rows that share a key head. As in `lit_t6.ops.tpa.kernels.decode`, strides inside a
row of the batch are compile-time constants, and nothing that follows from the length of the cache is.
"""

import triton
import triton.language as tl

from lit_t6.ops.kernels.parts import _span, _start_early, _store_part, _weights


@triton.jit
def _load_rows(x_ptr, offs_m, mask_m, offs_d, STRIDE_M: tl.constexpr, SIZE: tl.constexpr):
    """(tokens, features) of one head."""
    mask = mask_m[:, None] & (offs_d < SIZE)[None, :]
    return tl.load(x_ptr + offs_m[:, None] * STRIDE_M + offs_d[None, :], mask=mask, other=0.0)


@triton.jit
def _load_queries(q_ptr, place, mask_row, offs_d, SIZE: tl.constexpr):
    """(features, rows)."""
    return tl.load(
        q_ptr + place[None, :] + offs_d[:, None], mask=mask_row[None, :] & (offs_d < SIZE)[:, None], other=0.0
    )


@triton.jit(do_not_specialize=["num_splits", "k_stride_b", "v_stride_b"])
def _dense_decode_fwd_kernel(
    q_ptr,  # (B, N, H, D) contiguous
    k_ptr,
    v_ptr,
    lengths_ptr,  # (B,) int64
    out_ptr,  # (B, splits, N, H, E) float32
    top_ptr,  # (B, splits, N, H) float32
    total_ptr,  # likewise
    k_stride_b,  # strides of the batch in units of their VEC numbers
    v_stride_b,
    num_splits,
    scale,  # of the logits, log2(e) included
    NUM_QUERIES: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # H / G
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    K: tl.constexpr,  # (stride of M, stride of G, VEC, numbers of a row that may be read)
    V: tl.constexpr,
    SHARED: tl.constexpr,  # the values are the first VALUE_DIM features of the keys, and not read again
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,  # of all features of the keys; if SHARED, of those behind the values
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    _start_early(EARLY)
    split = tl.program_id(0)
    batch = tl.program_id(2).to(tl.int64)
    num_tiles_h: tl.constexpr = (GROUP + BLOCK_H - 1) // BLOCK_H
    num_tiles: tl.constexpr = num_tiles_h * ((NUM_QUERIES + BLOCK_N - 1) // BLOCK_N)
    group = tl.program_id(1) // num_tiles
    tile = tl.program_id(1) % num_tiles
    ROWS: tl.constexpr = BLOCK_N * BLOCK_H
    BEHIND: tl.constexpr = VALUE_DIM if SHARED else 0

    offs_d = tl.arange(0, BLOCK_D)
    offs_e = tl.arange(0, BLOCK_E)
    row = tl.arange(0, ROWS)
    row_n = tile // num_tiles_h * BLOCK_N + row // BLOCK_H
    row_g = tile % num_tiles_h * BLOCK_H + row % BLOCK_H
    row_h = group * GROUP + row_g
    mask_row = (row_n < NUM_QUERIES) & (row_g < GROUP)

    kind = k_ptr.dtype.element_ty
    place = ((batch * NUM_QUERIES + row_n) * NUM_HEADS + row_h) * HEAD_DIM
    q = _load_queries(q_ptr + BEHIND, place, mask_row, offs_d, HEAD_DIM - BEHIND).to(kind)
    if SHARED:
        q_shared = _load_queries(q_ptr, place, mask_row, offs_e, VALUE_DIM).to(kind)

    length = tl.load(lengths_ptr + batch).to(tl.int32)
    sees = length - NUM_QUERIES + row_n + 1  # entries that the row sees
    first, last = _span(length, split, num_splits, BLOCK_M)
    k_ptr += batch * k_stride_b * K[2] + group * K[1]
    v_ptr += batch * v_stride_b * V[2] + group * V[1]

    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_E, ROWS), tl.float32)
    for start in tl.range(first, last, BLOCK_M, num_stages=NUM_STAGES):
        start = tl.multiple_of(start, BLOCK_M)
        offs_m = tl.arange(0, BLOCK_M)
        mask_m = start + offs_m < length
        begin = start.to(tl.int64)
        k = _load_rows(k_ptr + begin * K[0] + BEHIND, offs_m, mask_m, offs_d, K[0], HEAD_DIM - BEHIND)
        logits = tl.dot(k, q, input_precision=PRECISION)
        if SHARED:
            v = _load_rows(k_ptr + begin * K[0], offs_m, mask_m, offs_e, K[0], VALUE_DIM)
            logits = tl.dot(v, q_shared, logits, input_precision=PRECISION)
        else:
            v = _load_rows(v_ptr + begin * V[0], offs_m, mask_m, offs_e, V[0], VALUE_DIM)
        logits = tl.where((start + offs_m)[:, None] < sees[None, :], logits * scale, float("-inf"))
        weights, shrink, top, total = _weights(logits, top, total)
        # Exact products are sums one after the other: short sums of their own lose less than a single long one.
        APART: tl.constexpr = PRECISION == "ieee"
        part = tl.zeros((BLOCK_E, ROWS), tl.float32) if APART else acc * shrink[None, :]
        part = tl.dot(tl.trans(v), weights.to(kind), part, input_precision=PRECISION)
        acc = tl.fma(acc, shrink[None, :], part) if APART else part

    place = ((batch * num_splits + split) * NUM_QUERIES + row_n) * NUM_HEADS + row_h
    _store_part(out_ptr, top_ptr, total_ptr, place, mask_row, offs_e, acc, top, total, first < last, VALUE_DIM)
