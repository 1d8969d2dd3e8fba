"""Tensor product attention (arXiv 2501.06425, section 3.1).

Letters: B batch, T positions, C model width, H heads, D head size, R rank.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_t6.attention.base import AttentionModule, RotaryAttentionConfig, check_positive
from lit_t6.attention.cache import AttentionCache, FactorCache
from lit_t6.attention.initialization import InitScheme, check_init, uniform_, variance_bound, xavier_bound
from lit_t6.attention.rotary import RotaryEmbedding
from lit_t6.ops import Impl, TPAFactors, check_impl, tpa_attention


@dataclass
class TPAConfig(RotaryAttentionConfig):
    """Tensor product attention: queries, keys and values are sums of outer products of per-token factors.

    Args:
        num_heads: H; null solves for the count that meets the budget of 4·d_model² parameters a layer.
        head_dim: D, of queries, keys and values; even.
        rank_q: number of outer products that make up the queries of a token.
        rank_k: of the keys; cached.
        rank_v: of the values; cached.
        rope_base: base of the rotary frequencies.
        impl: how the attention is computed, see `lit_t6.ops.tpa_attention`.

    Raises:
        ValueError: a count below 1, an odd head_dim, or an unknown impl.
    """

    short_names: ClassVar[dict[str, dict[str, Any]]] = {"TPA": {"num_heads": None}}

    cache_class: ClassVar[type[AttentionCache]] = FactorCache

    num_heads: int | None = None
    head_dim: int = 64
    rank_q: int = 6
    rank_k: int = 2
    rank_v: int = 2
    impl: Impl = "auto"

    def __post_init__(self) -> None:
        check_positive("TPAConfig", rank_q=self.rank_q, rank_k=self.rank_k, rank_v=self.rank_v)
        super().__post_init__()
        check_impl(self.impl)

    @property
    def label(self) -> str:
        return f"TPA ({self.rank_q}, {self.rank_k}, {self.rank_v})"

    @property
    def backend(self) -> str:
        return "the reference einsum" if self.impl == "reference" else super().backend

    @property
    def num_factor_columns(self) -> int:
        """Columns of the one GEMM that makes all factors: (Rq + Rk + Rv)(H + D)."""
        return (self.rank_q + self.rank_k + self.rank_v) * (self.heads() + self.head_dim)

    def num_parameters(self, d_model: int) -> int:
        return d_model * self.num_factor_columns + d_model * self.heads() * self.head_dim

    def cache_shapes(self) -> dict[str, tuple[int, ...]]:
        heads, size = self.heads(), self.head_dim
        return {
            "a_k": (self.rank_k, heads),
            "b_k": (self.rank_k, size),
            "a_v": (self.rank_v, heads),
            "b_v": (self.rank_v, size),
        }

    def decode_multiply_adds_per_cached_token(self) -> int:
        heads, size = self.heads(), self.head_dim
        return self.rank_q * self.rank_k * (size + heads) + heads * self.rank_v * size

    def attention_flops_per_token(self, seq_len: int) -> float:
        width = self.heads() * self.head_dim
        rank_sums = 2 * (self.rank_q + self.rank_k + self.rank_v) * width
        return rank_sums + 2 * 2 * width * (seq_len + 1) / 2

    def build(self, d_model: int, max_seq_len: int = 1024) -> "TensorProductAttention":
        return TensorProductAttention(d_model, self, max_seq_len)


class TensorProductAttention(AttentionModule):
    """Causal tensor product self-attention, (B, T, C) → (B, T, C).

    Args:
        d_model: C.
        config: ranks, heads and head size; `num_heads` must be known.
        max_seq_len: positions of the rotary table to start with; it extends itself.

    Raises:
        ValueError: `config.num_heads` is null.
    """

    def __init__(self, d_model: int, config: TPAConfig, max_seq_len: int = 1024) -> None:
        super().__init__(d_model, config)
        self.config = config
        # One GEMM for all factors; its rows are a_q, a_k, a_v, b_q, b_k, b_v, each rank-major.
        self.factors = nn.Linear(d_model, config.num_factor_columns, bias=False)
        self.rope = RotaryEmbedding(config.rope_dim, max_seq_len, config.rope_base, config.rope_decay)
        self.reset_parameters()

    def _blocks(self) -> list[tuple[int, int]]:
        """(rank, size of a row) of a_q, a_k, a_v, b_q, b_k, b_v, in the order of the factor weight's rows."""
        ranks = (self.config.rank_q, self.config.rank_k, self.config.rank_v)
        return [(rank, size) for size in (self.config.heads(), self.config.head_dim) for rank in ranks]

    def _split(self, flat: Tensor, dim: int) -> tuple[Tensor, ...]:
        return flat.split([rank * size for rank, size in self._blocks()], dim=dim)

    def compute_factors(self, x: Tensor, positions: Tensor | None = None) -> TPAFactors:
        """The six factors of every token, b_q and b_k rotated.

        Args:
            x: (B, T, C).
            positions: integers (T,) or (B, T); 0 … T-1 if not given.
        """
        flat = self._split(self.factors(x), -1)
        a_q, a_k, a_v, b_q, b_k, b_v = (
            part.unflatten(-1, block) for part, block in zip(flat, self._blocks(), strict=True)
        )  # each (B, T, R, H or D)
        b_q, b_k = self.rope(b_q, b_k, positions=positions)
        return TPAFactors(a_q, b_q, a_k, b_k, a_v, b_v)

    def attend(
        self, x: Tensor, positions: Tensor | None, document_ids: Tensor | None, cache: AttentionCache | None
    ) -> Tensor:
        factors = self.compute_factors(x, positions)
        return tpa_attention(factors, document_ids=document_ids, impl=self.config.impl)

    @torch.no_grad()
    def reset_input_projections(self, scheme: InitScheme, variance: float | None = None) -> None:
        """Draw the factor weights.

        upstream: Xavier over a 3-D view of each factor's weight, which makes the spread fall with the rank.
        paper: Xavier over each factor's (R·H or R·D, C) matrix (appendix G).
        variance: an entry of Q is a mean of R products of an A and a B entry, so Var Q = Var A · Var B / R; A and B
        share the factor evenly.
        """
        check_init(scheme, variance)
        channels = self.d_model
        for index, (weight, (rank, size)) in enumerate(
            zip(self._split(self.factors.weight, 0), self._blocks(), strict=True)
        ):
            if scheme == "paper":
                bound = xavier_bound(channels, rank * size)
            elif scheme == "variance":
                assert variance is not None
                bound = variance_bound(math.sqrt(rank * variance), channels)
            elif index < 3:  # upstream's view of an A weight is (C, H, R); Xavier's fans are dims 0 and 1, times dim 2
                bound = xavier_bound(channels * rank, size * rank)
            else:  # its view of a B weight is (C, R, D)
                bound = xavier_bound(channels * size, rank * size)
            uniform_(weight, bound)
