"""Cross-entropy of rows of logits, and their gradient in the place of the logits.

Letters: N rows, V vocabulary. A program takes one row, a block of columns at a time, and computes in float32.
"""

import triton
import triton.language as tl


@triton.jit
def _load_logits(ptr, offs, vocabulary, columns):
    """A block of a row; −∞ where there is no word.

    What is masked by `columns` alone, a multiple of 16, is read 16 bytes at a time; by an odd vocabulary it is not.
    """
    x = tl.load(ptr + offs, mask=offs < columns, other=0.0).to(tl.float32)
    return tl.where(offs < vocabulary, x, float("-inf"))


@triton.jit
def _cross_entropy_kernel(
    logits_ptr,  # (N, columns) contiguous; with BACKWARD, overwritten by gradients
    targets_ptr,  # (N,) int64
    scales_ptr,  # (N,) float32 if SCALED: gradients of the losses
    losses_ptr,  # (N,) float32
    vocabulary,  # V
    columns,  # V and what rows are filled up with
    ignored,  # the target that is not counted
    FACTOR: tl.constexpr,  # of all gradients
    BACKWARD: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * columns
    target = tl.load(targets_ptr + row)
    block = tl.arange(0, BLOCK)
    if target == ignored:
        tl.store(losses_ptr + row, 0.0)
        if BACKWARD:
            nothing = tl.zeros((BLOCK,), logits_ptr.dtype.element_ty)
            for start in range(0, columns, BLOCK):
                tl.store(logits_ptr + start + block, nothing, mask=start + block < columns)
    else:
        known = (target >= 0) & (target < vocabulary)
        # Read before any thread overwrites it: the sums below wait for all threads.
        chosen = tl.load(logits_ptr + target, mask=known, other=float("nan")).to(tl.float32)
        # Each place of the block has a largest logit and a sum of its own, so that no thread waits for another before
        # the end. The first is finite: −∞ less −∞ is no number.
        top = tl.full((BLOCK,), -3.0e38, tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, columns, BLOCK):
            x = _load_logits(logits_ptr, start + block, vocabulary, columns)
            less = tl.exp(-tl.abs(x - top))  # whichever of the two is scaled to the other, by the same number
            total = tl.where(x > top, total * less + 1.0, total + less)
            top = tl.maximum(top, x)
        largest = tl.max(top, 0)
        whole = tl.sum(total * tl.exp(top - largest), 0)
        tl.store(losses_ptr + row, tl.log(whole) + (largest - chosen))
        if BACKWARD:
            scale = tl.where(known, FACTOR, float("nan"))
            if SCALED:
                scale *= tl.load(scales_ptr + row)
            for start in range(0, columns, BLOCK):
                offs = start + block
                x = _load_logits(logits_ptr, offs, vocabulary, columns)
                grad = tl.exp(x - largest) * (scale / whole)
                grad = tl.where(offs == target, grad - scale, grad)
                tl.store(logits_ptr + offs, grad.to(logits_ptr.dtype.element_ty), mask=offs < columns)
