"""Tensor product attention (arXiv 2501.06425, section 3.1) and its variants.

Letters: B batch, T positions, M cached positions, C model width, H heads, G key/value heads, D and E head sizes, R
rank.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_t6.attention.base import AttentionModule
from lit_t6.attention.cache import AttentionCache
from lit_t6.attention.head_activation import activated, mean_square
from lit_t6.attention.initialization import InitScheme, check_init, uniform_, variance_bound, xavier_bound
from lit_t6.attention.multi_head import MultiHeadAttention
from lit_t6.attention.rotary import RotaryEmbedding
from lit_t6.attention.tpa_config import TPAConfig
from lit_t6.ops import (
    Impl,
    TPAFactors,
    cached_attention,
    dense_attention,
    head_groups,
    materialise,
    outer_features,
    tpa_attention,
    tpa_decode,
)
from lit_t6.ops.alignment import AlignedLinear, is_unwatched
from lit_t6.ops.token_linear import takes
from lit_t6.ops.tpa.api import attend_by_factors, attend_packed
from lit_t6.ops.tpa.packed_rows import cut_factors, pack

Parts = dict[str, Tensor]
"""Dense parts and factors by name ("q", "a_k", "b_v", …), each (B, T or M, count, size)."""


class TensorProductAttention(AttentionModule, config=TPAConfig):
    """Causal tensor product self-attention, (B, T, C) → (B, T, C).

    Args:
        d_model: C.
        config: ranks, heads, head size and variant; `num_heads` must be known.
        max_seq_len: positions of the rotary table to start with; it extends itself.

    Raises:
        ValueError: `config.num_heads` is null.
    """

    def __init__(self, d_model: int, config: TPAConfig, max_seq_len: int = 1024) -> None:
        super().__init__(d_model, config)
        self.config = config
        # One GEMM for all that depends on the token; its rows are those of `config.pieces()`, each rank-major.
        self.factors = AlignedLinear(d_model, config.num_columns, bias=False)
        self.static = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(shape)) for name, shape in config.static_pieces().items()}
        )
        self.rope = RotaryEmbedding(config.rope_dim, max_seq_len, config.rope_base, config.rope_decay)
        self.reset_parameters()

    @classmethod
    @torch.no_grad()
    def from_multi_head(cls, module: MultiHeadAttention) -> "TensorProductAttention":
        """The tensor product attention that is a given MHA, MQA or GQA (paper section 4).

        A is static: of queries Rq = H and a_i = H·e_i, of keys and values R = G and a_j = G·(the heads of group j).
        """
        theirs = module.config
        heads, groups = theirs.heads(), theirs.kv_heads
        config = TPAConfig(
            heads,
            theirs.head_dim,
            heads,
            groups,
            groups,
            static_a=True,
            rope_base=theirs.rope_base,
            rope_fraction=theirs.rope_fraction,
            rope_decay=theirs.rope_decay,
            head_norm=theirs.head_norm,
        )
        ours = cls(module.d_model, config, module.rope.cos.shape[0]).to(module.out.weight)
        ours.factors.weight.copy_(module.qkv.weight)
        ours.out.load_state_dict(module.out.state_dict())
        if ours.head_norm is not None and module.head_norm is not None:
            ours.head_norm.load_state_dict(module.head_norm.state_dict())
        for factor in ours.static.values():
            factor.copy_(head_groups(factor.shape[0], heads))
        return ours

    def split(self, rows: Tensor, dim: int = 0) -> Parts:
        """Cut the rows of the factor weight, or the columns that they make, by the names of `config.pieces()`."""
        pieces = self.config.pieces()
        parts = rows.split([count * size for count, size in pieces.values()], dim)
        return dict(zip(pieces, parts, strict=True))

    def _cut(self, rows: Tensor) -> Parts:
        """Everything that is made from each token, before RoPE, out of the rows of `factors`."""
        pieces = self.config.pieces()
        parts = {name: part.unflatten(-1, pieces[name]) for name, part in self.split(rows, -1).items()}
        return {name: activated(part, name, self.config.head_activation) for name, part in parts.items()}

    def _named(self, pairs: Sequence[tuple[Tensor | None, Tensor]]) -> Parts:
        """Factors of queries, keys and values, as `_cut` gives them."""
        parts: Parts = {}
        for letter, (a, b) in zip("qkv", pairs, strict=True):
            parts |= {letter: b} if a is None else {f"a_{letter}": a, f"b_{letter}": b}
        return parts

    def _complete(self, parts: Parts) -> Parts:
        """With static factors, as stride-0 expands, and shared ones."""
        like = next(iter(parts.values()))
        static = {
            name: activated(factor, name, self.config.head_activation).to(like.dtype).expand(*like.shape[:2], -1, -1)
            for name, factor in self.static.items()
        }
        whole = parts | static
        if self.config.shared_b:
            whole |= {name.replace("k", "v"): whole[name] for name in ("b_k", "c_k") if name in whole}
        return whole

    def _rotate(self, parts: Parts, letters: str, positions: Tensor | None) -> Parts:
        """With RoPE on the dense part or the B of the queries, the keys, or both."""
        names = [letter if letter in parts else f"b_{letter}" for letter in letters]
        same_positions = positions is None or positions.ndim == 1
        rows = {
            # a static factor is turned alike in all rows of the batch: turn it once
            name: parts[name][:1] if same_positions and name in self.static else parts[name]
            for name in names
        }
        turned = self.rope(*rows.values(), positions=positions)
        return parts | {name: x.expand_as(parts[name]) for name, x in zip(names, turned, strict=True)}

    def _features(self, parts: Parts, letter: str) -> Tensor:
        """B (B, T, R, D or E); of third order, made from its two factors."""
        b = parts[f"b_{letter}"]
        return outer_features(b, parts[f"c_{letter}"]) if f"c_{letter}" in parts else b

    def _heads(self, parts: Parts, letter: str) -> Tensor:
        """Queries, keys or values (B, T, H or G, D or E)."""
        if letter in parts:
            return parts[letter]
        return materialise(parts[f"a_{letter}"], self._features(parts, letter))

    def _pair(self, parts: Parts, letter: str) -> tuple[Tensor, Tensor]:
        """A (B, T, R, H) and B (B, T, R, D or E); dense heads are factors too, with an A that is fixed (section 4)."""
        if letter not in parts:
            return parts[f"a_{letter}"], self._features(parts, letter)
        dense = parts[letter]
        a = head_groups(dense.shape[-2], self.config.heads(), dtype=dense.dtype, device=dense.device)
        return a.expand(*dense.shape[:2], -1, -1), dense

    def compute_factors(self, x: Tensor, positions: Tensor | None = None) -> TPAFactors:
        """The six factors of every token, b_q and b_k rotated; dense heads as factors with a fixed A.

        Args:
            x: (B, T, C).
            positions: integers (T,) or (B, T); 0 … T-1 if not given.
        """
        parts = self._rotate(self._complete(self._cut(self.factors(x))), "qk", positions)
        return TPAFactors(*(factor for letter in "qkv" for factor in self._pair(parts, letter)))

    def attend(
        self, x: Tensor, positions: Tensor | None, document_ids: Tensor | None, cache: AttentionCache | None
    ) -> Tensor:
        config = self.config
        if cache is not None and not cache.is_empty and self._projects_queries:
            return self._decode(self._append(x, cache), cache)
        positions = self.token_positions(x, positions, cache)
        if cache is None and document_ids is None and self._packs and not takes(x, self.factors.weight):
            ranks = (config.rank_q if config.factorized == "qkv" else 0, config.rank_k, config.rank_v)
            sizes = ranks, config.heads(), config.head_dim
            rows = F.linear(x, pack(self.factors.weight, *sizes))
            read = attend_packed(rows, *sizes, self.rope.tables(x.shape[1], x.device, positions))
            if read is not None:
                return read
            parts = self._named(cut_factors(rows, *sizes))
        else:
            parts = self._complete(self._cut(self.factors(x)))
        if cache is None and config.impl != "reference":
            read = self._attend_by_factors(parts, positions, document_ids)
            if read is not None:
                return read
        rotated = self._rotate(parts, "qk", positions)
        if cache is not None:
            starts_here = cache.is_empty
            kept = parts if config.rotates_on_read else rotated
            cache.append(**{name: kept[name] for name in cache.buffers})
            if not starts_here:
                return self._decode(rotated, cache)
        if config.impl == "reference" or (config.factorized == "qkv" and config.rope_on == "factors"):
            factors = TPAFactors(*(factor for letter in "qkv" for factor in self._pair(rotated, letter)))
            impl: Impl = "reference" if config.impl == "reference" else "auto"
            return tpa_attention(factors, document_ids=document_ids, impl=impl)
        if config.rope_on == "factors":
            q, k = (self._heads(rotated, letter) for letter in "qk")
        else:
            q, k = self.rope(*(self._heads(parts, letter) for letter in "qk"), positions=positions)
        return dense_attention(q, k, self._heads(parts, "v"), document_ids=document_ids)

    def _attend_by_factors(self, parts: Parts, positions: Tensor | None, document_ids: Tensor | None) -> Tensor | None:
        """What the heads read of a whole sequence, by the kernels that keep factors; None where they cannot."""
        config, like = self.config, next(iter(parts.values()))
        masked = document_ids is not None
        if config.rope_on == "heads" or (config.impl == "auto" and (masked or not like.is_cuda)):
            return None
        # Dense heads, and factors that do not turn as a whole, are turned here; the others as the kernel reads them.
        whole = config.third_order_dim is None and config.rope_dim == config.head_dim
        outside = "".join(letter for letter in "qk" if letter in parts or not whole)
        turned = self._rotate(parts, outside, positions) if outside else parts
        pairs = [(None, turned[x]) if x in turned else (turned[f"a_{x}"], self._features(turned, x)) for x in "qkv"]
        tables = self.rope.tables(like.shape[1], like.device, positions) if whole else None
        return attend_by_factors(*pairs[0], *pairs[1], *pairs[2], masked=masked, rope=tables, impl=config.impl)

    @property
    def _packs(self) -> bool:
        """Whether a whole sequence may be read by the rows of `factors`, of which nobody looks at a part."""
        by_kernels = self.config.impl == "triton" or (self.config.impl == "auto" and self.factors.weight.is_cuda)
        is_ours = type(self.factors) is AlignedLinear and is_unwatched(self.factors)
        return by_kernels and self.config.is_packed and is_ours

    @property
    def _projects_queries(self) -> bool:
        """Whether all that turns and all that is kept is as the projection makes it."""
        return self.config.head_activation == "none" and "b_q" not in self.static

    def _append(self, x: Tensor, cache: AttentionCache) -> Parts:
        """Add tokens to a cache; what is left of them is their queries, rotated."""
        turned = {"q", "b_q"} if self.config.rotates_on_read else {"q", "b_q", "k", "b_k"}
        tables = self.rope.tables(cache.capacity, x.device)
        return self._complete(cache.append_projection(self.factors(x), self.config.pieces(), turned, tables))

    def _decode(self, new: Parts, cache: AttentionCache) -> Tensor:
        """What the newest tokens read from the cache, which holds them already: (B, T, H, E)."""
        held = self._complete(cache.entries())
        turns = self.config.rotates_on_read  # a token stands at the position of its place in the cache
        if "k" in held:
            held = self._rotate(held, "k", None) if turns else held
            return cached_attention(self._heads(new, "q"), held["k"], held["v"], lengths=cache.lengths)
        a_q, b_q = (None, new["q"]) if "q" in new else self._pair(new, "q")
        rope = self.rope.tables(held["a_k"].shape[1], cache.lengths.device) if turns else None
        return tpa_decode(
            *(a_q, b_q, held["a_k"], held["b_k"], held["a_v"], held["b_v"]),
            c_k=held.get("c_k"),
            c_v=held.get("c_v"),
            lengths=cache.lengths,
            rope=rope,
            zero_padding=True,  # a cache's
            impl=self.config.impl,
        )

    @torch.no_grad()
    def reset_input_projections(self, scheme: InitScheme, variance: float | None = None) -> None:
        """Draw the factors' weights.

        upstream: Xavier over a 3-D view of each factor's weight, which makes the spread fall with the rank; dense
        queries by Xavier, dense keys and values as nn.Linear does.
        paper: Xavier over each (R·H or R·D, C) matrix (appendix G); of static factors, over the (R, H or D) matrix, as
        "upstream" too.
        variance: an entry of Q is a mean of R products of an A and a B entry, so Var Q = E[A²] · Var B / R. A and B
        share the factor evenly; under an activation, A's inputs have variance 1 and B takes the rest.
        """
        check_init(scheme, variance)
        weights = self.split(self.factors.weight) | dict(self.static.items())
        for name, weight in weights.items():
            count, size = (self.config.pieces() | self.config.static_pieces())[name]
            fan_in = 1 if name in self.static else self.d_model
            if scheme == "variance":
                assert variance is not None
                bound = variance_bound(self._entry_variance(name, variance), fan_in)
            elif name in self.static:
                bound = xavier_bound(count, size)
            elif scheme == "paper" or name == "q":
                bound = xavier_bound(fan_in, count * size)
            elif name in ("k", "v"):
                bound = fan_in**-0.5
            elif name.startswith("a_"):  # upstream's view is (C, H, R); Xavier's fans are dims 0 and 1, times dim 2
                bound = xavier_bound(fan_in * count, size * count)
            else:  # its view of a B weight is (C, R, D)
                bound = xavier_bound(fan_in * size, count * size)
            uniform_(weight, bound)

    def _entry_variance(self, name: str, variance: float) -> float:
        """Variance of the entries of a part with which those of Q, K or V have a given one."""
        if name in ("q", "k", "v"):
            return variance
        activation, rank = self.config.head_activation, self.config.rank(name[-1])
        if activation == "none":
            of_a = of_b = math.sqrt(rank * variance)
        else:
            of_a, of_b = 1.0, rank * variance / mean_square(activation, self.config)
        if name.startswith("a_"):
            return of_a
        return of_b if self.config.third_order_dim is None else math.sqrt(of_b)
