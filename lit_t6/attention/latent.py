"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1; appendix F.3 of the T6 paper).

Letters: B batch, T positions, N new positions, M cached ones, C model width, H heads, D features of a head's queries
and keys that are not rotated, Dr those that are, E head size of values, dc latent of keys and values, dc' of queries.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_t6.attention.base import AttentionConfig, AttentionModule, WeightedRMSNorm, check_positive
from lit_t6.attention.cache import AttentionCache, LatentCache
from lit_t6.attention.initialization import InitScheme, check_init, uniform_, variance_bound, xavier_bound
from lit_t6.attention.rotary import RotaryEmbedding
from lit_t6.ops import cached_attention, dense_attention

LATENT_NORM_EPS = 1e-6  # upstream's


@dataclass
class LatentConfig(AttentionConfig):
    """Multi-head latent attention (MLA): keys and values of all heads are read from one small latent per token.

    The sizes that are null follow head_dim in the proportions that the paper and DeepSeek-V2 share.

    Args:
        num_heads: H; null solves for the count that meets the budget of 4·d_model² parameters a layer.
        head_dim: D, features of a head's queries and keys that are not rotated.
        value_dim: E, of a head's values; null for head_dim.
        rope_dim: Dr, further features that RoPE rotates, in the keys one set for all heads; even; null for half of
            head_dim, made even (32 at 64).
        query_latent_dim: dc', size of the latent that queries are read from; null for 8·head_dim (512 at 64).
        kv_latent_dim: dc, size of the latent that keys and values are read from; cached; null for 4·head_dim (256
            at 64).
        rope_base: base of the rotary frequencies.
        head_norm: RMSNorm with a weight on what each head reads, before the output projection.

    Raises:
        ValueError: a count or a size below 1, or an odd rope_dim.
    """

    short_names: ClassVar[dict[str, dict[str, Any]]] = {"MLA": {"num_heads": None}}
    cache_class = LatentCache

    num_heads: int | None = None
    head_dim: int = 64
    value_dim: int | None = None
    rope_dim: int | None = None
    query_latent_dim: int | None = None
    kv_latent_dim: int | None = None
    rope_base: float = 10000.0
    head_norm: bool = False

    def __post_init__(self) -> None:
        check_positive(
            "LatentConfig",
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            value_dim=self.value_dim,
            rope_dim=self.rope_dim,
            query_latent_dim=self.query_latent_dim,
            kv_latent_dim=self.kv_latent_dim,
        )
        if self.rope_size % 2:
            raise ValueError(
                f"LatentConfig: rope_dim={self.rope_dim} is odd, but RoPE rotates pairs of features; "
                f"take {self.rope_size + 1}."
            )

    @property
    def value_size(self) -> int:
        return self.value_dim or self.head_dim

    @property
    def rope_size(self) -> int:
        """Dr, with its default filled in."""
        return self.rope_dim or max(2, self.head_dim // 4 * 2)

    @property
    def query_size(self) -> int:
        """D + Dr, features of a head's query."""
        return self.head_dim + self.rope_size

    @property
    def query_latent_size(self) -> int:
        """dc', with its default filled in."""
        return self.query_latent_dim or 8 * self.head_dim

    @property
    def kv_latent_size(self) -> int:
        """dc, with its default filled in."""
        return self.kv_latent_dim or 4 * self.head_dim

    @property
    def scale(self) -> float:
        """1/√(D + Dr): what logits are multiplied by."""
        return float(self.query_size**-0.5)

    def numbers(self) -> dict[str, float]:
        sizes = dict(
            value_dim=self.value_size,
            rope_dim=self.rope_size,
            query_latent_dim=self.query_latent_size,
            kv_latent_dim=self.kv_latent_size,
        )
        return {**super().numbers(), **{name: float(size) for name, size in sizes.items()}}

    @property
    def label(self) -> str:
        return f"MLA ({self.kv_latent_size}/{self.query_latent_size})" + (", head norm" if self.head_norm else "")

    def num_parameters(self, d_model: int) -> int:
        heads, latent, query_latent = self.heads(), self.kv_latent_size, self.query_latent_size
        queries = query_latent * (d_model + heads * self.query_size)
        keys_values = d_model * (latent + self.rope_size) + latent * heads * (self.head_dim + self.value_size)
        return queries + keys_values + heads * self.value_size * d_model + self.norm_weights

    @property
    def norm_weights(self) -> int:
        return self.query_latent_size + self.kv_latent_size + super().norm_weights

    def cache_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"latent": (self.kv_latent_size + self.rope_size,)}

    def decode_multiply_adds_per_cached_token(self) -> int:
        return self.heads() * (2 * self.kv_latent_size + self.rope_size)

    def attention_flops_per_token(self, seq_len: int) -> float:
        return 2 * self.heads() * (self.query_size + self.value_size) * (seq_len + 1) / 2


