"""What decoding keeps of the tokens that came before, preallocated, one class a mechanism.

Letters: B batch, N new positions, M cached positions, H heads, G key/value heads, D and E head sizes, R rank.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lit_t6.ops.alignment import ALIGNMENT
from lit_t6.ops.append import Piece, append_projection, append_tokens


class AttentionCache:
    """Named numbers of every token that one layer has seen, in buffers of a fixed capacity.

    The last axis of each is padded to multiples of 16 bytes: a GPU reads pieces of that size, and 47 heads in bfloat16,
    94 bytes, at half the speed. Rows of the batch have lengths of their own (ragged batches). New tokens are written
    behind the last of their row; what was there before is not copied. For reading, `entries` gives views.

    Args:
        shapes: what is kept of a token, by name, such as {"k": (G, D), "v": (G, E)}.
        batch_size: B, rows.
        capacity: tokens that a row can hold.
        dtype: of the buffers.
        device: of the buffers.

    Raises:
        ValueError: a batch size or a capacity below 1.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in (("batch_size", batch_size), ("capacity", capacity)):
            if value < 1:
                raise ValueError(f"cache: {name} must be at least 1, got {value}.")
        self.capacity = capacity
        with torch.inference_mode(False):  # a cache made in inference mode could not be written outside of it
            self.buffers = {
                name: _buffer((batch_size, capacity, *shape), dtype, device) for name, shape in shapes.items()
            }
            self.lengths = torch.zeros(batch_size, dtype=torch.int64, device=device)
            self.starts = torch.zeros_like(self.lengths)
        """(B,) each: tokens that each row holds; and with fixed shapes, how many before the newest were counted."""
        self.longest = 0
        """No row is longer than this: known without asking the GPU."""
        self.fixed = False
        """See `ModelCache.fixed_shapes`."""

    @property
    def is_empty(self) -> bool:
        """Whether the next tokens are the first."""
        return not self.fixed and not self.longest

    @property
    def batch_size(self) -> int:
        """B."""
        return self.lengths.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that the buffers take, filled or not, the padding of their rows included."""
        return sum(buffer.untyped_storage().nbytes() for buffer in self.buffers.values())

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token of one row takes."""
        return self.nbytes // (self.batch_size * self.capacity)

    def next_positions(self, num_new: int) -> Tensor:
        """Positions (B, N) at which the next tokens of each row stand."""
        return self._places[:, None] + torch.arange(num_new, device=self.lengths.device)

    @property
    def _places(self) -> Tensor:
        """(B,): where the next tokens of each row are written, which fixed shapes have counted already."""
        return self.starts if self.fixed else self.lengths

    def check_room(self, batch_size: int, num_new: int) -> None:
        """Refuse tokens that `append` could not write.

        Args:
            batch_size: their rows.
            num_new: N, how many of each row.

        Raises:
            ValueError: another batch size, or more tokens than there is room for.
        """
        if batch_size != self.batch_size:
            raise ValueError(f"cache: it was made for {self.batch_size} rows, got {batch_size}.")
        if self.longest + num_new > self.capacity:
            raise ValueError(
                f"the cache is full: {self.longest} of its {self.capacity} positions are taken and {num_new} more "
                f"came; make it with a capacity of at least {self.longest + num_new}, or reset or truncate it."
            )

    @torch.no_grad()
    def append(self, **new: Tensor) -> None:
        """Write the newest tokens behind the last of each row.

        Args:
            new: by the names of `shapes`, each (B, N, …).

        Raises:
            ValueError: the cache is full; nothing was written then. With fixed shapes, nobody asks.
        """
        assert new.keys() == self.buffers.keys(), f"expected {list(self.buffers)}, got {list(new)}"
        num_new = self._make_room(next(iter(new.values())))
        append_tokens(list(self.buffers.values()), [new[name] for name in self.buffers], self._places)
        self._count(num_new)

    @torch.no_grad()
    def append_projection(
        self,
        projected: Tensor,
        pieces: Mapping[str, tuple[int, int]],
        rotated: Collection[str],
        rope: tuple[Tensor, Tensor],
    ) -> dict[str, Tensor]:
        """Cut what a projection made of the newest tokens into pieces, and write those that are kept.

        Args:
            projected: (B, N, columns): the pieces one after the other.
            pieces: number and size of the rows of each, by name; those in `shapes` are kept.
            rotated: names of those whose rows RoPE turns by their tokens' positions.
            rope: cosines and sines (at least `capacity`, P / 2) from `rope_angles`, entry m for position m.

        Returns:
            The pieces that are not kept, (B, N, rows, row size) each.

        Raises:
            ValueError: as `append`.
        """
        names = list(self.buffers)
        plan = [
            Piece(*shape, name in rotated, names.index(name) if name in names else -1) for name, shape in pieces.items()
        ]
        num_new = self._make_room(projected)
        back = append_projection(list(self.buffers.values()), projected, plan, self._places, rope)
        self._count(num_new)
        return dict(zip((name for name in pieces if name not in names), back, strict=True))

    def _make_room(self, new: Tensor) -> int:
        """N of new tokens (B, N, …), for which there must be room, unless the shapes are fixed: nobody asks then."""
        batch, num_new = new.shape[:2]
        if not self.fixed:
            self.check_room(batch, num_new)
        return num_new

    def _count(self, num_new: int) -> None:
        """That many more a row, unless whoever fixed the shapes counts."""
        if not self.fixed:
            self.longest += num_new
            self.lengths += num_new

    def entries(self) -> dict[str, Tensor]:
        """Views of what is kept, each (B, M, …); row b is valid up to `lengths[b]`.

        M is `longest`, or with fixed shapes the capacity.
        """
        return {name: x if self.fixed else x[:, : self.longest] for name, x in self.buffers.items()}

    def reset(self) -> None:
        """Forget all tokens."""
        self.truncate(0)

    def truncate(self, lengths: int | Sequence[int] | Tensor) -> None:
        """Forget the last tokens of rows, such as padding or refused drafts.

        Args:
            lengths: tokens that each row keeps, or one number for all rows.

        Raises:
            ValueError: not one number a row, a negative one, or more than a row has.
        """
        kept = torch.as_tensor(lengths).cpu()
        if kept.is_floating_point():
            raise ValueError(f"cache: truncate expects whole numbers of tokens, got {kept.tolist()}.")
        if kept.ndim and kept.shape != (self.batch_size,):
            raise ValueError(
                f"cache: truncate got lengths of shape {tuple(kept.shape)}, expected ({self.batch_size},)."
            )
        kept = kept.expand(self.batch_size)
        held = self.lengths.cpu()
        if ((kept < 0) | (kept > held)).any():
            raise ValueError(f"cache: rows hold {held.tolist()} tokens and cannot be truncated to {kept.tolist()}.")
        # Attention multiplies all places up to the longest row by weights, which are 0 behind the end of a row: what is
        # forgotten must be finite for that, whatever it was.
        first = int(kept.min())
        forgotten = torch.arange(first, self.longest) >= kept[:, None]
        forgotten = forgotten.to(self.lengths.device)
        for buffer in self.buffers.values():
            tail = buffer[:, first : self.longest]
            tail.masked_fill_(forgotten.view(*forgotten.shape, *[1] * (tail.ndim - 2)), 0)
        self.lengths.copy_(kept)
        self.longest = int(kept.max())


def _buffer(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros, each row along the last axis padded to whole pieces of `ALIGNMENT`; the padding is not seen."""
    *outer, size = shape
    piece = max(1, ALIGNMENT // dtype.itemsize)
    return torch.zeros(*outer, -(-size // piece) * piece, dtype=dtype, device=device)[..., :size]


class KeyValueCache(AttentionCache):
    """Keys, rotated, and values: MHA, MQA, GQA, MFA, and TPA with dense keys and values. `k` (G, D), `v` (G, E)."""


class FactorCache(AttentionCache):
    """The contextual factors of keys and values: TPA. `a_k` (Rk, H), `b_k` (Rk, D), `a_v` (Rv, H), `b_v` (Rv, E).

    `b_k` is rotated, unless it is shared with the values. Static factors are not kept; of third order, `c_k` and `c_v`
    are kept beside a `b_k` and a `b_v` of the smaller size.
    """


class LatentCache(AttentionCache):
    """MLA: `latent` (dc + Dr,), the latent after its norm and behind it the rotated key that all heads share.

    In one buffer, since decoding reads the whole of it as the key and its first part as the value.
    """
