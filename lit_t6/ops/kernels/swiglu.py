"""SiLU of gates times values, and its way back, which makes the product again.

Letters: N tokens, F hidden features. A program takes a piece of all N·F features, wherever in a token it begins, so
that no thread waits: pieces of one token would leave a rest. They are counted in vectors, none of two tokens.
"""

import triton
import triton.language as tl


@triton.jit
def _places(size, width, SHAPE: tl.constexpr):
    """Of a program's features (vectors, VECTOR): places in (N, F), in (N, 2·F), and whether they are there."""
    VECTOR: tl.constexpr = SHAPE[1]
    program = tl.program_id(0)
    if SHAPE[2]:
        program = program.to(tl.int64)
    vector = program * (SHAPE[0] // VECTOR) + tl.arange(0, SHAPE[0] // VECTOR)
    token = (vector // (width // VECTOR)).to(tl.int64)
    offs = tl.arange(0, VECTOR)[None, :]
    first = (vector.to(tl.int64) * VECTOR)[:, None]
    return first + offs, first + (token * width)[:, None] + offs, first < size


@triton.jit
def _load_both(both_ptr, places, width, mask):
    """Gates and values, in float32, of (N, 2·F)."""
    gate = tl.load(both_ptr + places, mask=mask, other=0.0).to(tl.float32)
    return gate, tl.load(both_ptr + places + width, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _swiglu_fwd_kernel(
    both_ptr,
    hidden_ptr,  # (N, F)
    size,  # N·F
    width,  # F
    SHAPE: tl.constexpr,  # features of a program, of a vector, and whether vectors are so many that 64 bits count them
):
    places, places_both, mask = _places(size, width, SHAPE)
    gate, value = _load_both(both_ptr, places_both, width, mask)
    hidden = gate * tl.sigmoid(gate) * value
    tl.store(hidden_ptr + places, hidden.to(hidden_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _swiglu_bwd_kernel(
    both_ptr,
    hidden_ptr,  # (N, F): the gradient of the product, in the place of which comes the product itself
    grad_ptr,  # (N, 2·F): the gradients of gates and values
    size,  # this and all that follow: as of the way forward
    width,
    SHAPE: tl.constexpr,
):
    places, places_both, mask = _places(size, width, SHAPE)
    gate, value = _load_both(both_ptr, places_both, width, mask)
    grad = tl.load(hidden_ptr + places, mask=mask, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    silu = gate * share
    dtype = hidden_ptr.dtype.element_ty
    tl.store(hidden_ptr + places, (silu * value).to(dtype), mask=mask)
    grad_ptr += places_both
    tl.store(grad_ptr, (grad * value * (share + silu * (1.0 - share))).to(dtype), mask=mask)
    tl.store(grad_ptr + width, (grad * silu).to(dtype), mask=mask)
