"""SiLU of gates times values, and its way back, which makes the product again.

Letters: N tokens, F hidden features. A program takes a piece of one token's features.
"""

import triton
import triton.language as tl


@triton.jit
def _load_both(both_ptr, token, width, offs):
    """Gates and values, in float32, of (N, 2·F)."""
    start = both_ptr + token * 2 * width + offs
    gate = tl.load(start, mask=offs < width, other=0.0).to(tl.float32)
    return gate, tl.load(start + width, mask=offs < width, other=0.0).to(tl.float32)


@triton.jit
def _swiglu_fwd_kernel(both_ptr, hidden_ptr, width, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate, value = _load_both(both_ptr, token, width, offs)
    hidden = gate * tl.sigmoid(gate) * value
    tl.store(hidden_ptr + token * width + offs, hidden.to(hidden_ptr.dtype.element_ty), mask=offs < width)


@triton.jit
def _swiglu_bwd_kernel(
    both_ptr,
    hidden_ptr,  # (N, F): the gradient of the product, in the place of which comes the product itself
    grad_ptr,  # (N, 2·F): the gradients of gates and values
    width,  # F
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < width
    gate, value = _load_both(both_ptr, token, width, offs)
    hidden_ptr += token * width + offs
    grad_ptr += token * 2 * width + offs
    grad = tl.load(hidden_ptr, mask=mask, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    silu = gate * share
    dtype = hidden_ptr.dtype.element_ty
    tl.store(hidden_ptr, (silu * value).to(dtype), mask=mask)
    tl.store(grad_ptr, (grad * value * (share + silu * (1.0 - share))).to(dtype), mask=mask)
    tl.store(grad_ptr + width, (grad * silu).to(dtype), mask=mask)