class LatentAttention(AttentionModule, config=LatentConfig):
    """Causal multi-head latent self-attention, (B, T, C) → (B, T, C).

    Weights lie as in the authors' code: the rows of `query_up` and `kv_up` are head-major, in each head the D rows
    of what is not rotated before the Dr that are, and the D rows of the key before the E of the value; in `kv_down`
    the dc rows of the latent come before the Dr of the shared key.

    Args:
        d_model: C.
        config: heads and sizes; `num_heads` must be known.
        max_seq_len: positions of the rotary table to start with; it extends itself.

    Raises:
        ValueError: `config.num_heads` is null.
    """

    def __init__(self, d_model: int, config: LatentConfig, max_seq_len: int = 1024) -> None:
        super().__init__(d_model, config)
        self.config = config
        heads, latent, query_latent = config.heads(), config.kv_latent_size, config.query_latent_size
        self.query_down = nn.Linear(d_model, query_latent, bias=False)
        self.query_norm = WeightedRMSNorm(query_latent, LATENT_NORM_EPS)
        self.query_up = nn.Linear(query_latent, heads * config.query_size, bias=False)
        self.kv_down = nn.Linear(d_model, latent + config.rope_size, bias=False)
        self.kv_norm = WeightedRMSNorm(latent, LATENT_NORM_EPS)
        self.kv_up = nn.Linear(latent, heads * (config.head_dim + config.value_size), bias=False)
        self.rope = RotaryEmbedding(config.rope_size, max_seq_len, config.rope_base)
        self.reset_parameters()

    def attend(
        self, x: Tensor, positions: Tensor | None, document_ids: Tensor | None, cache: AttentionCache | None
    ) -> Tensor:
        config = self.config
        positions = self.token_positions(x, positions, cache)
        q = self.query_up(self.query_norm(self.query_down(x))).unflatten(-1, (-1, config.query_size))
        q_plain, q_rope = q.split((config.head_dim, config.rope_size), dim=-1)  # (B, T, H, D), (B, T, H, Dr)
        latent, k_rope = self.kv_down(x).split((config.kv_latent_size, config.rope_size), dim=-1)
        latent = self.kv_norm(latent)  # (B, T, dc)
        q_rope, k_rope = self.rope(q_rope, k_rope.unsqueeze(-2), positions=positions)  # one head of rotated keys
        starts_here = cache is None or cache.is_empty
        if cache is not None:
            cache.append(latent=torch.cat((latent, k_rope.squeeze(-2)), dim=-1))
            if not starts_here:
                return self._attend_absorbed(q_plain, q_rope, cache)
        kv = self.kv_up(latent).unflatten(-1, (-1, config.head_dim + config.value_size))
        k_plain, v = kv.split((config.head_dim, config.value_size), dim=-1)
        q = torch.cat((q_plain, q_rope), dim=-1)
        k = torch.cat((k_plain, k_rope.expand(*k_plain.shape[:-1], -1)), dim=-1)
        return dense_attention(q, k, v, document_ids=document_ids, scale=config.scale)

    def _attend_absorbed(self, q_plain: Tensor, q_rope: Tensor, cache: AttentionCache) -> Tensor:
        """Attention of the newest tokens to the cache, (B, N, H, E), without forming the keys and values of any head.

        q·(W_UK c) = (W_UKᵀ q)·c and Σ α W_UV c = W_UV Σ α c: the latent serves all heads, as key and as value.
        """
        config = self.config
        up = self.kv_up.weight.unflatten(0, (-1, config.head_dim + config.value_size))
        key_up, value_up = up.split((config.head_dim, config.value_size), dim=1)  # (H, D, dc), (H, E, dc)
        k = cache.entries()["latent"].unsqueeze(2)  # (B, M, 1, dc + Dr)
        q = torch.cat((torch.einsum("bnhd,hdc->bnhc", q_plain, key_up.to(q_plain.dtype)), q_rope), dim=-1)
        read = cached_attention(q, k, config.kv_latent_size, lengths=cache.lengths, scale=config.scale)
        return torch.einsum("bnhc,hec->bnhe", read, value_up.to(read.dtype))

    def _matrices(self) -> Iterator[tuple[Tensor, bool]]:
        """Views of the paper's matrices, the last axis their input, and whether they make entries of Q, K or V."""
        config = self.config
        plain, rotated = config.head_dim, config.rope_size
        latent_rows, rope_rows = self.kv_down.weight.split((config.kv_latent_size, rotated))
        query_up = self.query_up.weight.unflatten(0, (-1, config.query_size)).split((plain, rotated), dim=1)
        kv_up = self.kv_up.weight.unflatten(0, (-1, plain + config.value_size)).split((plain, config.value_size), dim=1)
        yield from ((self.query_down.weight, False), (latent_rows, False))
        yield from ((matrix, True) for matrix in (rope_rows, *query_up, *kv_up))

    @torch.no_grad()
    def reset_input_projections(self, scheme: InitScheme, variance: float | None = None) -> None:
        """Draw the projections afresh; both norms' weights become one.

        upstream: as nn.Linear does.
        paper: Xavier on each matrix of appendix F.3.
        variance: the norms give inputs of unit mean square to the up-projections, which decide the entries of Q, K
        and V together with the rows of the shared key; the other rows are scaled away by the norms.
        """
        check_init(scheme, variance)
        self.query_norm.reset_parameters()
        self.kv_norm.reset_parameters()
        for matrix, makes_entries in self._matrices():
            fan_in, fan_out = matrix.shape[-1], matrix.shape[:-1].numel()
            if scheme == "paper":
                bound = xavier_bound(fan_in, fan_out)
            elif scheme == "variance" and makes_entries:
                assert variance is not None
                bound = variance_bound(variance, fan_in)
            else:
                bound = fan_in**-0.5
            uniform_(matrix, bound)
