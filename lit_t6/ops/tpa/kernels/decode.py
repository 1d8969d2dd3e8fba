"""The kernel of FlashTPA decoding: attention of a part of the cache.

Letters: B batch, N new queries, M cached positions, H heads, D and E head sizes of keys and of values, R rank (Rq, Rk,
Rv). A row is one head of one query. Factors are rank-major; the last axis of each is contiguous.

Strides between positions and ranks are compile-time constants: they belong to the layout of a cache, and the compiler
must know that they are multiples of 16 bytes to read 16 bytes at once. The length of the cache is not: it is read from
memory, so that neither a longer cache nor a replayed graph compiles anything; nor do numbers that follow from it, of
which Triton would otherwise compile versions for 1 and for multiples of 16.

Tiles are (tokens, rows), or the other way round (ROWS_FIRST) where there are many rows: sums over tokens then stay
within a warp. What weighs the rows comes as (tokens, heads), and is turned by a product with ones and zeros: moving it
from one layout to another takes longer, and the tensor cores have the time.
"""

import triton
import triton.language as tl

from lit_t6.ops.kernels.parts import _across_rows, _of_rows, _span, _start_early, _store_part, _weights
from lit_t6.ops.tpa.kernels.decode_loads import _form_queries, _load_queries, _load_rank


@triton.jit
def _as_rows(x, BLOCK_N: tl.constexpr):
    """(tokens, heads) → (tokens, rows): the same heads for each of the queries."""
    if BLOCK_N == 1:
        return x
    repeated = tl.broadcast_to(x[:, None, :], (x.shape[0], BLOCK_N, x.shape[1]))
    return tl.reshape(repeated, (x.shape[0], BLOCK_N * x.shape[1]))


@triton.jit
def _dot(x, y, acc, ROWS_FIRST: tl.constexpr, PRECISION: tl.constexpr):
    """Acc + x·y; if ROWS_FIRST, acc, y and the result are given the other way round."""
    if ROWS_FIRST:
        return tl.dot(y, tl.trans(x), acc, input_precision=PRECISION)
    else:  # noqa: RET505 Triton compiles what follows an if
        return tl.dot(x, y, acc, input_precision=PRECISION)


@triton.jit
def _weigh(x, heads, chosen, BLOCK_N: tl.constexpr, ROWS_FIRST: tl.constexpr, PRECISION: tl.constexpr):
    """A tile of tokens and rows times `heads` (tokens, heads), each row by those of its head."""
    if ROWS_FIRST:
        return x * tl.dot(chosen, tl.trans(heads), input_precision=PRECISION)
    else:  # noqa: RET505 likewise
        return x * _as_rows(heads, BLOCK_N).to(tl.float32)


