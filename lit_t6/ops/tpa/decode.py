"""Attention of a few new tokens to a cache of factors, by matrix products.

Letters: B batch, N new queries, M cached positions, H heads, D and E head sizes, Rk and Rv ranks.
"""

import torch
from torch import Tensor

from lit_t6.ops.masks import cache_visibility
from lit_t6.ops.tpa.factors import TPAFactors, materialise


def tpa_decode_matmul(factors: TPAFactors, *, lengths: Tensor, scale: float | None = None) -> Tensor:
    """Arguments and result are those of `tpa_decode`.

    The queries are formed; keys and values, H·D numbers for each cached token, are not. One product gives all queries
    with all b_k, another the weighted b_v. Memory grows as N·H·M·max(Rk, Rv).
    """
    a_q, b_q, a_k, b_k, a_v, b_v = factors
    num_queries, num_heads, head_dim = a_q.shape[1], a_q.shape[-1], b_q.shape[-1]
    exact = torch.promote_types(b_k.dtype, torch.float32)
    q = materialise(a_q, b_q).to(b_k.dtype) * (head_dim**-0.5 if scale is None else scale)
    products = q.flatten(1, 2) @ b_k.flatten(1, 2).mT  # (B, N·H, M·Rk)
    products = products.unflatten(-1, (-1, b_k.shape[2])).unflatten(1, (num_queries, num_heads))  # (B, N, H, M, Rk)
    logits = torch.einsum("bnhmr,bmrh->bnhm", products.to(exact), a_k.to(exact)) / a_k.shape[2]
    mask = cache_visibility(num_queries, b_k.shape[1], lengths).transpose(1, 2)  # (B, N, 1, M)
    sees_something = mask.any(dim=-1, keepdim=True)
    logits = logits.masked_fill(~mask & sees_something, float("-inf"))
    weights = (logits.softmax(dim=-1) * sees_something).to(b_v.dtype)
    shares = weights[..., None] * a_v.movedim(-1, 1)[:, None]  # (B, N, H, M, Rv)
    heads = shares.flatten(1, 2).flatten(2, 3) @ b_v.flatten(1, 2) / a_v.shape[2]  # (B, N·H, E)
    return heads.unflatten(1, (num_queries, num_heads)).to(a_q.dtype)
