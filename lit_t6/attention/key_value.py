"""Attention to the keys and values of a sequence, or of a cache: what the mechanisms share that keep both whole.

Letters: B batch, T positions, H query heads, G key/value heads, D and E head sizes of keys and of values.
"""

from torch import Tensor

from lit_t6.attention.cache import AttentionCache
from lit_t6.ops import cached_attention, dense_attention


def key_value_attention(
    q: Tensor, k: Tensor, v: Tensor, document_ids: Tensor | None, cache: AttentionCache | None
) -> Tensor:
    """Causal attention of new tokens to themselves and to what a cache holds.

    Args:
        q: queries (B, T, H, D), rotated.
        k: keys (B, T, G, D), rotated.
        v: values (B, T, G, E).
        document_ids: (B, T) integers: a position sees its own document only; None with a cache.
        cache: of `k` and `v`: the new ones are appended. Tokens that are its first are a sequence of their own.

    Returns:
        (B, T, H, E).

    Raises:
        ValueError: the cache is full.
    """
    if cache is not None:
        starts_here = cache.is_empty
        cache.append(k=k, v=v)
        if not starts_here:
            return attention_to_cache(q, cache)
    return dense_attention(q, k, v, document_ids=document_ids)


def attention_to_cache(q: Tensor, cache: AttentionCache) -> Tensor:
    """Attention of the newest tokens to a cache that holds them already.

    Args:
        q: queries (B, N, H, D), rotated.
        cache: of `k` and `v`.

    Returns:
        (B, N, H, E).
    """
    held = cache.entries()
    return cached_attention(q, held["k"], held["v"], lengths=cache.lengths)
