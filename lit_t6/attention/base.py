"""What every attention mechanism offers: a configuration that can count and build, and a module that can run.

Letters: B batch, T positions, C model width, H heads, D head size of queries and keys, E of values.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, ClassVar, Self, get_args, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_t6.attention.cache import AttentionCache
from lit_t6.attention.initialization import InitScheme
from lit_t6.ops.alignment import is_plain
from lit_t6.ops.token_linear import takes, token_linear

HEAD_NORM_EPS = 1e-5  # upstream's


class WeightedRMSNorm(nn.RMSNorm):
    """RMSNorm whose weight takes the type of its input: under autocast they differ, and no fused kernel takes both."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class AttentionModule(nn.Module, ABC):
    """Causal self-attention (B, T, C) → (B, T, C), usable in any network.

    A subclass names the configuration that builds it: `class MyAttention(AttentionModule, config=MyConfig)`. Its
    constructor takes `d_model`, the configuration and `max_seq_len`.

    Args:
        d_model: C.
        config: of the mechanism; `num_heads` must be known.

    Raises:
        ValueError: `config.num_heads` is null.
    """

    def __init_subclass__(cls, config: "type[AttentionConfig] | None" = None) -> None:
        super().__init_subclass__()
        if config is not None:
            config.module_class = cls

    def __init__(self, d_model: int, config: "AttentionConfig") -> None:
        super().__init__()
        self.d_model = d_model
        self.out = nn.Linear(config.heads() * config.value_size, d_model, bias=False)
        self.head_norm = WeightedRMSNorm(config.value_size, HEAD_NORM_EPS) if config.head_norm else None

    def forward(
        self,
        x: Tensor,
        *,
        positions: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: AttentionCache | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: hidden states (B, T, C), after the block's norm.
            positions: integers (T,) or (B, T) for RoPE; 0 … T-1 if not given.
            document_ids: integers (B, T): a position sees its own document only.
            cache: from `config.build_cache`: x are the next tokens of its rows, and are added to it. They see what it
                holds, and those before them in x. No gradients are recorded then: decoding is inference.
            residual: what the result is added to, (B, T, C).

        Returns:
            (B, T, C).

        Raises:
            ValueError: the cache is full, or came with positions or documents.
        """
        if cache is not None and (positions is not None or document_ids is not None):
            raise ValueError("a cache knows the positions of its tokens: pass no positions or document_ids with it.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and cache is None):
            heads = self.attend(x, positions, document_ids, cache)
            if self.head_norm is not None:
                heads = self.head_norm(heads)
            heads = heads.flatten(-2)
            if residual is None:
                return self.out(heads)
            if is_plain(self.out) and takes(heads, self.out.weight):
                return token_linear(heads, self.out.weight, residual=residual)
            return residual + self.out(heads)

    @abstractmethod
    def attend(
        self, x: Tensor, positions: Tensor | None, document_ids: Tensor | None, cache: AttentionCache | None
    ) -> Tensor:
        """What the heads read, (B, T, H, E), before their norm and the output projection; arguments as `forward`.

        With a cache, there are no `positions`: they follow it (`token_positions`). The new tokens are appended here.
        """

    @staticmethod
    def token_positions(x: Tensor, positions: Tensor | None, cache: AttentionCache | None) -> Tensor | None:
        """Positions for RoPE, (T,) or (B, T): those that follow a cache, else those given; None for 0 … T-1."""
        return positions if cache is None else cache.next_positions(x.shape[1])

    @abstractmethod
    def reset_input_projections(self, scheme: InitScheme, variance: float | None = None) -> None:
        """Draw the projections of the hidden state afresh; see `lit_t6.attention.initialization`."""

    def reset_parameters(self, scheme: InitScheme = "upstream", variance: float | None = None) -> None:
        """Draw all weights afresh; the output projection starts at zero, so that the block starts as the identity."""
        self.reset_input_projections(scheme, variance)
        if self.head_norm is not None:
            self.head_norm.reset_parameters()
        nn.init.zeros_(self.out.weight)


class AttentionConfig(ABC):
    """Settings of one mechanism. Subclasses are dataclasses, named by `class_path` in a YAML file."""

    short_names: ClassVar[dict[str, dict[str, Any]]] = {}
    """What people type for the mechanism, such as "TPA", and the settings that each name stands for."""
    module_class: ClassVar[Callable[..., AttentionModule]]
    """What `build` makes; set by the module's class, which names its configuration."""
    num_heads: int | None
    head_dim: int
    head_norm: bool

    @abstractmethod
    def num_parameters(self, d_model: int) -> int:
        """Weights of one layer's attention (paper Table 1), for a configuration whose `num_heads` is known.

        The weights of RMSNorms (`norm_weights`) come on top of the paper's formulas.
        """

    @abstractmethod
    def cache_shapes(self) -> dict[str, tuple[int, ...]]:
        """What decoding keeps of a token in each layer, by name."""

    @abstractmethod
    def decode_multiply_adds_per_cached_token(self) -> int:
        """Multiply-adds that one new token's attention takes for each cached token in a layer (paper A.4)."""

    def projection_flops_per_token(self, d_model: int) -> int:
        """FLOPs of one layer's weights for a token, forward: two for each weight that multiplies it.

        A mechanism whose weights do not all multiply the token, such as static factors, says here which do.
        """
        return 2 * (self.num_parameters(d_model) - self.norm_weights)

    @property
    @abstractmethod
    def cache_class(self) -> type[AttentionCache]:
        """The mechanism's kind of cache."""

    @property
    def value_size(self) -> int:
        """E, numbers that a head reads of each value."""
        return self.head_dim

    @property
    def norm_weights(self) -> int:
        """Weights of the norms in a layer's attention, which come on top of the paper's formulas."""
        return self.value_size if self.head_norm else 0

    def cache_numbers_per_token(self) -> int:
        """Numbers that decoding keeps for each token in each layer (paper Table 1)."""
        return sum(math.prod(shape) for shape in self.cache_shapes().values())

    def build_cache(
        self,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> AttentionCache:
        """An empty cache for one layer; see `lit_t6.attention.AttentionCache`."""
        return self.cache_class(self.cache_shapes(), batch_size, capacity, dtype, device)

    @abstractmethod
    def attention_flops_per_token(self, seq_len: int) -> float:
        """FLOPs of one layer's forward pass for a token beyond those of its weights, on average over a causal sequence.

        A multiply-add is two. Keys in a token's future are not counted.
        """

    def build(self, d_model: int, max_seq_len: int = 1024) -> AttentionModule:
        """The module, with weights drawn by the upstream scheme.

        Raises:
            ValueError: `num_heads` is still open.
        """
        return self.module_class(d_model, self, max_seq_len)

    @property
    def num_heads_multiple(self) -> int:
        """Head counts must be multiples of this."""
        return 1

    @property
    def backend(self) -> str:
        """What computes the attention, for logs."""
        return "PyTorch's scaled_dot_product_attention"

    @property
    @abstractmethod
    def label(self) -> str:
        """Short name for logs and tables: the mechanism and what was chosen."""

    def numbers(self) -> dict[str, float]:
        """The numeric settings, for tables that compare runs; 0 where one is null."""
        return {name: float(getattr(self, name) or 0) for name in numeric_fields(type(self))}

    def with_num_heads(self, num_heads: int) -> Self:
        """The same settings at another head count."""
        return replace(self, num_heads=num_heads)  # type: ignore[type-var]  # every subclass is a dataclass

    def heads(self) -> int:
        """`num_heads`, which must be known.

        Raises:
            ValueError: it is not.
        """
        if self.num_heads is None:
            raise ValueError(
                "num_heads is null: give a number, or let lit_t6.attention.solve_num_heads choose it for a budget."
            )
        return self.num_heads


def numeric_fields(mechanism: type[AttentionConfig]) -> list[str]:
    """Names of a configuration's settings that are numbers, or numbers or null."""
    hints = get_type_hints(mechanism)
    return [f.name for f in fields(mechanism) if {int, float} & {hints[f.name], *get_args(hints[f.name])}]  # type: ignore[arg-type]


def check_positive(owner: str, **values: int | None) -> None:
    """Raise ValueError naming the first of `values` that is given and below 1."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{owner}: {name} must be at least 1, got {value}.")


def check_divides(owner: str, num_kv_heads: int | None, num_heads: int | None) -> None:
    """Raise ValueError if both counts of heads are given and the first does not divide the second."""
    if num_heads is not None and num_kv_heads is not None and num_heads % num_kv_heads:
        raise ValueError(
            f"{owner}: num_heads={num_heads} is not a multiple of num_kv_heads={num_kv_heads}; each key/value head "
            f"serves the same number of query heads."
        )
