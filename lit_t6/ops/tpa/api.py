"""The ways in: checks the arguments, chooses the implementation, runs it."""

from typing import Literal, get_args

import torch
from torch import Tensor

from lit_t6.ops.attention import dense_attention
from lit_t6.ops.masks import check_rows
from lit_t6.ops.tpa.decode import tpa_decode_matmul
from lit_t6.ops.tpa.factors import TPAFactors, check_factors, head_groups, materialise
from lit_t6.ops.tpa.reference import tpa_attention_reference, tpa_decode_reference

Impl = Literal["auto", "reference"]


def check_impl(impl: str) -> None:
    """Raise ValueError unless `impl` names an implementation.

    Raises:
        ValueError: with the name and those that exist.
    """
    if impl not in get_args(Impl):
        raise ValueError(f"impl={impl!r} is not an implementation of TPA; expected one of {', '.join(get_args(Impl))}.")


def tpa_attention(
    factors: TPAFactors,
    *,
    causal: bool = True,
    lengths: Tensor | None = None,
    document_ids: Tensor | None = None,
    scale: float | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Tensor product attention over a whole sequence (paper section 3.1).

    Args:
        factors: the six factors, a_*: (B, T, R, H), b_*: (B, T, R, D or E); b_q and b_k already rotated.
        causal: position t sees positions 0 … t only.
        lengths: (B,) integers: valid positions of each row, default all.
        document_ids: (B, T) integers: positions of other documents are not seen.
        scale: of the logits; 1/√D if not given.
        impl: "reference" is the plain einsum of the paper's Algorithm 1; "auto" the fastest there is for the tensors:
            so far, forming Q, K and V and calling PyTorch's fused attention.

    Returns:
        (B, T, H, E). A query that sees nothing gives zeros.

    Raises:
        ValueError: factors that do not fit together, or an unknown `impl`.
    """
    check_impl(impl)
    check_factors(factors)
    check_rows(*factors.a_q.shape[:2], lengths=lengths, document_ids=document_ids)
    if impl == "reference":
        return tpa_attention_reference(factors, causal=causal, lengths=lengths, document_ids=document_ids, scale=scale)
    a_q, b_q, a_k, b_k, a_v, b_v = factors
    return dense_attention(
        materialise(a_q, b_q),
        materialise(a_k, b_k),
        materialise(a_v, b_v),
        causal=causal,
        lengths=lengths,
        document_ids=document_ids,
        scale=scale,
    )


def tpa_decode(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor,
    b_k: Tensor,
    a_v: Tensor,
    b_v: Tensor,
    *,
    lengths: Tensor | None = None,
    scale: float | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Attention of N new tokens to a cache of factors, causal among themselves (paper Algorithms 2 and 3).

    Args:
        a_q: head factors of the new queries (B, N, Rq, H); None for dense queries.
        b_q: their feature factors (B, N, Rq, D), or the dense queries (B, N, H, D), rotated.
        a_k: of the cached keys (B, M, Rk, H), those of the new tokens included.
        b_k: (B, M, Rk, D), rotated.
        a_v: of the cached values (B, M, Rv, H).
        b_v: (B, M, Rv, E).
        lengths: (B,) integers: valid entries of each row, M if not given; query n sees the first lengths - N + n + 1.
        scale: of the logits; 1/√D if not given.
        impl: "reference" is the plain einsum; "auto" the fastest there is for the tensors: so far, matrix products
            that form neither keys nor values for few queries, and both for many.

    Returns:
        (B, N, H, E), in the type of `b_q`. A query that sees nothing gives zeros.

    Raises:
        ValueError: factors that do not fit together, `lengths` of another shape, or an unknown `impl`.
    """
    check_impl(impl)
    heads_of_q = a_q
    if a_q is None:  # dense queries are factors with a fixed A
        groups = head_groups(b_q.shape[-2], a_k.shape[-1], dtype=b_q.dtype, device=b_q.device)
        a_q = groups.expand(*b_q.shape[:2], -1, -1)
    factors = TPAFactors(a_q, b_q, a_k, b_k, a_v, b_v)
    check_factors(factors, cached=True)
    batch, num_keys = a_k.shape[:2]
    check_rows(batch, num_keys, lengths=lengths, document_ids=None)
    if lengths is None:
        lengths = torch.full((batch,), num_keys, device=a_k.device)
    if impl == "reference":
        return tpa_decode_reference(factors, lengths=lengths, scale=scale)
    q = b_q if heads_of_q is None else materialise(a_q, b_q)
    return tpa_decode_matmul(q, a_k, b_k, a_v, b_v, lengths=lengths, scale=scale)
