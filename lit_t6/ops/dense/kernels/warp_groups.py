"""What kernels of attention on Hopper GPUs do alike, in Gluon: Triton's lower language, in which layouts are our own.

The warps of a program have different work (warp specialization): one warp loads tiles by the bulk tensor copy engine,
warp groups of four multiply them. In a program they wait for each other at barriers in shared memory only: whether a
buffer is full, whether it is empty. A buffer's n-th use, from 0, waits for phase n & 1 of "full", and for the other one
of "empty". So one's exponentials are taken while another's products are formed. For another program they wait by flags.

There are as many programs as multiprocessors. A list says which rows of tiles each takes, one after the other.

Letters: B batch, T positions, H heads, D head size.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma

# Newer releases have other names for them.
barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier
load_async = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared


@gluon.jit
def row_of(
    rows_ptr,  # pairs of (head of all, row of tiles); behind the last one, a negative head
    at,
):
    return gl.load(rows_ptr + 2 * at), gl.load(rows_ptr + 2 * at + 1)


@gluon.jit
def wait_for(
    ptr,  # of a whole number, which another program sets
):
    """Wait until it is not 0; what was written before it was set can be read then."""
    seen = 0
    while seen == 0:
        seen = gl.inline_asm_elementwise(
            "ld.acquire.gpu.global.b32 $0, [$1];", "=r,l", [ptr], dtype=gl.int32, is_pure=False, pack=1
        )
    barrier()


@gluon.jit
def store_rows(
    ptr,  # (B, T, H, D), contiguous
    x,  # (ROWS, D)
    scratch,  # as large, in shared memory
    head,  # b·H + h
    first,  # position of the first row
    length,  # T: what lies behind it is not stored
    num_heads,  # H
    D: gl.constexpr,
    ROWS: gl.constexpr,
):
    """16 bytes at a time: through shared memory, as registers hold a row in pieces."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [32 * 8 // D, D // 8], [4, 1], [1, 0])
    scratch.store(x.to(ptr.dtype.element_ty))
    barrier()
    y = scratch.load(LAYOUT)
    inside = gl.arange(0, ROWS, layout=gl.SliceLayout(1, LAYOUT))
    cols = gl.arange(0, D, layout=gl.SliceLayout(0, LAYOUT))
    start = ((head // num_heads).to(gl.int64) * length + first) * (num_heads * D) + head % num_heads * D
    places = ptr + start + (inside[:, None] * (num_heads * D) + cols[None, :])
    gl.store(places, y, mask=(first + inside < length)[:, None] & (cols < D)[None, :])
    barrier()
