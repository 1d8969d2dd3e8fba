"""Writing new tokens into a cache. Letters: B batch, N new positions, M cached positions, R rows of a token."""

import triton
import triton.language as tl


@triton.jit
def _copy(
    new_ptr,
    new_stride_b,
    new_stride_n,
    kept_ptr,
    kept_stride_b,
    batch,
    position,
    place,
    SHAPE: tl.constexpr,  # (rows of a token, numbers of a row, stride of rows of new, of kept, stride of M)
):
    BLOCK: tl.constexpr = triton.next_power_of_2(SHAPE[0] * SHAPE[1])
    offs = tl.arange(0, BLOCK)
    row, column = offs // SHAPE[1], offs % SHAPE[1]
    mask = row < SHAPE[0]
    new = tl.load(new_ptr + batch * new_stride_b + position * new_stride_n + row * SHAPE[2] + column, mask=mask)
    to = kept_ptr + batch * kept_stride_b + place * SHAPE[4] + row * SHAPE[3] + column
    tl.store(to, new.to(kept_ptr.dtype.element_ty), mask=mask)


@triton.jit(
    do_not_specialize=[
        "num_new",
        *(f"{x}{i}_stride_{s}" for i in range(6) for x, s in (("n", "b"), ("n", "n"), ("k", "b"))),
    ]
)
def _append_kernel(
    lengths_ptr,  # (B,) int64, before the new tokens
    num_new,  # N
    n0_ptr, n0_stride_b, n0_stride_n, k0_ptr, k0_stride_b,
    n1_ptr, n1_stride_b, n1_stride_n, k1_ptr, k1_stride_b,
    n2_ptr, n2_stride_b, n2_stride_n, k2_ptr, k2_stride_b,
    n3_ptr, n3_stride_b, n3_stride_n, k3_ptr, k3_stride_b,
    n4_ptr, n4_stride_b, n4_stride_n, k4_ptr, k4_stride_b,
    n5_ptr, n5_stride_b, n5_stride_n, k5_ptr, k5_stride_b,
    SHAPE0: tl.constexpr,
    SHAPE1: tl.constexpr,
    SHAPE2: tl.constexpr,
    SHAPE3: tl.constexpr,
    SHAPE4: tl.constexpr,
    SHAPE5: tl.constexpr,
):  # fmt: skip
    batch = (tl.program_id(0) // num_new).to(tl.int64)
    position = (tl.program_id(0) % num_new).to(tl.int64)
    place = tl.load(lengths_ptr + batch) + position
    which = tl.program_id(1)
    if which == 0:
        _copy(n0_ptr, n0_stride_b, n0_stride_n, k0_ptr, k0_stride_b, batch, position, place, SHAPE0)
    elif which == 1:
        _copy(n1_ptr, n1_stride_b, n1_stride_n, k1_ptr, k1_stride_b, batch, position, place, SHAPE1)
    elif which == 2:
        _copy(n2_ptr, n2_stride_b, n2_stride_n, k2_ptr, k2_stride_b, batch, position, place, SHAPE2)
    elif which == 3:
        _copy(n3_ptr, n3_stride_b, n3_stride_n, k3_ptr, k3_stride_b, batch, position, place, SHAPE3)
    elif which == 4:
        _copy(n4_ptr, n4_stride_b, n4_stride_n, k4_ptr, k4_stride_b, batch, position, place, SHAPE4)
    else:
        _copy(n5_ptr, n5_stride_b, n5_stride_n, k5_ptr, k5_stride_b, batch, position, place, SHAPE5)
