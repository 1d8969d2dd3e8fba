"""The way back of causal attention on Hopper GPUs (`warp_groups.py`).

Letters: B batch, T positions, H heads, D head size (64); M queries (64) and N keys (128) of a tile; S logits,
P weights, O the result, dX the gradient of X. S and P are kept transposed, (keys × queries):

    Sᵀ = K Qᵀ      dPᵀ = V dOᵀ      Pᵀ = 2^(scale·log₂e·Sᵀ − lse₂)      dSᵀ = Pᵀ ⊙ (dPᵀ − δ)
    dV += Pᵀ dO    dK += dSᵀ Q      dQ += dS K

so that Pᵀ and dSᵀ go from the accumulators of two products into two others without leaving the registers; dQ alone
takes dS from shared memory. lse₂ and δ, the sums of dO ⊙ O, are made beforehand (`attention_sums.py`).

A row of tiles is one head's N keys with all queries that see them. Two warp groups have half of its keys each, with
their dK and dV; a third one sums up dQ; one warp loads. The second half of the keys is seen by
none of the first M queries: the warp groups take turns at having it.

dQ is summed over keys by atomics in float32, in the order in which the registers hold it, 16 bytes an atomic and whole
lines of memory a warp: where a number stands then, `QueryGradient` says (`lit_t6/ops/dense/hopper.py`). With STORES, a
head's row 0, which all queries see, stores it and sets a flag, and the warp group that sums up dQ waits for that before
the first atomic of another row: lists of work must have row 0 before the others (`work_lists.deal`).
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from lit_t6.ops.dense.kernels.warp_groups import barrier, load_async, row_of, store_rows, wait_for


@gluon.jit
def _load(
    descriptors,  # of q, k, v, dO as (B·T, H·D), in tiles of (M, D), and of the lines, (…, M), two at a time
    buffers,  # of q, dO, lines, k, v, dS
    barriers,  # full and empty: of queries, of keys, of dS
    work,  # the list of rows, the first one's place in it, tiles of a head, T, H
    M: gl.constexpr,
    D: gl.constexpr,
    STAGES: gl.constexpr,
):
    q, k, v, do, lines = descriptors
    q_s, do_s, lines_s, k_s, v_s, _ = buffers
    full_q, empty_q, full_k, empty_k, _, _ = barriers
    rows_ptr, at, tiles, length, num_heads = work
    head, row = row_of(rows_ptr, at)
    tile = 0
    turn = 0
    while head >= 0:
        start = head // num_heads * length
        column = head % num_heads * D
        ring = turn & 1
        mbarrier.wait(empty_k.index(ring), ((turn >> 1) & 1) ^ 1)
        mbarrier.expect(full_k.index(ring), 4 * M * D * 2)
        for half in gl.static_range(2):
            place = start + (2 * row + half) * M
            load_async(k, [place, column], full_k.index(ring), k_s.index(2 * ring + half))
            load_async(v, [place, column], full_k.index(ring), v_s.index(2 * ring + half))
        for i in range(2 * row, tiles):
            slot = tile % STAGES
            mbarrier.wait(empty_q.index(slot), ((tile // STAGES) & 1) ^ 1)
            mbarrier.expect(full_q.index(slot), 2 * M * D * 2 + 2 * M * 4)
            load_async(q, [start + i * M, column], full_q.index(slot), q_s.index(slot))
            load_async(do, [start + i * M, column], full_q.index(slot), do_s.index(slot))
            load_async(lines, [(head * tiles + i) * 2, 0], full_q.index(slot), lines_s.index(slot))
            tile += 1
        at += 1
        turn += 1
        head, row = row_of(rows_ptr, at)


@gluon.jit
def _of_keys(
    GROUP: gl.constexpr,  # 0 or 1
    dk_ptr,
    dv_ptr,
    scale,
    buffers,
    barriers,
    work,
    M: gl.constexpr,
    D: gl.constexpr,
    STAGES: gl.constexpr,
):
    q_s, do_s, lines_s, k_s, v_s, ds_s = buffers
    full_q, empty_q, full_k, empty_k, full_ds, empty_ds = barriers
    rows_ptr, at, tiles, length, num_heads = work
    dtype: gl.constexpr = q_s.dtype
    LOGITS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, M, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    FACTOR: gl.constexpr = gl.DotOperandLayout(0, LOGITS, 2)
    key_in = gl.arange(0, M, layout=gl.SliceLayout(1, LOGITS))
    query_in = gl.arange(0, M, layout=gl.SliceLayout(0, LOGITS))
    scale_log2 = scale * 1.4426950408889634
    zeros = gl.zeros([M, M], gl.float32, LOGITS)
    head, row = row_of(rows_ptr, at)
    tile = 0
    turn = 0
    while head >= 0:
        ring = turn & 1
        mbarrier.wait(full_k.index(ring), (turn >> 1) & 1)
        half = (GROUP + turn) & 1
        k = k_s.index(2 * ring + half)
        v = v_s.index(2 * ring + half)
        dv = gl.zeros([M, D], gl.float32, SUMS)
        dk = gl.zeros([M, D], gl.float32, SUMS)
        if half == 1:  # none of the first queries sees these keys
            slot = tile % STAGES
            mbarrier.wait(full_q.index(slot), (tile // STAGES) & 1)
            mbarrier.wait(empty_ds.index(tile & 1), ((tile >> 1) & 1) ^ 1)
            barrier()  # all have seen it, before the buffers may have other contents
            mbarrier.arrive(full_ds.index(tile & 1), count=1)
            mbarrier.arrive(empty_q.index(slot), count=1)
            tile += 1
        for i in range(2 * row + half, tiles):
            slot = tile % STAGES
            mbarrier.wait(full_q.index(slot), (tile // STAGES) & 1)
            s_later = warpgroup_mma(k, q_s.index(slot).permute((1, 0)), zeros, use_acc=False, is_async=True)
            dp_later = warpgroup_mma(v, do_s.index(slot).permute((1, 0)), zeros, use_acc=False, is_async=True)
            lse2 = lines_s.index(slot).slice(0, 1).load(LOGITS)
            delta = lines_s.index(slot).slice(1, 1).load(LOGITS)
            s = warpgroup_mma_wait(1, [s_later])
            p = gl.exp2(s * scale_log2 - lse2)
            if i == 2 * row + half:
                p = gl.where(query_in[None, :] >= key_in[:, None], p, 0.0)
            p_factor = gl.convert_layout(p.to(dtype), FACTOR)
            dv_later = warpgroup_mma(p_factor, do_s.index(slot), dv, is_async=True)
            dp = warpgroup_mma_wait(1, [dp_later])
            ds = (p * (dp - delta)).to(dtype)
            ds_factor = gl.convert_layout(ds, FACTOR)
            mbarrier.wait(empty_ds.index(tile & 1), ((tile >> 1) & 1) ^ 1)
            ds_s.index(2 * (tile & 1) + half).store(ds)
            fence_async_shared()  # who multiplies by it reads through another way to shared memory
            dk_later = warpgroup_mma(ds_factor, q_s.index(slot), dk, is_async=True)
            barrier()
            mbarrier.arrive(full_ds.index(tile & 1), count=1)
            dv, dk = warpgroup_mma_wait(0, [dv_later, dk_later])
            barrier()
            mbarrier.arrive(empty_q.index(slot), count=1)
            tile += 1
        first = (2 * row + half) * M
        store_rows(dk_ptr, dk * scale, v, head, first, length, num_heads, D, M)  # V is not needed any more
        store_rows(dv_ptr, dv, v, head, first, length, num_heads, D, M)
        fence_async_shared()
        barrier()
        mbarrier.arrive(empty_k.index(ring), count=1)
        at += 1
        turn += 1
        head, row = row_of(rows_ptr, at)


@gluon.jit
def _of_queries(
    dq_ptr,
    stored_ptr,
    buffers,
    barriers,
    work,
    M: gl.constexpr,
    D: gl.constexpr,
    STORES: gl.constexpr,
):
    _, _, _, k_s, _, ds_s = buffers
    _, _, full_k, empty_k, full_ds, empty_ds = barriers
    rows_ptr, at, tiles, _, _ = work
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    # The order of the registers: bits of a number's place that a thread's, a warp's lanes and the warps count.
    ORDER: gl.constexpr = gl.DistributedLinearLayout(
        [[1], [2], [128], [256], [512]], [[4], [8], [16], [32], [64]], [[1024], [2048]], [], [M * D]
    )
    zeros = gl.zeros([M, D], gl.float32, SUMS)
    inside = gl.arange(0, M * D, layout=ORDER)
    head, row = row_of(rows_ptr, at)
    tile = 0
    turn = 0
    while head >= 0:
        ring = turn & 1
        if STORES:  # noqa: SIM102, which of them is known when compiling
            if row > 0:
                wait_for(stored_ptr + head)
        mbarrier.wait(full_k.index(ring), (turn >> 1) & 1)
        for i in range(2 * row, tiles):
            buffer = tile & 1
            mbarrier.wait(full_ds.index(buffer), (tile >> 1) & 1)
            ds = ds_s.index(2 * buffer).permute((1, 0))
            later = warpgroup_mma(ds, k_s.index(2 * ring), zeros, use_acc=False, is_async=True)
            dq = warpgroup_mma_wait(0, [later])
            if i != 2 * row:
                ds = ds_s.index(2 * buffer + 1).permute((1, 0))
                later = warpgroup_mma(ds, k_s.index(2 * ring + 1), dq, is_async=True)
                dq = warpgroup_mma_wait(0, [later])
            barrier()
            mbarrier.arrive(empty_ds.index(buffer), count=1)
            x = gl.reshape(dq, [M // 16, 2, 8, D // 16, 2, 4, 2])
            x = gl.reshape(gl.permute(x, [0, 1, 3, 2, 5, 4, 6]), [M * D])
            x = gl.convert_layout(x, ORDER, assert_trivial=True)
            places = dq_ptr + (head.to(gl.int64) * tiles + i) * (M * D) + inside
            if STORES:
                if row == 0:
                    gl.store(places, x)
                else:
                    gl.atomic_add(places, x, sem="relaxed")
            else:
                gl.atomic_add(places, x, sem="relaxed")
            tile += 1
        barrier()
        if STORES:  # noqa: SIM102, which of them is known when compiling
            if row == 0:
                gl.atomic_xchg(stored_ptr + head, 1, sem="release")
        mbarrier.arrive(empty_k.index(ring), count=1)
        at += 1
        turn += 1
        head, row = row_of(rows_ptr, at)


@gluon.jit(do_not_specialize=["length", "num_heads"])
def _dense_attention_bwd_kernel(
    q,  # descriptors, as _load takes them
    k,
    v,
    do,
    lines,  # of lse₂ and δ, in turn, (B·H·tiles·2, M) float32; lse₂ behind the last position is infinite
    dq_ptr,  # (B, H, tiles, M·D) float32, zeros unless STORES
    stored_ptr,  # (B·H,) int32, zeros: whether the first row has stored
    dk_ptr,  # (B, T, H, D), contiguous
    dv_ptr,
    length,  # T
    num_heads,  # H
    scale,  # of the logits
    starts_ptr,  # where each program's rows begin in the next
    rows_ptr,
    M: gl.constexpr,
    D: gl.constexpr,
    STAGES: gl.constexpr,
    REGISTERS: gl.constexpr,  # of a thread that has keys, and of one that has queries
    STORES: gl.constexpr,  # whether a head's first row of tiles, which has all queries, stores what others add to
):
    dtype: gl.constexpr = q.dtype
    TURNED: gl.constexpr = gl.NVMMASharedLayout.get_default_for([M, M], dtype)
    AT: gl.constexpr = mbarrier.MBarrierLayout()
    k_s = gl.allocate_shared_memory(dtype, [4, M, D], k.layout)
    v_s = gl.allocate_shared_memory(dtype, [4, M, D], v.layout)
    q_s = gl.allocate_shared_memory(dtype, [STAGES, M, D], q.layout)
    do_s = gl.allocate_shared_memory(dtype, [STAGES, M, D], do.layout)
    ds_s = gl.allocate_shared_memory(dtype, [4, M, M], TURNED)
    lines_s = gl.allocate_shared_memory(gl.float32, [STAGES, 2, M], lines.layout)
    full_q = gl.allocate_shared_memory(gl.int64, [STAGES, 1], AT)
    empty_q = gl.allocate_shared_memory(gl.int64, [STAGES, 1], AT)
    full_k = gl.allocate_shared_memory(gl.int64, [2, 1], AT)
    empty_k = gl.allocate_shared_memory(gl.int64, [2, 1], AT)
    full_ds = gl.allocate_shared_memory(gl.int64, [2, 1], AT)
    empty_ds = gl.allocate_shared_memory(gl.int64, [2, 1], AT)
    for x in gl.static_range(STAGES):
        mbarrier.init(full_q.index(x), count=1)
        mbarrier.init(empty_q.index(x), count=2)
    for x in gl.static_range(2):
        mbarrier.init(full_k.index(x), count=1)
        mbarrier.init(empty_k.index(x), count=3)
        mbarrier.init(full_ds.index(x), count=2)
        mbarrier.init(empty_ds.index(x), count=1)
    fence_async_shared()
    barrier()
    tiles = gl.cdiv(length, 2 * M) * 2
    at = gl.load(starts_ptr + gl.program_id(0))
    buffers = (q_s, do_s, lines_s, k_s, v_s, ds_s)
    barriers = (full_q, empty_q, full_k, empty_k, full_ds, empty_ds)
    work = (rows_ptr, at, tiles, length, num_heads)
    gl.warp_specialize(
        [
            (_of_keys, (0, dk_ptr, dv_ptr, scale, buffers, barriers, work, M, D, STAGES)),
            (_of_keys, (1, dk_ptr, dv_ptr, scale, buffers, barriers, work, M, D, STAGES)),
            (_of_queries, (dq_ptr, stored_ptr, buffers, barriers, work, M, D, STORES)),
            (_load, ((q, k, v, do, lines), buffers, barriers, work, M, D, STAGES)),
        ],
        [4, 4, 1],
        [REGISTERS[0], REGISTERS[1], 24],
    )
