"""Multi-matrix factorization attention (Hu et al., arXiv 2412.19255; appendix F.4 of the T6 paper).

Letters: B batch, T positions, C model width, H heads, D head size of queries, keys and values, dq rank of the queries.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_t6.attention.base import AttentionModule, check_positive
from lit_t6.attention.cache import AttentionCache, KeyValueCache
from lit_t6.attention.initialization import InitScheme, check_init, uniform_, variance_bound, xavier_bound
from lit_t6.attention.key_value import key_value_attention
from lit_t6.attention.rotary import RotaryEmbedding
from lit_t6.attention.rotary_config import RotaryAttentionConfig


@dataclass
class MFAConfig(RotaryAttentionConfig):
    """Multi-matrix factorization attention (MFA): many large heads with one key and value, queries of low rank.

    Args:
        num_heads: H; null solves for the count that meets the budget of 4·d_model² parameters a layer.
        head_dim: D, of queries, keys and values; the paper's dc.
        query_rank: dq, size of what the queries of all heads are read from; null for head_dim.
        rope_base: see `RotaryAttentionConfig`, as the three that follow.
        rope_fraction: share of the features that RoPE rotates.
        rope_decay: base of the decay of what RoPE rotates; null for none.
        head_norm: RMSNorm on what each head reads.

    Raises:
        ValueError: a count or a size below 1, an odd head_dim, or RoPE settings out of range.
    """

    short_names: ClassVar[dict[str, dict[str, Any]]] = {"MFA": {"num_heads": None}}
    cache_class = KeyValueCache

    num_heads: int | None = None
    head_dim: int = 256
    query_rank: int | None = None

    def __post_init__(self) -> None:
        check_positive("MFAConfig", query_rank=self.query_rank)
        super().__post_init__()

    @property
    def query_latent_size(self) -> int:
        """dq, with its default filled in."""
        return self.query_rank or self.head_dim

    def numbers(self) -> dict[str, float]:
        return {**super().numbers(), "query_rank": float(self.query_latent_size)}

    @property
    def label(self) -> str:
        return f"MFA ({self.head_dim}/{self.query_latent_size})" + self.label_suffix

    @property
    def projection_rows(self) -> list[int]:
        """Rows of the weights that make the queries' latent, the key and the value."""
        return [self.query_latent_size, self.head_dim, self.head_dim]

    def num_parameters(self, d_model: int) -> int:
        width = self.heads() * self.head_dim
        queries = self.query_latent_size * width
        return d_model * (sum(self.projection_rows) + width) + queries + self.norm_weights

    def cache_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("k", "v"), (1, self.head_dim))

    def decode_multiply_adds_per_cached_token(self) -> int:
        return 2 * self.heads() * self.head_dim

    def attention_flops_per_token(self, seq_len: int) -> float:
        return 2 * 2 * self.heads() * self.head_dim * (seq_len + 1) / 2


class MultiMatrixFactorizationAttention(AttentionModule, config=MFAConfig):
    """Causal multi-matrix factorization self-attention with RoPE, (B, T, C) → (B, T, C).

    Args:
        d_model: C.
        config: heads, head size and query rank; `num_heads` must be known.
        max_seq_len: positions of the rotary table to start with; it extends itself.

    Raises:
        ValueError: `config.num_heads` is null.
    """

    def __init__(self, d_model: int, config: MFAConfig, max_seq_len: int = 1024) -> None:
        super().__init__(d_model, config)
        self.config = config
        self.down = nn.Linear(d_model, sum(config.projection_rows), bias=False)  # rows: latent of queries, k, v
        self.query_up = nn.Linear(config.query_latent_size, config.heads() * config.head_dim, bias=False)  # head-major
        self.rope = RotaryEmbedding(config.rope_dim, max_seq_len, config.rope_base, config.rope_decay)
        self.reset_parameters()

    def attend(
        self, x: Tensor, positions: Tensor | None, document_ids: Tensor | None, cache: AttentionCache | None
    ) -> Tensor:
        positions = self.token_positions(x, positions, cache)
        latent, k, v = self.down(x).split(self.config.projection_rows, dim=-1)
        q = self.query_up(latent).unflatten(-1, (-1, self.config.head_dim))  # (B, T, H, D)
        k, v = k.unsqueeze(-2), v.unsqueeze(-2)  # (B, T, 1, D)
        q, k = self.rope(q, k, positions=positions)
        return key_value_attention(q, k, v, document_ids, cache)

    @torch.no_grad()
    def reset_input_projections(self, scheme: InitScheme, variance: float | None = None) -> None:
        """Draw the projections afresh: as nn.Linear does (upstream), Xavier on each (paper), or to a variance.

        No norm stands between the two projections of the queries; for a variance, the first gives a latent of unit
        mean square, so that the second decides.
        """
        check_init(scheme, variance)
        latent, key, value = self.down.weight.split(self.config.projection_rows)
        for weight in (latent, key, value, self.query_up.weight):
            rows, fan_in = weight.shape
            if scheme == "paper":
                bound = xavier_bound(fan_in, rows)
            elif scheme == "variance":
                assert variance is not None
                bound = variance_bound(1.0 if weight is latent else variance, fan_in)
            else:
                bound = fan_in**-0.5
            uniform_(weight, bound)
