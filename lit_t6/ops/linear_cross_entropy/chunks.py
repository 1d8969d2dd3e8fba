"""Losses and gradients of a linear layer and a cross-entropy behind it, with the logits of some tokens at a time.

Letters: N tokens, C width of the hidden states, V vocabulary.
"""

from functools import partial

import torch
from torch import Tensor

from lit_t6.ops.linear_cross_entropy.rows import cross_entropy_of_rows, wide

MAX_BYTES = 512 * 2**20
"""Of the logits that are there at a time, in the type in which a softmax is computed of them outside of a kernel."""
MIN_TOKENS = 1024
"""Of a chunk, if there are as many, however large the vocabulary: matrix products of fewer are slow."""
_TOKENS_MULTIPLE = 128
_COLUMNS_MULTIPLE = 64
_HALF_SCALE = 2.0**15
"""What gradients of logits are multiplied by in float16: they are 1 at most, and would vanish from 2⁻²⁵ on."""


def too_large(num_tokens: int, vocabulary: int, dtype: torch.dtype) -> bool:
    """Whether all logits of a type are more than should be there at a time."""
    return num_tokens * vocabulary * wide(dtype).itemsize > MAX_BYTES


def chunk_size(num_tokens: int, row_bytes: int) -> int:
    """Tokens of a chunk: as few chunks as memory allows, as even as multiples allow.

    Args:
        num_tokens: N, at least 1.
        row_bytes: of the logits of a token.
    """
    most = max(MIN_TOKENS, MAX_BYTES // row_bytes // _TOKENS_MULTIPLE * _TOKENS_MULTIPLE)
    num_chunks = -(-num_tokens // most)
    tokens = -(-num_tokens // num_chunks)
    return min(num_tokens, -(-tokens // _TOKENS_MULTIPLE) * _TOKENS_MULTIPLE)


def kept_type(dtype: torch.dtype) -> torch.dtype:
    """In which gradients of hidden states of a type are kept until their scale is known: float16 would lose some."""
    return torch.float32 if dtype == torch.float16 else dtype


def over_chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ignore_index: int,
    dtype: torch.dtype,
    kernel: bool,
    need_hidden: bool = False,
    need_weight: bool = False,
    scales: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of tokens, and gradients of their sum, or of their sum weighted by `scales`.

    Args:
        hidden: (N, C), N at least 1.
        weight: (V, C).
        targets: (N,) int64.
        ignore_index: the target that is not counted.
        dtype: of the factors of all matrix products.
        kernel: whether the rows of logits are for the kernel.
        need_hidden: whether the gradient of `hidden` is wanted.
        need_weight: likewise.
        scales: (N,), in the type of the losses; in float16, −1 to 1.

    Returns:
        Losses (N,), float32 at least, 0 where ignored; the gradients of `hidden` (N, C), in `kept_type` of it, and of
        `weight` (V, C), float32 at least; both empty where not wanted.
    """
    if kernel:
        from lit_t6.ops.linear_cross_entropy.kernel import cross_entropy_by_kernel  # needs Triton

        of_rows = partial(cross_entropy_by_kernel, vocabulary=len(weight))
    else:
        of_rows = partial(cross_entropy_of_rows)  # a partial one too, for its type
    num_tokens, (vocabulary, width) = len(hidden), weight.shape
    backward = need_hidden or need_weight
    factor = _HALF_SCALE if dtype == torch.float16 else 1.0
    losses = torch.empty(num_tokens, dtype=wide(dtype), device=hidden.device)
    grad_hidden = hidden.new_empty((num_tokens, width) if need_hidden else 0, dtype=kept_type(hidden.dtype))
    with torch.autocast(hidden.device.type, enabled=False):
        weight = _filled(weight, dtype) if kernel else weight.to(dtype)
        columns = len(weight)
        grad_weight = torch.zeros((columns, width) if need_weight else 0, dtype=wide(dtype), device=hidden.device)
        size = chunk_size(num_tokens, columns * (dtype if kernel else wide(dtype)).itemsize)
        logits = torch.empty(size, columns, dtype=dtype, device=hidden.device)
        for start in range(0, num_tokens, size):
            chunk = slice(start, start + size)
            x = hidden[chunk].to(dtype)
            part = logits[: len(x)]
            torch.mm(x, weight.T, out=part)
            scale = None if scales is None else scales[chunk]
            losses[chunk] = of_rows(part, targets[chunk], ignore_index, scale, factor, backward)
            if need_hidden:
                grad_hidden[chunk] = _product(part, weight).div_(factor)
            if need_weight:
                _add_product(grad_weight, part.T, x)
    if factor != 1:
        grad_weight /= factor
    return losses, grad_hidden, grad_weight[:vocabulary]


def _filled(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(V or more, C): filled up with words of zeros where rows of logits would begin anywhere in memory."""
    vocabulary, width = weight.shape
    if vocabulary % 16 == 0:
        return weight.to(dtype)
    columns = -(-vocabulary // _COLUMNS_MULTIPLE) * _COLUMNS_MULTIPLE
    filled = weight.new_zeros(columns, width, dtype=dtype)
    filled[:vocabulary] = weight
    return filled


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product in float32 at least, not rounded to the type of its factors."""
    if a.dtype == wide(a.dtype):
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`_product`, added to a total in its place."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(a.float(), b.float())
