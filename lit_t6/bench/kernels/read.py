"""Kernels that do nothing but read: their speed is what memory gives."""

import triton
import triton.language as tl

from lit_t6.ops.kernels.parts import _start_early


@triton.jit(do_not_specialize=["num_blocks"])
def _read_kernel(x_ptr, out_ptr, num_blocks, BLOCK: tl.constexpr, NUM_STAGES: tl.constexpr):
    """Each program sums every `num_programs`-th block of x into its place of out.

    x is float32, of fewer than 2³¹ numbers.
    """
    program = tl.program_id(0)
    offs = tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), tl.float32)
    for block in tl.range(program, num_blocks, tl.num_programs(0), num_stages=NUM_STAGES):
        start = tl.multiple_of(block * BLOCK, BLOCK)
        acc += tl.load(x_ptr + start.to(tl.int64) + offs)
    tl.store(out_ptr + program, tl.sum(acc, axis=0))


@triton.jit(do_not_specialize=["count"])
def _sum_blocks_kernel(x_ptr, out_ptr, count, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """Each program sums one block of x, float32, as a kernel of a decode step would start and end."""
    _start_early(EARLY)
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + tl.program_id(0), tl.sum(tl.load(x_ptr + offs, mask=offs < count, other=0.0), axis=0))
