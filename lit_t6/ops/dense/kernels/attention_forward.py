"""Causal attention of a sequence to itself on Hopper GPUs (`warp_groups.py`).

Letters: B batch, T positions, H heads, D head size (64); M queries (64) of a warp group, N keys of a tile. A row of
tiles is one head's M queries of each warp group with all keys that any of them sees. One warp loads; each warp group
keeps its queries, their sums and the highest logit of each query so far (Milakov & Gimelshein, arXiv 1805.02867), to
which weights are relative. Logits are to the base of 2.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from lit_t6.ops.dense.kernels.warp_groups import barrier, load_async, row_of, store_rows


@gluon.jit
def _tiles_of(row, length, GROUPS: gl.constexpr, M: gl.constexpr, N: gl.constexpr):
    """Tiles of keys of a row."""
    return gl.cdiv(gl.minimum((row + 1) * GROUPS * M, length), N)


@gluon.jit
def _load(
    descriptors,  # of q as (B·T, H·D), in tiles of (M, D), of k and v in tiles of (N, D)
    buffers,  # of q, k, v
    barriers,  # full and empty: of queries; full ones of keys and values, and empty of both
    work,  # the list of rows, the first one's place in it, T, H
    M: gl.constexpr,
    N: gl.constexpr,
    D: gl.constexpr,
    STAGES: gl.constexpr,
    GROUPS: gl.constexpr,
):
    q, k, v = descriptors
    q_s, k_s, v_s = buffers
    full_q, empty_q, full_k, full_v, empty = barriers
    rows_ptr, at, length, num_heads = work
    head, row = row_of(rows_ptr, at)
    tile = 0
    turn = 0
    while head >= 0:
        start = head // num_heads * length
        column = head % num_heads * D
        ring = turn & 1
        mbarrier.wait(empty_q.index(ring), ((turn >> 1) & 1) ^ 1)
        mbarrier.expect(full_q.index(ring), GROUPS * M * D * 2)
        for group in gl.static_range(GROUPS):
            place = start + (GROUPS * row + group) * M
            load_async(q, [place, column], full_q.index(ring), q_s.index(GROUPS * ring + group))
        for i in range(_tiles_of(row, length, GROUPS, M, N)):
            slot = tile % STAGES
            mbarrier.wait(empty.index(slot), ((tile // STAGES) & 1) ^ 1)
            mbarrier.expect(full_k.index(slot), N * D * 2)
            load_async(k, [start + i * N, column], full_k.index(slot), k_s.index(slot))
            mbarrier.expect(full_v.index(slot), N * D * 2)
            load_async(v, [start + i * N, column], full_v.index(slot), v_s.index(slot))
            tile += 1
        at += 1
        turn += 1
        head, row = row_of(rows_ptr, at)


@gluon.jit
def _attend(
    GROUP: gl.constexpr,  # which one this is
    out_ptr,
    lse_ptr,
    scale,
    buffers,
    barriers,
    work,
    M: gl.constexpr,
    N: gl.constexpr,
    D: gl.constexpr,
    STAGES: gl.constexpr,
    GROUPS: gl.constexpr,
):
    q_s, k_s, v_s = buffers
    full_q, empty_q, full_k, full_v, empty = barriers
    rows_ptr, at, length, num_heads = work
    dtype: gl.constexpr = q_s.dtype
    LOGITS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    FACTOR: gl.constexpr = gl.DotOperandLayout(0, SUMS, 2)
    query_in = gl.arange(0, M, layout=gl.SliceLayout(1, LOGITS))
    key_in = gl.arange(0, N, layout=gl.SliceLayout(0, LOGITS))
    scale_log2 = scale * 1.4426950408889634
    zeros = gl.zeros([M, N], gl.float32, LOGITS)
    head, row = row_of(rows_ptr, at)
    tile = 0
    turn = 0
    while head >= 0:
        ring = turn & 1
        mbarrier.wait(full_q.index(ring), (turn >> 1) & 1)
        q = q_s.index(GROUPS * ring + GROUP)
        out = gl.zeros([M, D], gl.float32, SUMS)
        highest = gl.full([M], float("-inf"), gl.float32, gl.SliceLayout(1, LOGITS))
        total = gl.zeros([M], gl.float32, gl.SliceLayout(1, LOGITS))
        first = (GROUPS * row + GROUP) * M
        every = _tiles_of(row, length, GROUPS, M, N)
        own = gl.minimum(every, gl.where(first < length, gl.cdiv(first + M, N), 0))
        for i in range(own):
            slot = tile % STAGES
            mbarrier.wait(full_k.index(slot), (tile // STAGES) & 1)
            s_later = warpgroup_mma(q, k_s.index(slot).permute((1, 0)), zeros, use_acc=False, is_async=True)
            s = warpgroup_mma_wait(0, [s_later])
            if (i + 1) * N > first:
                s = gl.where((query_in + (first - i * N))[:, None] >= key_in[None, :], s, float("-inf"))
            higher = gl.maximum(highest, gl.max(s, 1) * scale_log2)  # the scale is positive
            p = gl.exp2(s * scale_log2 - higher[:, None])
            kept = gl.exp2(highest - higher)
            highest = higher
            total = total * kept + gl.sum(p, 1)
            out = out * gl.convert_layout(kept, gl.SliceLayout(1, SUMS))[:, None]
            p_factor = gl.convert_layout(p.to(dtype), FACTOR)
            mbarrier.wait(full_v.index(slot), (tile // STAGES) & 1)
            later = warpgroup_mma(p_factor, v_s.index(slot), out, is_async=True)
            out = warpgroup_mma_wait(0, [later])
            barrier()
            mbarrier.arrive(empty.index(slot), count=1)
            tile += 1
        for _i in range(own, every):  # keys that other warp groups see
            slot = tile % STAGES
            mbarrier.wait(full_k.index(slot), (tile // STAGES) & 1)
            mbarrier.wait(full_v.index(slot), (tile // STAGES) & 1)
            barrier()  # all have seen it, before the buffers may have other contents
            mbarrier.arrive(empty.index(slot), count=1)
            tile += 1
        out = out / gl.convert_layout(total, gl.SliceLayout(1, SUMS))[:, None]
        store_rows(out_ptr, out, q, head, first, length, num_heads, D, M)  # these queries are not needed any more
        places = lse_ptr + head.to(gl.int64) * length + first + query_in
        gl.store(places, (highest + gl.log2(total)) * 0.6931471805599453, mask=first + query_in < length)
        fence_async_shared()
        barrier()
        mbarrier.arrive(empty_q.index(ring), count=1)
        at += 1
        turn += 1
        head, row = row_of(rows_ptr, at)


@gluon.jit(do_not_specialize=["length", "num_heads"])
def _dense_attention_fwd_kernel(
    q,  # descriptors, as _load takes them
    k,
    v,
    out_ptr,  # (B, T, H, D), contiguous
    lse_ptr,  # (B, H, T): natural logarithms of the sums of exponentials
    length,  # T
    num_heads,  # H
    scale,  # of the logits
    starts_ptr,  # where each program's rows begin in the next
    rows_ptr,
    M: gl.constexpr,
    N: gl.constexpr,
    D: gl.constexpr,
    STAGES: gl.constexpr,
    GROUPS: gl.constexpr,  # of warps: 3 or 4
    REGISTERS: gl.constexpr,  # of a thread of theirs
):
    dtype: gl.constexpr = q.dtype
    AT: gl.constexpr = mbarrier.MBarrierLayout()
    q_s = gl.allocate_shared_memory(dtype, [2 * GROUPS, M, D], q.layout)
    k_s = gl.allocate_shared_memory(dtype, [STAGES, N, D], k.layout)
    v_s = gl.allocate_shared_memory(dtype, [STAGES, N, D], v.layout)
    full_q = gl.allocate_shared_memory(gl.int64, [2, 1], AT)
    empty_q = gl.allocate_shared_memory(gl.int64, [2, 1], AT)
    full_k = gl.allocate_shared_memory(gl.int64, [STAGES, 1], AT)
    full_v = gl.allocate_shared_memory(gl.int64, [STAGES, 1], AT)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], AT)
    for x in gl.static_range(STAGES):
        mbarrier.init(full_k.index(x), count=1)
        mbarrier.init(full_v.index(x), count=1)
        mbarrier.init(empty.index(x), count=GROUPS)
    for x in gl.static_range(2):
        mbarrier.init(full_q.index(x), count=1)
        mbarrier.init(empty_q.index(x), count=GROUPS)
    fence_async_shared()
    barrier()
    at = gl.load(starts_ptr + gl.program_id(0))
    buffers = (q_s, k_s, v_s)
    barriers = (full_q, empty_q, full_k, full_v, empty)
    work = (rows_ptr, at, length, num_heads)
    if GROUPS == 3:
        gl.warp_specialize(
            [
                (_attend, (0, out_ptr, lse_ptr, scale, buffers, barriers, work, M, N, D, STAGES, GROUPS)),
                (_attend, (1, out_ptr, lse_ptr, scale, buffers, barriers, work, M, N, D, STAGES, GROUPS)),
                (_attend, (2, out_ptr, lse_ptr, scale, buffers, barriers, work, M, N, D, STAGES, GROUPS)),
                (_load, ((q, k, v), buffers, barriers, work, M, N, D, STAGES, GROUPS)),
            ],
            [4, 4, 1],
            [REGISTERS, REGISTERS, 24],
        )
    else:
        gl.warp_specialize(
            [
                (_attend, (0, out_ptr, lse_ptr, scale, buffers, barriers, work, M, N, D, STAGES, GROUPS)),
                (_attend, (1, out_ptr, lse_ptr, scale, buffers, barriers, work, M, N, D, STAGES, GROUPS)),
                (_attend, (2, out_ptr, lse_ptr, scale, buffers, barriers, work, M, N, D, STAGES, GROUPS)),
                (_attend, (3, out_ptr, lse_ptr, scale, buffers, barriers, work, M, N, D, STAGES, GROUPS)),
                (_load, ((q, k, v), buffers, barriers, work, M, N, D, STAGES, GROUPS)),
            ],
            [4, 4, 4, 1],
            [REGISTERS, REGISTERS, REGISTERS, 24],
        )
