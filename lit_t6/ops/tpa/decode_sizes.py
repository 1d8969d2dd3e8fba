"""How a decode step of FlashTPA is cut: tokens of a block, parts of a row, and how a program reads them.

What is not derived was measured on an H200 (experiments/decode_speed).
"""

from typing import Any

import torch

from lit_t6.ops.device import num_multiprocessors, shared_memory
from lit_t6.ops.splits import blocks, most_logits, splits_of

_ROWS_FIRST = ((64, 3), (32, 5), (32, 3), (16, 3), (16, 2), (16, 1))
"""Tokens of a block, and blocks that are read ahead, of tiles whose rows come first."""
_LONG = 2**18
"""Positions from which on two programs share a multiprocessor, if rows come first and there is room."""
_LEAST_SHARED = 32 * 3
"""Tokens, three blocks of 32, for which each must have room in its half of shared memory: else one has all of it."""
_LARGE_BLOCKS_ROWS_FIRST, _LARGE_BLOCKS_ROWS_LAST = 4.0, 0.2
"""Blocks a multiprocessor from which on large ones are taken: of 64 tokens if rows come first, and else of up to 128.
Of those even a short cache has enough: many small parts would take long to merge."""

_FEW_TOKENS, _VERY_FEW_TOKENS = 1024, 256
"""Tokens for a multiprocessor up to which one program has them all, if rows come first; and up to which parts of a row
are a power of 2, so that the merge has none to leave out."""
_FEW_SPLITS = 64
"""Parts of a row up to which the first holds."""
_SHORT_ROWS_LAST, _SHORT_ROWS_FIRST = ((16, 4), (32, 4), (64, 2)), ((16, 2), (32, 2), (64, 2))
"""Tokens of the only block of a part of a short cache, the best first, and for how many programs there must be a
multiprocessor: what bounds the speed there is how long one block and the merge take."""
_SHORT_STAGES = 3
_HELD = 6144
"""Bytes of a block in the registers of a warp at most. A block that they hold is read at once, where rows come last;
where they come first, what Triton 3.6 makes of it reads wrong places (third order)."""


class Sizes:
    """Of all programs alike.

    Args:
        rows_first: how tiles lie, see the kernel.
        rows: heads times queries of a program.
        bytes_per_token: of the cache in shared memory, padding included.
        itemsize: bytes of a number.
        num_rows: programs if nothing were split.
        num_cached: how many positions the cache has room for.
        device: where it all runs.
    """

    def __init__(
        self,
        rows_first: bool,
        rows: int,
        bytes_per_token: int,
        itemsize: int,
        num_rows: int,
        num_cached: int,
        device: torch.device,
    ) -> None:
        half = shared_memory(device) // 2
        preferences: dict[str, Any] = dict(programs=_LARGE_BLOCKS_ROWS_LAST)
        if rows_first:
            shares = num_cached >= _LONG and _LEAST_SHARED * bytes_per_token <= half
            room = half if shares else None
            preferences = dict(choices=_ROWS_FIRST, room=room, programs=_LARGE_BLOCKS_ROWS_FIRST)
        sizes = blocks(rows, bytes_per_token, itemsize, num_rows, num_cached, device, **preferences)
        self.splits = splits_of(sizes, bytes_per_token, num_rows, num_cached, device)
        """Parts of each row."""
        if rows_first:
            self.splits = min(self.splits, _most_splits(num_rows, num_cached, device))
        short, whole = _short_block(rows_first, num_rows, num_cached, device), False
        if short is not None and short * rows <= most_logits(itemsize):
            whole = not rows_first and short * bytes_per_token <= _HELD * sizes["num_warps"]
            if whole or (rows_first and _SHORT_STAGES * short * bytes_per_token <= shared_memory(device)):
                sizes |= {"BLOCK_M": short, "NUM_STAGES": _SHORT_STAGES}
                self.splits = -(-num_cached // short)
        self.block = sizes["BLOCK_M"]
        """Tokens of a block."""
        self.constants = {**sizes, "ROWS_FIRST": rows_first, "ONE_BLOCK": whole}
        """Of the kernel and its start."""


def _short_block(rows_first: bool, num_rows: int, num_cached: int, device: torch.device) -> int | None:
    """Tokens of a block of a short cache, of which each part has one; None if it is too long for that."""
    for block, share in _SHORT_ROWS_FIRST if rows_first else _SHORT_ROWS_LAST:
        if num_rows * -(-num_cached // block) * share <= num_multiprocessors(device):
            return block
    return None


def _most_splits(num_rows: int, num_cached: int, device: torch.device) -> int:
    """Parts of each row at most, where rows come first: programs of few tokens do not share a multiprocessor."""
    programs = num_multiprocessors(device)
    alone = max(1, programs // num_rows)
    if num_rows * num_cached <= _VERY_FEW_TOKENS * programs:
        return 1 << (alone.bit_length() - 1)
    if num_rows * num_cached <= _FEW_TOKENS * programs and alone <= _FEW_SPLITS:
        return alone
    return num_cached
