"""The way back of causal attention on Hopper GPUs, in Gluon: Triton's lower language, in which layouts are our own.

Letters: B batch, T positions, H heads, D head size (64); M queries (64) and N keys (128) of a tile; S logits,
P weights, O the result, dX the gradient of X. S and P are kept transposed, (keys × queries):

    Sᵀ (N × M) = K Qᵀ      dPᵀ = V dOᵀ      Pᵀ = 2^(scale·log₂e·Sᵀ − lse₂)      dSᵀ = Pᵀ ⊙ (dPᵀ − δ)
    dV (N × D) += Pᵀ dO    dK += dSᵀ Q      dQ (M × D) += dS K

so that Pᵀ and dSᵀ go from the accumulators of two products into two others without leaving the registers; dQ alone
takes dS from shared memory. lse₂ and δ, the sums of dO ⊙ O, are made beforehand (`attention_sums.py`).

There are as many programs as multiprocessors. Each goes through the tiles of its rows (a row is one head's N keys with
all queries that see them) in one loop, from one row into the next, so that the matrix units do not wait where a row
begins: the next tile's logits are multiplied before this one's products, and queries come in two tiles ahead.

dQ is summed over keys by atomics in float32, in the order in which the registers hold it, 16 bytes an atomic: where a
number stands then, `QueryGradient` says (`lit_t6/ops/dense/attention_backward.py`).
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)

# Newer releases have another name for it.
_copy = async_copy.async_load if hasattr(async_copy, "async_load") else async_copy.async_copy_global_to_shared


@gluon.jit
def _load_tile(
    into,  # (ROWS, D) in shared memory
    ptr,  # of one head's first position
    start,  # first position
    length,  # T: what lies behind it becomes zeros
    stride_t,
    wanted,
    D: gl.constexpr,
    ROWS: gl.constexpr,
    EVEN: gl.constexpr,
    LOAD: gl.constexpr,
):
    inside = gl.arange(0, ROWS, layout=gl.SliceLayout(1, LOAD))
    cols = gl.arange(0, D, layout=gl.SliceLayout(0, LOAD))
    places = ptr + start.to(gl.int64) * stride_t + (inside[:, None] * stride_t + cols[None, :])
    if EVEN:
        mask = (inside >= 0)[:, None] & (cols >= 0)[None, :] & wanted
    else:
        mask = ((start + inside < length) & wanted)[:, None] & (cols >= 0)[None, :]
    _copy(into, places, mask)


@gluon.jit
def _load_queries(
    q_s,
    do_s,
    lse_s,
    delta_s,
    q_ptr,
    do_ptr,
    lse_ptr,
    delta_ptr,
    base,  # of the head in queries, in numbers
    line,  # of the head in sums
    block,
    wanted,
    length,
    stride_t,
    D: gl.constexpr,
    M: gl.constexpr,
    EVEN: gl.constexpr,
    LOAD: gl.constexpr,
    LINE: gl.constexpr,
):
    _load_tile(q_s, q_ptr + base, block * M, length, stride_t, wanted, D, M, EVEN, LOAD)
    _load_tile(do_s, do_ptr + base, block * M, length, stride_t, wanted, D, M, EVEN, LOAD)
    inside = gl.arange(0, M, layout=LINE)
    at = block * M + inside
    mask = (inside >= 0) & wanted if EVEN else (at < length) & wanted
    _copy(lse_s, lse_ptr + line + at, mask)
    _copy(delta_s, delta_ptr + line + at, mask)


@gluon.jit
def _add_dq(dq_ptr, dq, M: gl.constexpr, D: gl.constexpr):
    """Add a tile (M, D) to its place in tile order: FLAT says which number each register holds; nothing is moved."""
    x = gl.reshape(dq, [M // 16, 2, 8, D // 16, 2, 4, 2])
    x = gl.permute(x, [0, 1, 3, 2, 5, 4, 6])
    x = gl.reshape(x, [M * D])
    FLAT: gl.constexpr = gl.DistributedLinearLayout(
        [[1], [2], [128], [512]], [[4], [8], [16], [32], [64]], [[1024], [2048], [256]], [], [M * D]
    )
    x = gl.convert_layout(x, FLAT, assert_trivial=True)
    gl.atomic_add(dq_ptr + gl.arange(0, M * D, layout=FLAT), x, sem="relaxed")


@gluon.jit
def _store_row(
    ptr,
    x,  # (N, D) float32
    scratch,  # (N, D) in shared memory: rows of 16 bytes are stored, which accumulators do not hold
    base,
    row,
    length,
    stride_t,
    D: gl.constexpr,
    N: gl.constexpr,
    LOAD: gl.constexpr,
):
    scratch.store(x.to(ptr.dtype.element_ty))
    y = scratch.load(LOAD)
    inside = gl.arange(0, N, layout=gl.SliceLayout(1, LOAD))
    cols = gl.arange(0, D, layout=gl.SliceLayout(0, LOAD))
    start = row * N
    places = ptr + base + start.to(gl.int64) * stride_t + (inside[:, None] * stride_t + cols[None, :])
    gl.store(places, y, mask=(start + inside < length)[:, None] & (cols < D)[None, :])


@gluon.jit
def _row(rows_ptr, at, num_heads, length, stride_t, D: gl.constexpr):
    """A row of the plan: which of all heads, negative behind the end; which keys; where the head begins."""
    head = gl.load(rows_ptr + 2 * at)
    row = gl.load(rows_ptr + 2 * at + 1)
    return head, row, (head // num_heads).to(gl.int64) * length * stride_t + (head % num_heads) * D


@gluon.jit(do_not_specialize=["length", "num_heads"])
def _dense_attention_bwd_kernel(
    q_ptr,  # (B, T, H, D) contiguous, and the next three alike
    k_ptr,
    v_ptr,
    do_ptr,
    lse_ptr,  # (B, H, T): logarithms to the base of 2
    delta_ptr,  # (B, H, T)
    dq_ptr,  # in tile order, of zeros
    dk_ptr,  # (B, T, H, D)
    dv_ptr,
    length,  # T
    num_heads,  # H
    scale,
    starts_ptr,  # (programs,): where each one's rows begin
    rows_ptr,  # (head of all, keys / N) of each row, (−1, 0) behind the end of each program's
    M: gl.constexpr,
    D: gl.constexpr,
    EVEN: gl.constexpr,  # whether T is a multiple of N
):
    N: gl.constexpr = 128
    RATIO: gl.constexpr = N // M
    W: gl.constexpr = gl.num_warps()
    dtype: gl.constexpr = q_ptr.dtype.element_ty
    f32: gl.constexpr = gl.float32
    MMA: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [W, 1], [16, M, 16])
    MMA_D: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [W, 1], [16, D, 16])
    MMA_Q: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, W // 4], [16, D // (W // 4), 16])
    A: gl.constexpr = gl.DotOperandLayout(0, MMA, 2)
    LOAD: gl.constexpr = gl.BlockedLayout([1, 8], [32 * 8 // D, D // 8], [W, 1], [1, 0])
    LINE: gl.constexpr = gl.BlockedLayout([1], [32], [W], [0])
    TILE: gl.constexpr = gl.NVMMASharedLayout.get_default_for([M, D], dtype)
    KEYS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([N, D], dtype)
    TURN: gl.constexpr = gl.NVMMASharedLayout.get_default_for([N, M], dtype)
    FLAT: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    # Keys of this row and the next one; queries of this tile, of the next two, and of the last, still being read.
    k_s = gl.allocate_shared_memory(dtype, [2, N, D], KEYS)
    v_s = gl.allocate_shared_memory(dtype, [2, N, D], KEYS)
    q_s = gl.allocate_shared_memory(dtype, [4, M, D], TILE)
    do_s = gl.allocate_shared_memory(dtype, [4, M, D], TILE)
    ds_s = gl.allocate_shared_memory(dtype, [2, N, M], TURN)
    lse_s = gl.allocate_shared_memory(f32, [4, M], FLAT)
    delta_s = gl.allocate_shared_memory(f32, [4, M], FLAT)
    stride_t = num_heads * D
    tiles = gl.cdiv(length, N) * RATIO
    scale_log2 = scale * 1.4426950408889634
    at = gl.load(starts_ptr + gl.program_id(0))
    bh, j, base = _row(rows_ptr, at, num_heads, length, stride_t, D)
    bh1, j1, base1 = _row(rows_ptr, at + 1, num_heads, length, stride_t, D)
    if bh >= 0:
        i = j * RATIO
        line = bh.to(gl.int64) * length
        line1 = bh1.to(gl.int64) * length
        _load_tile(k_s.index(0), k_ptr + base, j * N, length, stride_t, bh >= 0, D, N, EVEN, LOAD)
        _load_tile(v_s.index(0), v_ptr + base, j * N, length, stride_t, bh >= 0, D, N, EVEN, LOAD)
        for ahead in gl.static_range(2):
            _load_queries(
                *(q_s.index(ahead), do_s.index(ahead), lse_s.index(ahead), delta_s.index(ahead)),
                *(q_ptr, do_ptr, lse_ptr, delta_ptr, base, line, i + ahead, bh >= 0, length, stride_t),
                *(D, M, EVEN, LOAD, LINE),
            )
            async_copy.commit_group()
        async_copy.wait_group(1)
        fence_async_shared()
        zeros = gl.zeros([N, M], f32, MMA)
        s_w = warpgroup_mma(k_s.index(0), q_s.index(0).permute((1, 0)), zeros, use_acc=False, is_async=True)
        dp_w = warpgroup_mma(v_s.index(0), do_s.index(0).permute((1, 0)), zeros, use_acc=False, is_async=True)
        lse = lse_s.index(0).load(gl.SliceLayout(0, MMA))
        delta = delta_s.index(0).load(gl.SliceLayout(0, MMA))
        s, dp = warpgroup_mma_wait(0, [s_w, dp_w])
        zeros_d = gl.zeros([N, D], f32, MMA_D)
        dv_w = warpgroup_mma_init(zeros_d)
        dk_w = warpgroup_mma_init(zeros_d)
        dq_w = warpgroup_mma_init(gl.zeros([M, D], f32, MMA_Q))
        key_in = gl.arange(0, N, layout=gl.SliceLayout(1, MMA))
        query_in = gl.arange(0, M, layout=gl.SliceLayout(0, MMA))
        t = 0  # tiles so far
        ring = 0  # which of the two places has this row's keys
        old_base = base
        old_j = j
        dq_place = dq_ptr
        while bh >= 0:
            slot = t & 3
            slot1 = (t + 1) & 3
            slot2 = (t + 2) & 3
            begins = i == j * RATIO
            ends = i + 1 == tiles
            same = i + 2 < tiles  # the tile after the next one is of this row
            i2 = gl.where(same, i + 2, j1 * RATIO + i + 2 - tiles)
            _load_queries(
                *(q_s.index(slot2), do_s.index(slot2), lse_s.index(slot2), delta_s.index(slot2)),
                *(q_ptr, do_ptr, lse_ptr, delta_ptr, gl.where(same, base, base1), gl.where(same, line, line1)),
                *(i2, same | (bh1 >= 0), length, stride_t, D, M, EVEN, LOAD, LINE),
            )
            async_copy.commit_group()
            p = gl.exp2(s * scale_log2 - lse[None, :])
            if i < (j + 1) * RATIO:
                p = gl.where((i * M - j * N + query_in)[None, :] >= key_in[:, None], p, 0.0)
            p_n = gl.convert_layout(p.to(dtype), A)
            ds = (p * (dp - delta[None, :])).to(dtype)
            ds_n = gl.convert_layout(ds, A)
            # The last tile's products, begun before all of this.
            dq, dv, dk = warpgroup_mma_wait(0, [dq_w, dv_w, dk_w])
            if begins & (t > 0):
                _store_row(dk_ptr, dk * scale, ds_s.index(t % 2), old_base, old_j, length, stride_t, D, N, LOAD)
                _store_row(dv_ptr, dv, ds_s.index(t % 2), old_base, old_j, length, stride_t, D, N, LOAD)
            ds_s.index(t % 2).store(ds)
            async_copy.wait_group(1)
            fence_async_shared()
            ring1 = gl.where(ends, 1 - ring, ring)
            s_w = warpgroup_mma(k_s.index(ring1), q_s.index(slot1).permute((1, 0)), zeros, use_acc=False, is_async=True)
            dp_w = warpgroup_mma(
                v_s.index(ring1), do_s.index(slot1).permute((1, 0)), zeros, use_acc=False, is_async=True
            )
            dv_w = warpgroup_mma(p_n, do_s.index(slot), dv, use_acc=(i != j * RATIO), is_async=True)
            dk_w = warpgroup_mma(ds_n, q_s.index(slot), dk, use_acc=(i != j * RATIO), is_async=True)
            if t > 0:
                _add_dq(dq_place, dq, M, D)
            dq_w = warpgroup_mma(ds_s.index(t % 2).permute((1, 0)), k_s.index(ring), dq, use_acc=False, is_async=True)
            dq_place = dq_ptr + (bh.to(gl.int64) * tiles + i) * (M * D)
            lse = lse_s.index(slot1).load(gl.SliceLayout(0, MMA))
            delta = delta_s.index(slot1).load(gl.SliceLayout(0, MMA))
            if begins:
                _load_tile(k_s.index(1 - ring), k_ptr + base1, j1 * N, length, stride_t, bh1 >= 0, D, N, EVEN, LOAD)
                _load_tile(v_s.index(1 - ring), v_ptr + base1, j1 * N, length, stride_t, bh1 >= 0, D, N, EVEN, LOAD)
            async_copy.commit_group()
            s, dp = warpgroup_mma_wait(3, [s_w, dp_w])  # the others are waited for when the next tile has its weights
            ring = ring1
            old_base = base
            old_j = j
            i += 1
            t += 1
            if ends:
                at += 1
                bh = bh1
                j = j1
                base = base1
                line = line1
                i = j * RATIO
                bh1, j1, base1 = _row(rows_ptr, at + 1, num_heads, length, stride_t, D)
                line1 = bh1.to(gl.int64) * length
        dq, dv, dk = warpgroup_mma_wait(0, [dq_w, dv_w, dk_w])
        _add_dq(dq_place, dq, M, D)
        async_copy.wait_group(0)
        _store_row(dk_ptr, dk * scale, ds_s.index(0), old_base, old_j, length, stride_t, D, N, LOAD)
        _store_row(dv_ptr, dv, ds_s.index(1), old_base, old_j, length, stride_t, D, N, LOAD)
