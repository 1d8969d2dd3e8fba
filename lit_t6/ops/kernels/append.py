"""Writing new tokens into a cache.

Letters: B batch, N new positions, M cached positions, P rotated features of a row.
"""

import triton
import triton.language as tl

from lit_t6.ops.kernels.parts import _let_next_start


@triton.jit
def _copy(
    new_ptr,
    new_stride_b,
    new_stride_n,
    to_ptr,
    to_stride_b,
    cos_ptr,
    sin_ptr,
    batch,
    number,
    place,
    PIECE: tl.constexpr,  # rows, numbers of a row, strides of rows there and here and of tokens here, P, whether kept
):
    BLOCK: tl.constexpr = triton.next_power_of_2(PIECE[0] * PIECE[1])
    offs = tl.arange(0, BLOCK)
    row, column = offs // PIECE[1], offs % PIECE[1]
    mask = row < PIECE[0]
    new_ptr += batch * new_stride_b + number * new_stride_n
    x = tl.load(new_ptr + row * PIECE[2] + column, mask=mask)
    if PIECE[5]:
        HALF: tl.constexpr = PIECE[5] // 2
        first = column < HALF
        turns = column < PIECE[5]
        partner = tl.where(first, column + HALF, tl.where(turns, column - HALF, column))
        y = tl.load(new_ptr + row * PIECE[2] + partner, mask=mask)
        angle = place * HALF + column % HALF
        cos = tl.load(cos_ptr + angle, mask=mask & turns, other=1.0)
        sin = tl.load(sin_ptr + angle, mask=mask & turns, other=0.0)
        x = (x.to(tl.float32) * cos + y.to(tl.float32) * tl.where(first, sin, -sin)).to(x.dtype)
    to_ptr += batch * to_stride_b + (place if PIECE[6] else number) * PIECE[4]
    tl.store(to_ptr + row * PIECE[3] + column, x.to(to_ptr.dtype.element_ty), mask=mask)


@triton.jit(
    do_not_specialize=[
        "num_new",
        *(f"{name}{i}_stride_{s}" for i in range(9) for name, s in (("new", "b"), ("new", "n"), ("to", "b"))),
    ]
)
def _append_kernel(
    lengths_ptr,  # (B,) int64, before the new tokens
    cos_ptr,  # (at least M, P / 2) float32
    sin_ptr,
    num_new,  # N
    new0_ptr, new0_stride_b, new0_stride_n, to0_ptr, to0_stride_b,
    new1_ptr, new1_stride_b, new1_stride_n, to1_ptr, to1_stride_b,
    new2_ptr, new2_stride_b, new2_stride_n, to2_ptr, to2_stride_b,
    new3_ptr, new3_stride_b, new3_stride_n, to3_ptr, to3_stride_b,
    new4_ptr, new4_stride_b, new4_stride_n, to4_ptr, to4_stride_b,
    new5_ptr, new5_stride_b, new5_stride_n, to5_ptr, to5_stride_b,
    new6_ptr, new6_stride_b, new6_stride_n, to6_ptr, to6_stride_b,
    new7_ptr, new7_stride_b, new7_stride_n, to7_ptr, to7_stride_b,
    new8_ptr, new8_stride_b, new8_stride_n, to8_ptr, to8_stride_b,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    P3: tl.constexpr,
    P4: tl.constexpr,
    P5: tl.constexpr,
    P6: tl.constexpr,
    P7: tl.constexpr,
    P8: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    _let_next_start(EARLY)
    b = (tl.program_id(0) // num_new).to(tl.int64)
    n = (tl.program_id(0) % num_new).to(tl.int64)
    m = tl.load(lengths_ptr + b) + n
    which = tl.program_id(1)
    if which == 0:
        _copy(new0_ptr, new0_stride_b, new0_stride_n, to0_ptr, to0_stride_b, cos_ptr, sin_ptr, b, n, m, P0)
    elif which == 1:
        _copy(new1_ptr, new1_stride_b, new1_stride_n, to1_ptr, to1_stride_b, cos_ptr, sin_ptr, b, n, m, P1)
    elif which == 2:
        _copy(new2_ptr, new2_stride_b, new2_stride_n, to2_ptr, to2_stride_b, cos_ptr, sin_ptr, b, n, m, P2)
    elif which == 3:
        _copy(new3_ptr, new3_stride_b, new3_stride_n, to3_ptr, to3_stride_b, cos_ptr, sin_ptr, b, n, m, P3)
    elif which == 4:
        _copy(new4_ptr, new4_stride_b, new4_stride_n, to4_ptr, to4_stride_b, cos_ptr, sin_ptr, b, n, m, P4)
    elif which == 5:
        _copy(new5_ptr, new5_stride_b, new5_stride_n, to5_ptr, to5_stride_b, cos_ptr, sin_ptr, b, n, m, P5)
    elif which == 6:
        _copy(new6_ptr, new6_stride_b, new6_stride_n, to6_ptr, to6_stride_b, cos_ptr, sin_ptr, b, n, m, P6)
    elif which == 7:
        _copy(new7_ptr, new7_stride_b, new7_stride_n, to7_ptr, to7_stride_b, cos_ptr, sin_ptr, b, n, m, P7)
    else:
        _copy(new8_ptr, new8_stride_b, new8_stride_n, to8_ptr, to8_stride_b, cos_ptr, sin_ptr, b, n, m, P8)
