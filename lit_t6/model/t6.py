"""The T6 language model (paper section 3.4): embedding, blocks, norm, tied head.

Letters: B batch, T positions, C model width, V vocabulary.
"""

import functools
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_t6.attention import AttentionCache
from lit_t6.model.block import Block
from lit_t6.model.cache import ModelCache
from lit_t6.model.config import T6Config
from lit_t6.model.decode_step import StepMode
from lit_t6.model.generation import Generation, Prompts
from lit_t6.model.recompute import Recompute
from lit_t6.model.sampling import SamplingConfig
from lit_t6.ops.alignment import is_unwatched
from lit_t6.ops.linear_cross_entropy import Reduction, linear_cross_entropy

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

    def new_cache(self, batch_size: int, capacity: int | None = None, dtype: torch.dtype | None = None) -> ModelCache:
        """An empty cache for decoding, on the model's device.

        Args:
            batch_size: B, rows.
            capacity: tokens that a row can hold; `max_seq_len` if not given.
            dtype: of what is kept; if not given, autocast's where autocast is on, else that of the weights.

        Raises:
            ValueError: a batch size or a capacity below 1.
        """
        device = self.embedding.weight.device
        if capacity is None:
            capacity = self.config.max_seq_len
        if dtype is None:
            autocast = torch.is_autocast_enabled(device.type)
            dtype = torch.get_autocast_dtype(device.type) if autocast else self.embedding.weight.dtype
        build = self.config.attention.build_cache
        return ModelCache([build(batch_size, capacity, dtype, device) for _ in self.blocks])

    def hidden_states(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        cache: ModelCache | None = None,
        document_ids: Tensor | None = None,
        compiled: bool = False,
        recompute: Recompute = "none",
    ) -> Tensor:
        """Inputs of the head, (B, T, C).

        Args:
            tokens: as in `forward`, and the next three alike.
            positions: likewise.
            cache: likewise.
            document_ids: likewise.
            compiled: all blocks run as one compiled one; the embedding, on a GPU, and the last norm are compiled too.
            recompute: what each block computes again where gradients are wanted.
        """
        if cache is not None:
            cache.check(len(self.blocks), *tokens.shape)
            if cache.fixed:
                cache.count(tokens.shape[1])
        with torch.set_grad_enabled(torch.is_grad_enabled() and cache is None):
            run = _compiled_block(for_one_token=cache is not None) if compiled else None
            recompute = recompute if torch.is_grad_enabled() else "none"
            if run and cache is None and recompute == "none" and self._is_plain:
                # One graph's last sum is another's first, so that one kernel forms it and the norm: a pass less.
                embed, end = _compiled_ends()
                # A CPU's compiled way back adds in any order, and training there is the same to the last bit.
                x = embed(self.embedding, tokens) if tokens.is_cuda else self.embedding(tokens)
                update = _NoUpdate.apply(x)
                for block in self.blocks:
                    x, update = run(block, x, positions, document_ids, update=update)
                return end(self.norm, x, update)
            x = self.embedding(tokens)
            for index, block in enumerate(self.blocks):
                layer = None if cache is None else cache.layers[index]
                x = block(x, positions, document_ids, layer, recompute, run)
            return self.norm(x)

    @property
    def _is_plain(self) -> bool:
        """Whether a call of each part is what its class computes, and nobody waits for what it gives."""
        if torch.nn.modules.module._has_any_global_hook():
            return False
        ours = type(self.embedding) is nn.Embedding and all(type(block) is Block for block in self.blocks)
        return ours and all(map(is_unwatched, (self.embedding, *self.blocks, self.norm)))

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        cache: ModelCache | None = None,
        document_ids: Tensor | None = None,
        _targets: Tensor | None = None,
        _reduction: Reduction = "mean",
        _compiled: bool = False,
        _recompute: Recompute = "none",
    ) -> Tensor:
        """Logits of the next token at every position.

        Args:
            tokens: integer ids (B, T).
            positions: integers (T,) or (B, T) for RoPE; 0 … T-1 if not given.
            cache: from `new_cache`: the tokens are the next ones of its rows, see what it holds, and are added to it.
                No gradients lead back through it.
            document_ids: integers (B, T): a position sees its own document only.

        Returns:
            (B, T, V).

        Raises:
            ValueError: the cache is full or not for this model and batch (no layer has written then), or came with
                positions or documents.
        """
        hidden = self.hidden_states(
            tokens,
            positions=positions,
            cache=cache,
            document_ids=document_ids,
            compiled=_compiled,
            recompute=_recompute,
        )
        if _targets is None:
            return self.head(hidden)
        weight = self.head.weight
        return linear_cross_entropy(hidden, weight, _targets, ignore_index=IGNORED_TARGET, reduction=_reduction)

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        *,
        document_ids: Tensor | None = None,
        reduction: Reduction = "mean",
        compiled: bool = False,
        recompute: Recompute = "none",
    ) -> Tensor:
        """Cross-entropy of the targets, in nats, computed in float32 at least; large logits are not formed all at once.

        Args:
            tokens: integer ids (B, T).
            targets: the ids that follow, (B, T); `IGNORED_TARGET` (-100) is not counted.
            document_ids: as in `forward`.
            reduction: "mean" over the counted targets, "sum", or "none": (B, T), 0 where ignored.
            compiled: as in `hidden_states`.
            recompute: likewise.
        """
        # Through the call of the module: hooks on it, such as those that gather sharded weights, are called.
        return self(
            tokens,
            document_ids=document_ids,
            _targets=targets,
            _reduction=reduction,
            _compiled=compiled,
            _recompute=recompute,
        )

    def generate(
        self,
        prompts: Prompts,
        max_new_tokens: int,
        sampling: SamplingConfig | None = None,
        seed: int | None = None,
        end_token: int | None = None,
        step: StepMode = "auto",
    ) -> Generation:
        """Continue prompts one token at a time: an iterator over the next token of each row, (B,).

        On a GPU, a token is one launch of a CUDA graph, recorded at the third; see `StepMode`.

        Args:
            prompts: integer ids, (B, T), or one sequence a row, of any lengths from 1.
            max_new_tokens: how many tokens to yield for each row.
            sampling: how they are drawn; the default `SamplingConfig` if not given.
            seed: of the drawing, one for the batch; null takes the global random state.
            end_token: a row that has yielded it goes on yielding it; the iteration ends when all rows have.
            step: "auto", "eager", "graph", or "compile", which takes seconds at first and is fastest from then on.

        Raises:
            ValueError: see `Generation`, which also says what the model sees beyond `max_seq_len` tokens.
        """
        sampling = sampling or SamplingConfig()
        return Generation(self, prompts, max_new_tokens, sampling, self.config.max_seq_len, seed, end_token, step)