@triton.jit(
    do_not_specialize=["num_keys", "num_splits", *(f"{name}_stride_b" for name in ("ak", "bk", "ck", "av", "bv", "cv"))]
)
def _tpa_decode_fwd_kernel(
    aq_ptr,  # (B, Rq, H) contiguous; unused for dense queries
    bq_ptr,  # (B, Rq, D) contiguous, or dense queries (B, N, H, D)
    ak_ptr,
    bk_ptr,
    ck_ptr,
    av_ptr,
    bv_ptr,
    cv_ptr,
    cos_ptr,  # (M, ROTATED / 2) float32
    sin_ptr,
    lengths_ptr,  # (B,) int64
    out_ptr,  # (B, splits, N, H, E) float32
    top_ptr,  # (B, splits, N, H) float32
    total_ptr,  # likewise
    num_keys,  # M
    ak_stride_b,  # strides of the batch in units of their VEC numbers
    bk_stride_b,
    ck_stride_b,
    av_stride_b,
    bv_stride_b,
    cv_stride_b,
    num_splits,
    scale,  # of the logits, ranks and log2(e) included
    NUM_QUERIES: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    RANK_Q: tl.constexpr,  # 0: dense queries
    RANK_K: tl.constexpr,
    RANK_V: tl.constexpr,
    AK: tl.constexpr,  # of each cached factor: (stride of M, stride of R, VEC, numbers of a row that may be read)
    BK: tl.constexpr,
    CK: tl.constexpr,
    AV: tl.constexpr,
    BV: tl.constexpr,
    CV: tl.constexpr,
    THIRD_K: tl.constexpr,  # features of b_k of third order, or 0
    THIRD_V: tl.constexpr,
    ROTATED: tl.constexpr,  # features of b_k that are rotated here, or 0
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr,  # Rq rounded up
    PRECISION: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    ROWS_FIRST: tl.constexpr,
    ONE_BLOCK: tl.constexpr,  # no part has more than one
    EARLY: tl.constexpr,
):
    _start_early(EARLY)
    split = tl.program_id(0)
    num_tiles_h: tl.constexpr = (NUM_HEADS + BLOCK_H - 1) // BLOCK_H
    tile_h = tl.program_id(1) % num_tiles_h
    tile_n = tl.program_id(1) // num_tiles_h
    batch = tl.program_id(2).to(tl.int64)
    ROWS: tl.constexpr = BLOCK_N * BLOCK_H

    offs_h = tile_h * BLOCK_H + tl.arange(0, BLOCK_H)
    offs_d = tl.arange(0, BLOCK_D)
    offs_e = tl.arange(0, BLOCK_E)
    row = tl.arange(0, ROWS)
    row_n = tile_n * BLOCK_N + row // BLOCK_H
    row_h = tile_h * BLOCK_H + row % BLOCK_H
    mask_row = (row_n < NUM_QUERIES) & (row_h < NUM_HEADS)

    length = tl.load(lengths_ptr + batch).to(tl.int32)  # first: the way to memory is long
    kind = bk_ptr.dtype.element_ty
    head = tl.arange(0, BLOCK_H)
    chosen = (row[:, None] % BLOCK_H == head[None, :]).to(kind) if ROWS_FIRST else 0  # the head of a row

    ak_ptr += batch * ak_stride_b * AK[2]
    bk_ptr += batch * bk_stride_b * BK[2]
    av_ptr += batch * av_stride_b * AV[2]
    bv_ptr += batch * bv_stride_b * BV[2]
    if THIRD_K:
        ck_ptr += batch * ck_stride_b * CK[2]
    if THIRD_V:
        cv_ptr += batch * cv_stride_b * CV[2]
    sees = length - NUM_QUERIES + row_n + 1  # entries that the row sees

    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, BLOCK_E) if ROWS_FIRST else (BLOCK_E, ROWS), tl.float32)
    offs_m = tl.arange(0, BLOCK_M)
    none = tl.zeros((ROWS, BLOCK_M) if ROWS_FIRST else (BLOCK_M, ROWS), tl.float32)
    # Exact products are sums one after the other: short sums of their own lose less than a single long one.
    APART: tl.constexpr = PRECISION == "ieee"
    if ONE_BLOCK:
        # Everything is on its way before anything is waited for: its place does not depend on the length.
        first = split * BLOCK_M
        last = length
        there = first + offs_m < num_keys
        begin = first.to(tl.int64)
        keys = ()
        for r in tl.static_range(RANK_K):
            keys += _load_rank(
                ak_ptr, bk_ptr, ck_ptr, cos_ptr, sin_ptr,
                begin, r, offs_m, there, offs_h, offs_d, AK, BK, CK, HEAD_DIM, THIRD_K, ROTATED,
            )  # fmt: skip
        values = ()
        for r in tl.static_range(RANK_V):
            values += _load_rank(
                av_ptr, bv_ptr, cv_ptr, cos_ptr, sin_ptr,
                begin, r, offs_m, there, offs_h, offs_e, AV, BV, CV, VALUE_DIM, THIRD_V, 0,
            )  # fmt: skip
        aq, bq = _load_queries(
            aq_ptr, bq_ptr, batch, row_n, row_h, mask_row, offs_h, offs_d,
            NUM_QUERIES, NUM_HEADS, HEAD_DIM, RANK_Q, BLOCK_R, ROWS_FIRST,
        )  # fmt: skip
        q = _form_queries(aq, bq, kind, RANK_Q, ROWS_FIRST, PRECISION)
        valid = (first + offs_m < length)[:, None]
        logits = none
        for r in tl.static_range(RANK_K):
            bk = tl.where(valid, keys[2 * r], 0.0)  # else the compiler waits for it before the values are on their way
            product = _dot(bk, q, none, ROWS_FIRST, PRECISION)
            logits += _weigh(product, keys[2 * r + 1], chosen, BLOCK_N, ROWS_FIRST, PRECISION)
        seen = _across_rows(first + offs_m, ROWS_FIRST) < _of_rows(sees, ROWS_FIRST)
        weights, shrink, top, total = _weights(tl.where(seen, logits * scale, float("-inf")), top, total, ROWS_FIRST)
        for r in tl.static_range(RANK_V):
            av = tl.where(valid, values[2 * r + 1], 0.0)
            bv = tl.where(valid, values[2 * r], 0.0)
            shares = _weigh(weights, av, chosen, BLOCK_N, ROWS_FIRST, PRECISION).to(bv.dtype)
            acc = _dot(tl.trans(bv), shares, acc, ROWS_FIRST, PRECISION)
    else:
        aq, bq = _load_queries(
            aq_ptr, bq_ptr, batch, row_n, row_h, mask_row, offs_h, offs_d,
            NUM_QUERIES, NUM_HEADS, HEAD_DIM, RANK_Q, BLOCK_R, ROWS_FIRST,
        )  # fmt: skip
        q = _form_queries(aq, bq, kind, RANK_Q, ROWS_FIRST, PRECISION)
        first, last = _span(length, split, num_splits, BLOCK_M)
        for start in tl.range(first, last, BLOCK_M, num_stages=NUM_STAGES):
            start = tl.multiple_of(start, BLOCK_M)
            mask_m = start + offs_m < length
            begin = start.to(tl.int64)
            logits = none
            for r in tl.static_range(RANK_K):
                bk, ak = _load_rank(
                    ak_ptr, bk_ptr, ck_ptr, cos_ptr, sin_ptr,
                    begin, r, offs_m, mask_m, offs_h, offs_d, AK, BK, CK, HEAD_DIM, THIRD_K, ROTATED,
                )  # fmt: skip
                logits += _weigh(_dot(bk, q, none, ROWS_FIRST, PRECISION), ak, chosen, BLOCK_N, ROWS_FIRST, PRECISION)
            seen = _across_rows(start + offs_m, ROWS_FIRST) < _of_rows(sees, ROWS_FIRST)
            logits = tl.where(seen, logits * scale, float("-inf"))
            weights, shrink, top, total = _weights(logits, top, total, ROWS_FIRST)
            shrink = _of_rows(shrink, ROWS_FIRST)
            part = tl.zeros_like(acc) if APART else acc * shrink
            for r in tl.static_range(RANK_V):
                bv, av = _load_rank(
                    av_ptr, bv_ptr, cv_ptr, cos_ptr, sin_ptr,
                    begin, r, offs_m, mask_m, offs_h, offs_e, AV, BV, CV, VALUE_DIM, THIRD_V, 0,
                )  # fmt: skip
                shares = _weigh(weights, av, chosen, BLOCK_N, ROWS_FIRST, PRECISION).to(bv.dtype)
                part = _dot(tl.trans(bv), shares, part, ROWS_FIRST, PRECISION)
            acc = tl.fma(acc, shrink, part) if APART else part

    place = ((batch * num_splits + split) * NUM_QUERIES + row_n) * NUM_HEADS + row_h
    reads = first < last
    _store_part(out_ptr, top_ptr, total_ptr, place, mask_row, offs_e, acc, top, total, reads, VALUE_DIM, ROWS_FIRST)
