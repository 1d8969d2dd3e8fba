"""The merge of what a kernel has computed of the parts of a cache.

Letters: B batch, N new queries, H heads, E head size.
"""

import triton
import triton.language as tl

from lit_t6.ops.kernels.parts import _start_early


@triton.jit(do_not_specialize=["num_splits"])
def _merge_kernel(
    out_ptr,  # (B, splits, N, H, E) float32
    top_ptr,  # (B, splits, N, H) float32
    total_ptr,  # likewise
    lengths_ptr,
    result_ptr,  # (B, N, H, E)
    num_splits,
    scale,  # of the result
    NUM_ROWS: tl.constexpr,  # N·H
    VALUE_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_E: tl.constexpr,
    ONCE: tl.constexpr,  # all parts fit in BLOCK_S: they are read without waiting for the length
    EARLY: tl.constexpr,
):
    _start_early(EARLY)
    row = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    offs_e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    offs_s = tl.arange(0, BLOCK_S)
    mask_e = offs_e < VALUE_DIM
    place = (batch * num_splits + offs_s) * NUM_ROWS + row
    top_ptr += place
    total_ptr += place
    out_ptr += place[:, None] * VALUE_DIM + offs_e[None, :]
    result_ptr += (batch * NUM_ROWS + row) * VALUE_DIM + offs_e
    num_used = num_splits
    if not ONCE:  # parts without any token are not read
        num_blocks = tl.cdiv(tl.load(lengths_ptr + batch).to(tl.int32), BLOCK_M)
        num_used = tl.cdiv(num_blocks, tl.maximum(tl.cdiv(num_blocks, num_splits), 1))
    top = float("-inf")
    total = 0.0
    acc = tl.zeros((BLOCK_E,), tl.float32)
    for start in tl.range(0, BLOCK_S if ONCE else num_used, BLOCK_S):
        mask = start + offs_s < num_used
        skipped = start * NUM_ROWS
        part_top = tl.load(top_ptr + skipped, mask=mask, other=float("-inf"))
        part_total = tl.load(total_ptr + skipped, mask=mask, other=0.0)
        part = tl.load(out_ptr + skipped * VALUE_DIM, mask=mask[:, None] & mask_e[None, :], other=0.0)
        if ONCE:  # what has no token wrote no sums
            part = tl.where((part_total == 0)[:, None], 0.0, part)
        new_top = tl.maximum(top, tl.max(part_top, axis=0))
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(part_top - base)
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(part_total * weights, axis=0)
        acc = acc * shrink + tl.sum(part * weights[:, None], axis=0)
        top = new_top
    result = acc * (scale / tl.where(total > 0, total, 1.0))
    tl.store(result_ptr, result.to(result_ptr.dtype.element_ty), mask=mask_e)
