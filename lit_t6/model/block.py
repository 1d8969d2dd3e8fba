"""One layer: attention and feed-forward, each behind a norm and beside a residual."""

from torch import Tensor, nn

from lit_t6.attention import AttentionCache, AttentionModule
from lit_t6.model.config import T6Config
from lit_t6.model.feed_forward import SwiGLU


class Block(nn.Module):
    """x ← x + Attention(RMSNorm(x)); x ← x + SwiGLU(RMSNorm(x)); (B, T, C) → (B, T, C).

    Args:
        config: resolved (`T6Config.resolved`).
    """

    def __init__(self, config: T6Config) -> None:
        super().__init__()
        self.attention_norm = config.build_norm()
        self.attention: AttentionModule = config.attention.build(config.d_model, config.max_seq_len)
        self.feed_forward_norm = config.build_norm()
        self.feed_forward = SwiGLU(config.d_model, config.ffn_width)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: AttentionCache | None = None,
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), positions=positions, document_ids=document_ids, cache=cache)
        return x + self.feed_forward(self.feed_forward_norm(x))
