"""The T6 language model (paper section 3.4): embedding, blocks, norm, tied head.

Letters: B batch, T positions, C model width, V vocabulary.
"""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_t6.model.block import Block
from lit_t6.model.config import T6Config
from lit_t6.model.generation import SamplingConfig, generate

IGNORED_TARGET = -100
"""A target with this value is not predicted: padding."""


class T6Model(nn.Module):
    """Decoder-only transformer over token ids.

    Args:
        config: its `num_heads`, if null, is solved here; `self.config` holds the result.

    Raises:
        ValueError: no head count meets the parameter budget.
    """

    def __init__(self, config: T6Config) -> None:
        super().__init__()
        self.config = config = config.resolved()
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = config.build_norm()
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.head.weight = self.embedding.weight
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights afresh, by `config.init`; the tied weight starts as nn.Linear's does, ±1/√C."""
        self.head.reset_parameters()
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.reset_parameters(self.config.init, self.config.init_variance)
            block.feed_forward.reset_parameters()

    def hidden_states(
        self, tokens: Tensor, *, positions: Tensor | None = None, document_ids: Tensor | None = None
    ) -> Tensor:
        """Inputs of the head, (B, T, C); arguments as `forward`."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, positions, document_ids)
        return self.norm(x)

    def forward(self, tokens: Tensor, *, positions: Tensor | None = None, document_ids: Tensor | None = None) -> Tensor:
        """Logits of the next token at every position.

        Args:
            tokens: integer ids (B, T).
            positions: integers (T,) or (B, T) for RoPE; 0 … T-1 if not given.
            document_ids: integers (B, T): a position sees its own document only.

        Returns:
            (B, T, V).
        """
        return self.head(self.hidden_states(tokens, positions=positions, document_ids=document_ids))

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        *,
        document_ids: Tensor | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> Tensor:
        """Cross-entropy of the targets, in nats, computed in float32 at least.

        Args:
            tokens: integer ids (B, T).
            targets: the ids that follow, (B, T); `IGNORED_TARGET` (-100) is not counted.
            document_ids: as in `forward`.
            reduction: "mean" over the counted targets, "sum", or "none": (B, T), 0 where ignored.
        """
        logits = self(tokens, document_ids=document_ids).flatten(0, 1)
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED_TARGET, reduction=reduction)
        return loss.view_as(targets) if reduction == "none" else loss

    def generate(
        self, tokens: Tensor, max_new_tokens: int, sampling: SamplingConfig | None = None, seed: int | None = None
    ) -> Iterator[Tensor]:
        """Continue the prompts one token at a time; see `lit_t6.model.generation.generate`."""
        return generate(self, tokens, max_new_tokens, sampling or SamplingConfig(), seed, self.config.max_seq_len)
