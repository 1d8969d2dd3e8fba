"""What every attention mechanism offers: a configuration that can count and build, and a module that can run."""

from abc import ABC, abstractmethod
from dataclasses import fields, replace
from typing import Any, ClassVar, Self, get_args, get_type_hints

from torch import Tensor, nn

from lit_t6.attention.initialization import InitScheme


class AttentionModule(nn.Module, ABC):
    """Causal self-attention (B, T, C) → (B, T, C), usable in any network."""

    out: nn.Linear

    @abstractmethod
    def forward(self, x: Tensor, *, positions: Tensor | None = None, document_ids: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: hidden states (B, T, C), after the block's norm.
            positions: integers (T,) or (B, T) for RoPE; 0 … T-1 if not given.
            document_ids: integers (B, T): a position sees its own document only.

        Returns:
            (B, T, C).
        """

    @abstractmethod
    def reset_input_projections(self, scheme: InitScheme, variance: float | None = None) -> None:
        """Draw the projections of the hidden state afresh; see `lit_t6.attention.initialization`."""

    def reset_parameters(self, scheme: InitScheme = "upstream", variance: float | None = None) -> None:
        """Draw all weights afresh; the output projection starts at zero, so that the block starts as the identity."""
        self.reset_input_projections(scheme, variance)
        nn.init.zeros_(self.out.weight)


class AttentionConfig(ABC):
    """Settings of one mechanism. Subclasses are dataclasses, named by `class_path` in a YAML file."""

    short_names: ClassVar[dict[str, dict[str, Any]]] = {}
    """What people type for the mechanism, such as "TPA", and the settings that each name stands for."""
    num_heads: int | None
    head_dim: int

    @abstractmethod
    def num_parameters(self, d_model: int) -> int:
        """Weights of one layer's attention (paper Table 1), for a configuration whose `num_heads` is known."""

    @abstractmethod
    def cache_numbers_per_token(self) -> int:
        """Numbers that decoding keeps for each token in each layer (paper Table 1)."""

    @abstractmethod
    def attention_flops_per_token(self, seq_len: int) -> float:
        """FLOPs of one layer's forward pass for a token beyond those of its weights, on average over a causal sequence.

        A multiply-add is two. Keys in a token's future are not counted.
        """

    @abstractmethod
    def build(self, d_model: int, max_seq_len: int = 1024) -> AttentionModule:
        """The module, with weights drawn by the upstream scheme.

        Raises:
            ValueError: `num_heads` is still open.
        """

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


def check_rope_dim(owner: str, head_dim: int) -> None:
    """Raise ValueError unless RoPE can pair the features of a head."""
    if head_dim % 2:
        raise ValueError(
            f"{owner}: head_dim={head_dim} is odd, but RoPE rotates pairs of features; take {head_dim + 1}."
        )
