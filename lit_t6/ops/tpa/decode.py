"""Attention of a few new tokens to a cache of factors, by matrix products.

Letters: B batch, N new queries, M cached positions, H heads, D and E head sizes, Rk and Rv ranks.
"""

import torch
from torch import Tensor

from lit_t6.ops.attention import cached_attention
from lit_t6.ops.masks import cache_visibility
from lit_t6.ops.tpa.factors import materialise


def tpa_decode_matmul(
    q: Tensor, a_k: Tensor, b_k: Tensor, a_v: Tensor, b_v: Tensor, *, lengths: Tensor, scale: float | None = None
) -> Tensor:
    """Arguments and result are those of `tpa_decode`, but for the queries, which are given whole: (B, N, H, D).

    For few queries keys and values, H·D numbers for each cached token, are not formed: one product gives all queries
    with all b_k, another the weighted b_v, and memory grows as N·H·M·max(Rk, Rv). For many, forming them takes less.
    """
    num_queries, num_heads, head_dim = q.shape[1:]
    if num_queries * max(a_k.shape[2], a_v.shape[2]) > head_dim:
        return cached_attention(q, materialise(a_k, b_k), materialise(a_v, b_v), lengths=lengths, scale=scale)
    with torch.autocast(q.device.type, enabled=False):  # it would round the logits
        heads = _weigh(q.to(b_k.dtype), a_k, b_k, a_v, b_v, lengths, head_dim**-0.5 if scale is None else scale)
    return heads.unflatten(1, (num_queries, num_heads)).to(q.dtype)


def _weigh(q: Tensor, a_k: Tensor, b_k: Tensor, a_v: Tensor, b_v: Tensor, lengths: Tensor, scale: float) -> Tensor:
    """(B, N·H, E)."""
    num_queries, num_heads = q.shape[1:3]
    exact = torch.promote_types(b_k.dtype, torch.float32)
    q = q * scale
    products = q.flatten(1, 2) @ b_k.flatten(1, 2).mT  # (B, N·H, M·Rk)
    products = products.unflatten(-1, (-1, b_k.shape[2])).unflatten(1, (num_queries, num_heads))  # (B, N, H, M, Rk)
    logits = torch.einsum("bnhmr,bmrh->bnhm", products.to(exact), a_k.to(exact)) / a_k.shape[2]
    mask = cache_visibility(num_queries, b_k.shape[1], lengths).transpose(1, 2)  # (B, N, 1, M)
    sees_something = mask.any(dim=-1, keepdim=True)
    logits = logits.masked_fill(~mask & sees_something, float("-inf"))
    weights = (logits.softmax(dim=-1) * sees_something).to(b_v.dtype)
    shares = weights[..., None] * a_v.movedim(-1, 1)[:, None]  # (B, N, H, M, Rv)
    return shares.flatten(1, 2).flatten(2, 3) @ b_v.flatten(1, 2) / a_v.shape[2]
