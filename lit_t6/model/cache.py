"""What decoding with a whole model keeps: one attention cache a layer, all of them at the same tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lit_t6.attention import AttentionCache


class ModelCache:
    """The caches of a model's layers, for `T6Model.forward(tokens, cache=...)`; made by `T6Model.new_cache`.

    Args:
        layers: one empty cache a layer, of equal batch size and capacity.

    Raises:
        ValueError: no layers.
    """

    def __init__(self, layers: Sequence[AttentionCache]) -> None:
        if not layers:
            raise ValueError("ModelCache: expected the cache of at least one layer, got none.")
        self.layers = list(layers)

    @property
    def batch_size(self) -> int:
        """B, rows."""
        return self.layers[0].batch_size

    @property
    def capacity(self) -> int:
        """Tokens that a row can hold."""
        return self.layers[0].capacity

    @property
    def lengths(self) -> Tensor:
        """(B,): tokens that each row holds."""
        return self.layers[0].lengths

    @property
    def longest(self) -> int:
        """Tokens of the longest row: known without asking the GPU."""
        return self.layers[0].longest

    @property
    def device(self) -> torch.device:
        """Where the buffers are."""
        return self.lengths.device

    @property
    def nbytes(self) -> int:
        """Bytes that all buffers take, filled or not."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token of one row takes, over all layers."""
        return sum(layer.bytes_per_token for layer in self.layers)

    def check(self, num_layers: int, batch_size: int, num_new: int) -> None:
        """Refuse tokens that some layer could not take, before any layer has taken them.

        Args:
            num_layers: of the model.
            batch_size: rows of the new tokens.
            num_new: new tokens of each row.

        Raises:
            ValueError: the cache is of another depth or batch size, or is full.
        """
        if len(self.layers) != num_layers:
            raise ValueError(
                f"cache: it has {len(self.layers)} layers and the model {num_layers}; make it with model.new_cache."
            )
        for layer in self.layers:
            layer.check_room(batch_size, num_new)

    @contextmanager
    def fixed_shapes(self, num_new: int) -> Iterator[None]:
        """Inside, new tokens are taken without anything that is computed having a shape that grows.

        What is read is whole buffers, of which `lengths` says what is valid; the host counts once, at the end, and the
        GPU once for all layers (`count`): one CUDA graph or compiled function does for all lengths.

        Args:
            num_new: tokens that each row is given inside; there must be room for them.
        """
        for layer in self.layers:
            layer.fixed = True
        try:
            yield
        finally:
            for layer in self.layers:
                layer.fixed = False
        for layer in self.layers:
            layer.longest += num_new

    @property
    def fixed(self) -> bool:
        """Whether shapes are fixed."""
        return self.layers[0].fixed

    def count(self, num_new: int) -> None:
        """With fixed shapes, count the tokens that all layers are about to be given; on the device only.

        Args:
            num_new: of each row.
        """
        assert self.fixed
        lengths = [layer.lengths for layer in self.layers]
        torch._foreach_copy_([layer.starts for layer in self.layers], lengths)
        torch._foreach_add_(lengths, num_new)

    def reset(self) -> None:
        """Forget all tokens."""
        for layer in self.layers:
            layer.reset()

    def truncate(self, lengths: int | Sequence[int] | Tensor) -> None:
        """Forget the last tokens of rows; see `AttentionCache.truncate`.

        Args:
            lengths: tokens that each row keeps, (B,), or one number for all rows.

        Raises:
            ValueError: not one number a row, a negative one, or more than a row has.
        """
        for layer in self.layers:
            layer.truncate(lengths)