def _run_block(
    block: Block,
    x: Tensor,
    positions: Tensor | None,
    document_ids: Tensor | None,
    cache: AttentionCache | None = None,
    recompute: Recompute = "none",
    update: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`Block.compute`, or, where an update is given, `Block.compute_apart`: functions are compiled, not methods."""
    if update is not None:
        return block.compute_apart(x, update, positions, document_ids)
    return block.compute(x, positions, document_ids, cache, recompute)


class _NoUpdate(torch.autograd.Function):
    """Zeros that are to a compiler as a block's update is, which another kind of tensor would be compiled for again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        return torch.zeros_like(x, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, _grad: Tensor) -> None:
        return None


def _embed(embedding: nn.Embedding, tokens: Tensor) -> Tensor:
    """(B, T) → (B, T, C)."""
    return embedding(tokens)


def _end(norm: nn.Module, x: Tensor, update: Tensor) -> Tensor:
    """Two summands and their norm, (B, T, C)."""
    return norm(x + update)


@functools.cache
def _compiled_ends() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`_embed` and `_end`, of all models.

    The last sum and the norm become one kernel, and the gradients of tokens are added to the embedding's by atomics, in
    any order, unless deterministic algorithms are asked for: without sorting them first, as PyTorch does.
    """
    return torch.compile(_embed), torch.compile(_end)


@functools.cache
def _compiled_block(for_one_token: bool) -> Callable[..., Any]:
    """One for the blocks of all models: they differ in their weights only, or are compiled again.

    Compiling a model as a whole takes as many times longer as it has layers, and is hardly faster then.

    Args:
        for_one_token: tuned for a step of decoding: products of one row with a matrix are then kernels of their own,
            fused with what comes before and after.
    """
    # The compiler itself looks for the .grad of what a block is given, which comes from another block.
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf Tensor", UserWarning)
    # It asks that what is recomputed writes nothing in place; ours does not.
    logging.getLogger("torch._higher_order_ops.wrap").addFilter(lambda said: "context_fn" not in said.getMessage())
    if not for_one_token:
        return torch.compile(_run_block)
    return torch.compile(_run_block, dynamic=False, options={"coordinate_descent_tuning": True})
