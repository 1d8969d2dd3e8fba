"""What kernels do alike that read one part of a cache: where it begins, the online softmax, and what is left of it.

Letters: B batch, N new queries, H heads, E head size of the values. A row is one head of one query.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _start_early(EARLY: tl.constexpr):
    """Where a kernel may start before the one before it has ended: let the next start too, and wait for the last one.

    Nothing may be read or written before it. It hides the start of a kernel behind the end of another
    (programmatic dependent launch).
    """
    _let_next_start(EARLY)
    _wait_for_last(EARLY)


@triton.jit
def _let_next_start(EARLY: tl.constexpr):
    """The next kernel may start, if it is one that waits."""
    if EARLY:
        gdc_launch_dependents()


@triton.jit
def _wait_for_last(EARLY: tl.constexpr):
    """Until the kernel before has ended, and what it wrote can be read."""
    if EARLY:
        gdc_wait()


@triton.jit
def _span(length, split, num_splits, BLOCK_M: tl.constexpr):
    """First and last token of a part, the last not included: each has as many blocks as any, the last the rest."""
    blocks_a_split = tl.cdiv(tl.cdiv(length, BLOCK_M), num_splits)
    first = split * blocks_a_split * BLOCK_M
    return first, tl.minimum(first + blocks_a_split * BLOCK_M, length)


@triton.jit
def _of_rows(x, ROWS_FIRST: tl.constexpr):
    """A number a row, against tiles (·, rows) or, if ROWS_FIRST, (rows, ·)."""
    return x[:, None] if ROWS_FIRST else x[None, :]


@triton.jit
def _across_rows(x, ROWS_FIRST: tl.constexpr):
    """Numbers that are the same for all rows, likewise."""
    return x[None, :] if ROWS_FIRST else x[:, None]


@triton.jit
def _weights(logits, top, total, ROWS_FIRST: tl.constexpr = False):
    """Weights of a block's logits, (tokens, rows) or, if ROWS_FIRST, (rows, tokens); by what sums before it shrink;
    the new largest logit and sum of weights.
    """
    TOKENS: tl.constexpr = 1 if ROWS_FIRST else 0
    new_top = tl.maximum(top, tl.max(logits, axis=TOKENS))
    base = tl.where(new_top == float("-inf"), 0.0, new_top)  # of a row that sees nothing yet
    weights = tl.exp2(logits - _of_rows(base, ROWS_FIRST))
    shrink = tl.exp2(top - base)
    return weights, shrink, new_top, total * shrink + tl.sum(weights, axis=TOKENS)


@triton.jit
def _store_part(
    out_ptr,
    top_ptr,
    total_ptr,
    place,
    mask_row,
    offs_e,
    acc,
    top,
    total,
    reads,
    VALUE_DIM: tl.constexpr,
    ROWS_FIRST: tl.constexpr = False,
):
    """Keep sums, (E, rows) or, if ROWS_FIRST, (rows, E), largest logits and sums of weights of a part; `reads`: whether
    it has any token.
    """
    tl.store(top_ptr + place, top, mask=mask_row)
    tl.store(total_ptr + place, total, mask=mask_row)
    if reads:  # nobody reads the others
        tl.store(
            out_ptr + _of_rows(place, ROWS_FIRST) * VALUE_DIM + _across_rows(offs_e, ROWS_FIRST),
            acc,
            mask=_of_rows(mask_row, ROWS_FIRST) & _across_rows(offs_e < VALUE_DIM, ROWS_FIRST),
        )
