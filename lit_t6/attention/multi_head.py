"""Multi-head, multi-query and grouped-query attention: one mechanism at three settings.

Letters: B batch, T positions, C model width, H query heads, G key/value heads, D head size.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_t6.attention.base import AttentionModule, check_divides, check_positive
from lit_t6.attention.cache import AttentionCache, KeyValueCache
from lit_t6.attention.initialization import InitScheme, check_init, uniform_, variance_bound, xavier_bound
from lit_t6.attention.key_value import attention_to_cache, key_value_attention
from lit_t6.attention.rotary import RotaryEmbedding
from lit_t6.attention.rotary_config import RotaryAttentionConfig
from lit_t6.ops.alignment import AlignedLinear
from lit_t6.ops.dense import packed


@dataclass
class MultiHeadConfig(RotaryAttentionConfig):
    """Multi-head attention (MHA), with fewer key/value heads: grouped-query (GQA), with one: multi-query (MQA).

    Args:
        num_heads: H; null solves for the count that meets the budget of 4·d_model² parameters a layer.
        num_kv_heads: G; null for as many as there are query heads (MHA), 1 for MQA, between for GQA. Divides H.
        head_dim: D.
        rope_base: see `RotaryAttentionConfig`, as the three that follow.
        rope_fraction: share of the features that RoPE rotates.
        rope_decay: base of the decay of what RoPE rotates; null for none.
        head_norm: RMSNorm on what each head reads.

    Raises:
        ValueError: a count below 1, an odd head_dim, query heads that the key/value heads do not divide, or RoPE
            settings out of range.
    """

    short_names: ClassVar[dict[str, dict[str, Any]]] = {
        "MHA": {"num_heads": None, "num_kv_heads": None},
        "MQA": {"num_heads": None, "num_kv_heads": 1},
        "GQA": {"num_heads": None, "num_kv_heads": 2},
    }
    cache_class = KeyValueCache

    num_heads: int | None = None
    num_kv_heads: int | None = None
    head_dim: int = 64

    def __post_init__(self) -> None:
        check_positive("MultiHeadConfig", num_kv_heads=self.num_kv_heads)
        super().__post_init__()
        check_divides("MultiHeadConfig", self.num_kv_heads, self.num_heads)

    @property
    def num_heads_multiple(self) -> int:
        return self.num_kv_heads or 1

    @property
    def kv_heads(self) -> int:
        """G, with MHA's default filled in."""
        return self.num_kv_heads or self.heads()

    def numbers(self) -> dict[str, float]:
        return {**super().numbers(), "num_kv_heads": float(self.kv_heads)}

    @property
    def label(self) -> str:
        if self.num_kv_heads is None or self.num_kv_heads == self.num_heads:
            name = "MHA"
        else:
            name = "MQA" if self.num_kv_heads == 1 else f"GQA ({self.num_kv_heads} KV heads)"
        return name + self.label_suffix

    def pieces(self) -> dict[str, tuple[int, int]]:
        """Heads and head size of "q", "k" and "v", in the order of the rows of the projection that makes them."""
        return {"q": (self.heads(), self.head_dim)} | dict.fromkeys("kv", (self.kv_heads, self.head_dim))

    @property
    def projection_rows(self) -> list[int]:
        """Rows of the q, k and v weights."""
        return [count * size for count, size in self.pieces().values()]

    def num_parameters(self, d_model: int) -> int:
        return d_model * (sum(self.projection_rows) + self.heads() * self.head_dim) + self.norm_weights

    def cache_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("k", "v"), (self.kv_heads, self.head_dim))

    def decode_multiply_adds_per_cached_token(self) -> int:
        return 2 * self.heads() * self.head_dim

    def attention_flops_per_token(self, seq_len: int) -> float:
        return 2 * 2 * self.heads() * self.head_dim * (seq_len + 1) / 2


class MultiHeadAttention(AttentionModule, config=MultiHeadConfig):
    """Causal MHA, MQA or GQA with RoPE, (B, T, C) → (B, T, C).

    Args:
        d_model: C.
        config: heads and head size; `num_heads` must be known.
        max_seq_len: positions of the rotary table to start with; it extends itself.

    Raises:
        ValueError: `config.num_heads` is null.
    """

    def __init__(self, d_model: int, config: MultiHeadConfig, max_seq_len: int = 1024) -> None:
        super().__init__(d_model, config)
        self.config = config
        self.qkv = AlignedLinear(d_model, sum(config.projection_rows), bias=False)  # rows: q, k, v, each head-major
        self.rope = RotaryEmbedding(config.rope_dim, max_seq_len, config.rope_base, config.rope_decay)
        self.reset_parameters()

    def attend(
        self, x: Tensor, positions: Tensor | None, document_ids: Tensor | None, cache: AttentionCache | None
    ) -> Tensor:
        config = self.config
        if cache is not None and not cache.is_empty:
            tables = self.rope.tables(cache.capacity, x.device)
            new = cache.append_projection(self.qkv(x), config.pieces(), "qk", tables)
            return attention_to_cache(new["q"], cache)
        positions = self.token_positions(x, positions, cache)
        rows = self.qkv(x)
        if cache is None and document_ids is None and self._turns_whole_heads and packed.is_for(rows, config.heads()):
            tables = self.rope.tables(x.shape[1], x.device, positions)
            return packed.packed_causal_attention(rows, config.heads(), tables)
        parts = rows.split(config.projection_rows, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, config.head_dim)) for part in parts)  # (B, T, H or G, D)
        q, k = self.rope(q, k, positions=positions)
        return key_value_attention(q, k, v, document_ids, cache)

    @property
    def _turns_whole_heads(self) -> bool:
        """Whether there are as many keys as queries, of which all features turn."""
        return self.config.kv_heads == self.config.heads() and self.config.rope_dim == self.config.head_dim

    @torch.no_grad()
    def reset_input_projections(self, scheme: InitScheme, variance: float | None = None) -> None:
        """Draw the q, k and v weights: as nn.Linear does (upstream), Xavier on each (paper), or to a variance."""
        check_init(scheme, variance)
        for weight in self.qkv.weight.split(self.config.projection_rows):
            if scheme == "paper":
                bound = xavier_bound(self.d_model, weight.shape[0])
            elif scheme == "variance":
                assert variance is not None
                bound = variance_bound(variance, self.d_model)
            else:
                bound = self.d_model**-0.5
            uniform_(weight, bound)
