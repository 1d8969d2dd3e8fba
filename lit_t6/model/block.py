"""One layer: attention and feed-forward, each behind a norm and beside a residual."""

from collections.abc import Callable

from torch import Tensor, nn

from lit_t6.attention import AttentionCache, AttentionModule
from lit_t6.model.config import T6Config
from lit_t6.model.feed_forward import SwiGLU
from lit_t6.model.recompute import Recompute, recomputed
from lit_t6.ops.alignment import is_unwatched
from lit_t6.ops.token_linear import takes, token_norm


class Block(nn.Module):
    """x ← x + Attention(RMSNorm(x)); x ← x + SwiGLU(RMSNorm(x)); (B, T, C) → (B, T, C).

    Args:
        config: resolved (`T6Config.resolved`).

    `recompute` says what a call computes again on its way back; it is not for calls with a cache. `run` takes the place
    of `compute`, compiled for one: hooks of the block, such as those that gather sharded weights, stay out of it.
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
        recompute: Recompute = "none",
        run: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        return (run or Block.compute)(self, x, positions, document_ids, cache, recompute)

    def compute(
        self,
        x: Tensor,
        positions: Tensor | None,
        document_ids: Tensor | None,
        cache: AttentionCache | None,
        recompute: Recompute,
    ) -> Tensor:
        """What a call computes, without the hooks of one."""
        if recompute == "full":
            return recomputed(self._run, x, positions, document_ids, keep_attention=False)
        if recompute == "selective":
            x = recomputed(self._attend, x, positions, document_ids, keep_attention=True)
            return recomputed(self._feed_forward, x, keep_attention=False)
        return self._run(x, positions, document_ids, cache)

    def compute_apart(
        self, x: Tensor, update: Tensor, positions: Tensor | None, document_ids: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What a call without a cache computes, its last sum not formed: the next block forms it beside its norm.

        Args:
            x: summand of what a call takes, (B, T, C).
            update: the other one, likewise.
            positions: as of a call.
            document_ids: likewise.

        Returns:
            Two summands of what a call gives.
        """
        x = self._attend(x + update, positions, document_ids)
        return x, self.feed_forward(self.feed_forward_norm(x))

    def _run(
        self, x: Tensor, positions: Tensor | None, document_ids: Tensor | None, cache: AttentionCache | None = None
    ) -> Tensor:
        return self._feed_forward(self._attend(x, positions, document_ids, cache))

    def _attend(
        self, x: Tensor, positions: Tensor | None, document_ids: Tensor | None, cache: AttentionCache | None = None
    ) -> Tensor:
        norm = self.attention_norm
        eps = _eps(norm)
        if eps is None or not (takes(x) and is_unwatched(self.attention)):
            return x + self.attention(norm(x), positions=positions, document_ids=document_ids, cache=cache)
        normed = token_norm(x, eps)
        return self.attention(normed, positions=positions, document_ids=document_ids, cache=cache, residual=x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        norm, layer = self.feed_forward_norm, self.feed_forward
        eps = _eps(norm)
        if eps is not None and type(layer) is SwiGLU and is_unwatched(layer) and layer.takes_tokens(x):
            return layer.after_norm(x, eps)
        return x + layer(norm(x))


def _eps(norm: nn.Module) -> float | None:
    """That of an RMSNorm without weights that nobody looks into; None for any other norm."""
    if type(norm) is not nn.RMSNorm or norm.weight is not None or not is_unwatched(norm):
        return None
    return norm.eps
