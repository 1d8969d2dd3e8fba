"""Softmax attention over dense queries, keys and values, through PyTorch's fused kernels.

Letters: B batch, T positions, H query heads, G key/value heads, D and E head sizes of keys and of values.
"""

import torch.nn.functional as F
from torch import Tensor

from lit_t6.ops.masks import check_rows, visibility


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
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal and mask is None,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    if sees_something is not None:
        out = out * sees_something
    return out.transpose(1, 2)
