"""Rotary tables that live with a module: float32 whatever the module's type, on its device, as long as needed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_t6.ops import apply_rope, rope_angles


class RotaryEmbedding(nn.Module):
    """Rotates factors, queries or keys by their positions.

    The table is neither a parameter nor a buffer: `module.bfloat16()` must not round it, DDP need not send it,
    and a checkpoint need not hold it.

    Args:
        dim: number of features that rotate, the first ones of a row; even.
        max_seq_len: positions held from the start; longer inputs extend the table by themselves.
        base: see `lit_t6.ops.rope_angles`.
        decay: see `lit_t6.ops.rope_angles`.

    Raises:
        ValueError: `dim` is odd.
    """

    def __init__(self, dim: int, max_seq_len: int = 1024, base: float = 10000.0, decay: float | None = None) -> None:
        super().__init__()
        self.dim, self.base, self.decay = dim, base, decay
        self._fill(max_seq_len, torch.device("cpu"))

    def _fill(self, num_positions: int, device: torch.device) -> None:
        with torch.inference_mode(False):  # a table made in inference mode could never be trained with
            positions = torch.arange(num_positions, device=device)
            self.cos, self.sin = rope_angles(positions, self.dim, self.base, self.decay)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RotaryEmbedding":
        """Follow the module to another device, but never to another type."""
        super()._apply(fn, recurse)
        device = fn(torch.empty(0, device=self.cos.device)).device
        if device != self.cos.device:
            self._fill(self.cos.shape[0], device)
        return self

    def tables(self, length: int, device: torch.device, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and sines for `apply_rope`.

        Args:
            length: T.
            device: of the rows that will be rotated.
            positions: integer positions (T,) or (B, T), any offset; 0 … T-1 if not given.

        Returns:
            cos and sin, each (T, dim / 2) or (B, T, dim / 2), float32.
        """
        if positions is not None:
            return rope_angles(positions, self.dim, self.base, self.decay)
        if length > self.cos.shape[0] or device != self.cos.device:
            held = self.cos.shape[0]
            self._fill(held if length <= held else max(length, 2 * held), device)
        return self.cos[:length], self.sin[:length]

    def forward(self, *rows: Tensor, positions: Tensor | None = None) -> tuple[Tensor, ...]:
        """Rotate each of `rows`, all (B, T, N, dim or more) with N free, by the same positions."""
        cos, sin = self.tables(rows[0].shape[1], rows[0].device, positions)
        return tuple(apply_rope(x, cos, sin) for x in rows)
