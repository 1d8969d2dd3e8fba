"""The settings of a T6 model, and their plain form for checkpoints."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from torch import nn

import lit_t6.attention as mechanisms
from lit_t6.attention import AttentionConfig, InitScheme, TPAConfig, check_init, solve_num_heads
from lit_t6.model.feed_forward import ffn_width


@dataclass
class T6Config:
    """A decoder-only transformer whose attention is tensor product attention, or one of its rivals.

    Args:
        vocab_size: V, rows of the embedding and of the tied head; at least the tokenizer's size.
        max_seq_len: T, tokens of a training sequence.
        d_model: C, width of the residual stream.
        num_layers: L.
        attention: the mechanism and its settings. Its `num_heads`, if null, is solved for a budget of 4·d_model²
            parameters a layer.
        multiple_of: the hidden width of the feed-forward, ⌊8·d_model/3⌋, is rounded up to a multiple of this, since
            matrix kernels are slow at odd widths. 1 gives the paper's models.
        init: how the attention's input projections start: "upstream" as the authors' code does, "paper" as the paper's
            appendix G says, "variance" so that the entries of Q, K and V start with variance `init_variance`.
        init_variance: see `init`.
        norm_eps: added to the mean square in every RMSNorm; the default is float32's epsilon, as upstream's.

    Raises:
        ValueError: a size below 1, or an init and a variance that do not belong together.
    """

    vocab_size: int = 50304
    max_seq_len: int = 1024
    d_model: int = 768
    num_layers: int = 12
    attention: AttentionConfig = field(default_factory=TPAConfig)
    multiple_of: int = 64
    init: InitScheme = "upstream"
    init_variance: float | None = None
    norm_eps: float = 1.1920928955078125e-07

    def __post_init__(self) -> None:
        for name in ("vocab_size", "max_seq_len", "d_model", "num_layers", "multiple_of"):
            if getattr(self, name) < 1:
                raise ValueError(f"T6Config: {name} must be at least 1, got {getattr(self, name)}.")
        if not isinstance(self.attention, AttentionConfig):
            raise ValueError(
                f"T6Config: attention must be the configuration of a mechanism, such as TPAConfig(), "
                f"got {type(self.attention).__name__}."
            )
        check_init(self.init, self.init_variance)

    @property
    def ffn_width(self) -> int:
        """Hidden width of the feed-forward."""
        return ffn_width(self.d_model, self.multiple_of)

    def build_norm(self) -> nn.RMSNorm:
        """RMSNorm over C without a weight, as in the authors' code."""
        return nn.RMSNorm(self.d_model, eps=self.norm_eps, elementwise_affine=False)

    def resolved(self) -> Self:
        """A copy in which the head count is known.

        Raises:
            ValueError: no head count meets the budget.
        """
        if self.attention.num_heads is not None:
            return self
        return replace(self, attention=solve_num_heads(self.attention, self.d_model))

    def num_parameters(self) -> int:
        """Weights of the whole model, the tied embedding counted once."""
        config = self.resolved()
        layer = config.attention.num_parameters(config.d_model) + 3 * config.d_model * config.ffn_width
        return config.vocab_size * config.d_model + config.num_layers * layer

    def flops_per_token(self, seq_len: int) -> float:
        """FLOPs of a forward pass for a token, on average over a causal sequence; a multiply-add is two.

        Every weight that multiplies is used once, the tied one by the head; attention counts the visible half of its
        products. A training step takes three times as many.
        """
        attention = self.resolved().attention
        projections = attention.projection_flops_per_token(self.d_model) + 2 * 3 * self.d_model * self.ffn_width
        head = 2 * self.vocab_size * self.d_model
        return head + self.num_layers * (projections + attention.attention_flops_per_token(seq_len))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, with the mechanism as class_path and init_args: the form of YAML files.

        Raises:
            ValueError: a mechanism that `from_dict` would not find again.
        """
        name = type(self.attention).__name__
        if getattr(mechanisms, name, None) is not type(self.attention):
            raise ValueError(
                f"{name} is not one of lit_t6.attention, so no checkpoint of it could be read again: export it there."
            )
        plain = {**vars(self), "attention": None}
        plain["attention"] = {
            "class_path": f"lit_t6.attention.{name}",
            "init_args": asdict(self.attention),  # type: ignore[call-overload]  # every mechanism is a dataclass
        }
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ValueError: the mechanism's class is not one of `lit_t6.attention`.
        """
        class_path = plain["attention"]["class_path"]
        name = class_path.removeprefix("lit_t6.attention.")
        mechanism = getattr(mechanisms, name, None)
        if not (isinstance(mechanism, type) and issubclass(mechanism, AttentionConfig)):
            raise ValueError(f"attention: class_path {class_path!r} is not a mechanism of lit_t6.attention.")
        return cls(**{**plain, "attention": mechanism(**plain["attention"]["init_args"])})
