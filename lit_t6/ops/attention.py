"""Softmax attention over dense queries, keys and values, through PyTorch's fused kernels and, of caches, ours.

Letters: B batch, T positions, N new positions, M cached ones, H query heads, G key/value heads, D and E head sizes of
keys and of values.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_t6.ops.alignment import aligned
from lit_t6.ops.dense.causal import causal_attention
from lit_t6.ops.dense.causal import is_for as causal_attention_is_for
from lit_t6.ops.implementation import HAS_TRITON, Impl, check_impl
from lit_t6.ops.masks import cache_visibility, check_rows, visibility

MANY_QUERIES = 32
"""See `_masked_attention`."""


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    lengths: Tensor | None = None,
    document_ids: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention of every head over the whole sequence.

    In training on a GPU in half precision, plain causal attention with G = H takes the fused kernel that was measured
    as the fastest (`dense/causal.py`), and has no second derivatives; all else takes PyTorch's choice.

    Args:
        q: queries (B, T, H, D).
        k: keys (B, T, G, D), H a multiple of G; each key head serves H / G query heads.
        v: values (B, T, G, E).
        causal: query t sees positions 0 … t only.
        lengths: (B,) integers: valid positions of each row.
        document_ids: (B, T) integers: positions of other documents are not seen.
        scale: of the logits; 1/√D if not given.

    Returns:
        (B, T, H, E). A query that sees nothing gives zeros.

    Raises:
        ValueError: `lengths` or `document_ids` of another shape.
    """
    check_rows(*q.shape[:2], lengths=lengths, document_ids=document_ids)
    mask = sees_something = None
    if lengths is not None or document_ids is not None:  # a plain causal mask stays with the flash kernels
        mask = visibility(q.shape[1], k.shape[1], q.device, causal=causal, lengths=lengths, document_ids=document_ids)
        assert mask is not None
        sees_something = mask.any(dim=-1, keepdim=True)
        mask = (
            mask | ~sees_something
        )  # a softmax over nothing is NaN: such a query sees all here and counts for 0 below
    q, k, v = aligned(q), aligned(k), aligned(v)
    if causal and mask is None and causal_attention_is_for(q, k, v):
        return causal_attention(q, k, v, scale)
    # The comparison itself is no bool where sizes are symbols, and PyTorch 2.11 takes nothing else.
    grouped = {"enable_gqa": True} if q.shape[2] != k.shape[2] else {}
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal and mask is None,
        scale=scale,
        **grouped,
    )
    if sees_something is not None:
        out = out * sees_something
    return out.transpose(1, 2)


def cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor | int,
    *,
    lengths: Tensor | None = None,
    scale: float | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Attention of the newest tokens to a cache of keys and values, causal among themselves.

    Args:
        q: queries (B, N, H, D) of the last N valid entries of each row.
        k: keys (B, M, G, D), those of the new tokens included; H a multiple of G.
        v: values (B, M, G, E); or E, where the values are the first E features of the keys, which are then read once.
        lengths: (B,) integers: valid entries of each row, M if not given, and at most M, which is not checked; query n
            sees the first lengths - N + n + 1.
        scale: of the logits; 1/√D if not given.
        impl: "reference" is PyTorch's fused attention under a mask; "triton" a kernel that splits the cache over the
            whole GPU; "auto" on a GPU "triton" where it can run, else "reference".

    Returns:
        (B, N, H, E), in the type of `q`. A query that sees nothing gives zeros.

    Raises:
        ValueError: tensors that do not fit together, `lengths` of another shape, an unknown `impl`, or tensors that the
            "triton" one cannot take, with the reason.
    """
    check_impl(impl)
    fast = impl == "triton" or (impl == "auto" and k.is_cuda)
    if fast and HAS_TRITON and not torch.compiler.is_compiling():
        again = _decode_again()(q, k, v, lengths, scale)
        if again is not None:
            return again
    _check_cached(q, k, v)
    batch, num_keys = k.shape[:2]
    check_rows(batch, num_keys, lengths=lengths, document_ids=None)
    if lengths is None:
        lengths = torch.full((batch,), num_keys, device=k.device)
    if fast:
        problem = flash_decode_cannot(q, k, v)
        if problem is None:
            from lit_t6.ops.dense.flash_decode import flash_decode  # needs Triton

            values, size = (None, v) if isinstance(v, int) else (v, None)
            return flash_decode(q, k, values, size, lengths, scale)
        if impl == "triton":
            raise ValueError(f"impl='triton' cannot decode this: {problem}. Use impl='auto'.")
    return _masked_attention(q, k, k[..., :v] if isinstance(v, int) else v, lengths, scale)


def _check_cached(q: Tensor, k: Tensor, v: Tensor | int) -> None:
    """Raise ValueError unless queries, keys and values, as `cached_attention` takes them, fit together."""
    shapes = {"q": (q, "(B, N, H, D)"), "k": (k, "(B, M, G, D)")} | (
        {} if isinstance(v, int) else {"v": (v, "(B, M, G, E)")}
    )
    for name, (x, expected) in shapes.items():
        if x.ndim != 4:
            raise ValueError(f"{name} has shape {tuple(x.shape)}, expected 4 dimensions: {expected}.")
    batch, num_keys, groups, size = k.shape
    if q.shape[0] != batch or q.shape[3] != size:
        raise ValueError(f"q has shape {tuple(q.shape)}, expected ({batch}, N, H, {size}): batch and features of k.")
    if groups == 0 or q.shape[2] % groups:
        raise ValueError(f"q has {q.shape[2]} heads, expected a multiple of the {groups} of k.")
    if isinstance(v, int):
        if not 0 < v <= size:
            raise ValueError(f"v is {v}, expected 1 to {size}: so many features of k are the values.")
    elif v.shape[:3] != k.shape[:3]:
        raise ValueError(f"v has shape {tuple(v.shape)}, expected ({batch}, {num_keys}, {groups}, E), as k has.")


def flash_decode_cannot(q: Tensor, k: Tensor, v: Tensor | int) -> str | None:
    """Why the kernel cannot take arguments of `cached_attention`; None if it can."""
    if not HAS_TRITON:
        return "Triton is not installed"
    from lit_t6.ops.dense.flash_decode import why_not

    return why_not(q, k, v)


@functools.cache
def _decode_again() -> Callable[..., Tensor | None]:
    """Of the kernel's module, which needs Triton; by an import statement it would take a microsecond of every step."""
    from lit_t6.ops.dense.flash_decode import decode_again

    return decode_again


def _masked_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scale: float | None) -> Tensor:
    """`cached_attention` through PyTorch.

    For few queries, the H / G heads that share a key head are taken as further queries of it, so that no key is
    repeated; for many, repeating keys takes less than repeating masks.
    """
    num_queries, num_heads = q.shape[1:3]
    num_keys, num_kv_heads = k.shape[1:3]
    mask = cache_visibility(num_queries, num_keys, lengths)  # (B, 1, N, M)
    sees_something = mask.any(dim=-1, keepdim=True)
    mask = mask | ~sees_something
    k, v = aligned(k).transpose(1, 2), aligned(v).transpose(1, 2)
    if num_queries > MANY_QUERIES:
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2).to(k.dtype), k, v, mask, scale=scale, enable_gqa=num_heads != num_kv_heads
        ).transpose(1, 2)
    else:
        mask = mask.repeat_interleave(num_heads // num_kv_heads, dim=2)
        queries = q.unflatten(2, (num_kv_heads, -1)).movedim(2, 1).flatten(2, 3)  # (B, G, N·H/G, D)
        out = F.scaled_dot_product_attention(queries.to(k.dtype), k, v, mask, scale=scale)
        out = out.unflatten(2, (num_queries, -1)).movedim(1, 2).flatten(2, 3)  # (B, N, H, E)
    return (out * sees_something.transpose(1, 2)).to(q.dtype)
