"""The specification: tensor product attention as the paper writes it, by plain einsum, in any precision.

Algorithm 1 of the paper: no queries, keys or values are formed. Slow, and right: everything else is compared with it.
"""

import torch
from torch import Tensor

from lit_t6.ops.masks import cache_visibility, visibility
from lit_t6.ops.tpa.factors import TPAFactors


def tpa_attention_reference(
    factors: TPAFactors,
    *,
    causal: bool = True,
    lengths: Tensor | None = None,
    document_ids: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Arguments and result are those of `tpa_attention`; memory grows as T²·Rq·Rk and T²·H."""
    a_q, a_k = factors.a_q, factors.a_k
    mask = visibility(a_q.shape[1], a_k.shape[1], a_q.device, causal=causal, lengths=lengths, document_ids=document_ids)
    return _attend(factors, mask, scale)


def tpa_decode_reference(factors: TPAFactors, *, lengths: Tensor, scale: float | None = None) -> Tensor:
    """Arguments and result are those of `tpa_decode`; memory grows as N·M·Rq·Rk and N·M·H."""
    dtype = torch.promote_types(factors.b_q.dtype, factors.b_k.dtype)  # a cache may be of another type than queries
    common = TPAFactors(*(factor.to(dtype) for factor in factors))
    mask = cache_visibility(factors.a_q.shape[1], factors.a_k.shape[1], lengths)
    return _attend(common, mask, scale).to(factors.b_q.dtype)


def _attend(factors: TPAFactors, mask: Tensor | None, scale: float | None) -> Tensor:
    """`mask` (1 or B, 1, queries, keys) is true where a query sees a key."""
    a_q, b_q, a_k, b_k, a_v, b_v = factors
    rank_q, rank_k, rank_v = a_q.shape[2], a_k.shape[2], a_v.shape[2]
    scale = b_q.shape[-1] ** -0.5 if scale is None else scale

    products = torch.einsum("bqrd,bksd->bqkrs", b_q, b_k)  # ⟨B_q[r], B_k[s]⟩, shared by all heads
    logits = torch.einsum("bqrh,bksh,bqkrs->bhqk", a_q, a_k, products) * (scale / (rank_q * rank_k))
    if mask is not None:
        # A row that sees nothing gets finite logits here and weight 0 below, so that no NaN enters the gradients.
        sees_something = mask.any(dim=-1, keepdim=True)
        logits = logits.masked_fill(~mask & sees_something, float("-inf"))
        weights = logits.softmax(dim=-1) * sees_something
    else:
        weights = logits.softmax(dim=-1)
    return torch.einsum("bhqk,bkuh,bkue->bqhe", weights, a_v, b_v) / rank_v
