"""What a program of FlashTPA decoding reads: cached factors, a rank of some tokens at a time, and its queries.

Letters: B batch, N new queries, M cached positions, H heads, D head size, R rank. Factors are rank-major; the last axis
of each is contiguous. A layout (A, B, C) is strides of M and R, numbers read at once, and those of a row to read.
"""

import triton
import triton.language as tl

from lit_t6.ops.kernels.parts import _across_rows, _of_rows


@triton.jit
def _load_heads(a_ptr, offs_m, mask_m, offs_h, STRIDE_M: tl.constexpr, NUM_READ: tl.constexpr):
    """(tokens, heads) of one rank."""
    mask = mask_m[:, None] & (offs_h < NUM_READ)[None, :]
    return tl.load(a_ptr + offs_m[:, None] * STRIDE_M + offs_h[None, :], mask=mask, other=0.0)


@triton.jit
def _load_features(
    b_ptr,
    c_ptr,
    cos_ptr,
    sin_ptr,
    offs_m,
    mask_m,
    offs_d,
    STRIDE_M: tl.constexpr,
    C_STRIDE_M: tl.constexpr,
    SIZE: tl.constexpr,
    THIRD_ORDER: tl.constexpr,
    ROTATED: tl.constexpr,
):
    """(tokens, features) of one rank: b; or vec(b ⊗ c), c the slow axis, if b has THIRD_ORDER features; b rotated in
    its first ROTATED features by the angles of its token.
    """
    mask = mask_m[:, None] & (offs_d < SIZE)[None, :]
    place = offs_d % THIRD_ORDER if THIRD_ORDER else offs_d
    x = tl.load(b_ptr + offs_m[:, None] * STRIDE_M + place[None, :], mask=mask, other=0.0)
    if ROTATED:
        HALF: tl.constexpr = ROTATED // 2
        turns = place < ROTATED
        first = place < HALF
        partner = tl.where(first, place + HALF, tl.where(turns, place - HALF, place))
        y = tl.load(b_ptr + offs_m[:, None] * STRIDE_M + partner[None, :], mask=mask, other=0.0)
        angle = offs_m[:, None] * HALF + (place % HALF)[None, :]
        cos = tl.load(cos_ptr + angle, mask=mask & turns[None, :], other=1.0)
        sin = tl.load(sin_ptr + angle, mask=mask & turns[None, :], other=0.0)
        turned = x.to(tl.float32) * cos + y.to(tl.float32) * tl.where(first[None, :], sin, -sin)
        x = turned.to(x.dtype)
    if THIRD_ORDER:
        c = tl.load(c_ptr + offs_m[:, None] * C_STRIDE_M + (offs_d // THIRD_ORDER)[None, :], mask=mask, other=0.0)
        x = (x.to(tl.float32) * c.to(tl.float32)).to(x.dtype)
    return x


@triton.jit
def _load_rank(
    a_ptr,
    b_ptr,
    c_ptr,
    cos_ptr,
    sin_ptr,
    begin,
    r,
    offs_m,
    mask_m,
    offs_h,
    offs_x,
    A: tl.constexpr,
    B: tl.constexpr,
    C: tl.constexpr,
    SIZE: tl.constexpr,
    THIRD_ORDER: tl.constexpr,
    ROTATED: tl.constexpr,
):
    """Of the tokens from `begin` on, one rank: (tokens, features) and (tokens, heads)."""
    b = _load_features(
        b_ptr + begin * B[0] + r * B[1],
        c_ptr + begin * C[0] + r * C[1],
        cos_ptr + begin * (ROTATED // 2),
        sin_ptr + begin * (ROTATED // 2),
        offs_m, mask_m, offs_x, B[0], C[0], SIZE, THIRD_ORDER, ROTATED,
    )  # fmt: skip
    return b, _load_heads(a_ptr + begin * A[0] + r * A[1], offs_m, mask_m, offs_h, A[0], A[3])


@triton.jit
def _load_queries(
    aq_ptr,
    bq_ptr,
    batch,
    row_n,
    row_h,
    mask_row,
    offs_h,
    offs_d,
    NUM_QUERIES: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    RANK_Q: tl.constexpr,
    BLOCK_R: tl.constexpr,
    ROWS_FIRST: tl.constexpr,
):
    """The queries' factors, (ranks, heads) and (ranks, features); or, dense, (D, rows) or (rows, D), and nothing."""
    if RANK_Q:
        offs_r = tl.arange(0, BLOCK_R)
        aq = tl.load(
            aq_ptr + (batch * RANK_Q + offs_r[:, None]) * NUM_HEADS + offs_h[None, :],
            mask=(offs_r < RANK_Q)[:, None] & (offs_h < NUM_HEADS)[None, :],
            other=0.0,
        )
        bq = tl.load(
            bq_ptr + (batch * RANK_Q + offs_r[:, None]) * HEAD_DIM + offs_d[None, :],
            mask=(offs_r < RANK_Q)[:, None] & (offs_d < HEAD_DIM)[None, :],
            other=0.0,
        )
        return aq, bq
    else:  # noqa: RET505 Triton compiles what follows an if
        place = ((batch * NUM_QUERIES + row_n) * NUM_HEADS + row_h) * HEAD_DIM
        q = tl.load(
            bq_ptr + _of_rows(place, ROWS_FIRST) + _across_rows(offs_d, ROWS_FIRST),
            mask=_of_rows(mask_row, ROWS_FIRST) & _across_rows(offs_d < HEAD_DIM, ROWS_FIRST),
            other=0.0,
        )
        return q, 0


@triton.jit
def _form_queries(x, y, kind, RANK_Q: tl.constexpr, ROWS_FIRST: tl.constexpr, PRECISION: tl.constexpr):
    """Of what `_load_queries` gives, (D, rows) or (rows, D)."""
    if RANK_Q:
        left, right = (x, y) if ROWS_FIRST else (y, x)
        return tl.dot(tl.trans(left), right, input_precision=PRECISION).to(kind)
    else:  # noqa: RET505 likewise
        return x.to(kind)
