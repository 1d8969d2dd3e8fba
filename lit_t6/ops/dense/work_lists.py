"""Which rows of tiles each program of a kernel takes, where there are as many programs as multiprocessors."""

import functools
import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

_ROW_TILES, _ROWS_BY_LENGTH = 0.7, 6
"""What beginning a row costs, in tiles; and how many rows of a program are dealt out by length, at the end."""
_BEHIND = 1
"""Rows behind the last one of each program, which are none."""


def deal(lengths: Sequence[float], heads: int, programs: int, lead: int = 0) -> list[list[tuple[int, int]]]:
    """Rows of tiles, as (head, row), that each program takes, one after the other.

    Programs work at the same heads, so that what one reads is in the cache for the next. The last rows are dealt out
    the long ones first, so that all programs end at about the same time.

    Args:
        lengths: of a head's rows, in tiles.
        heads: of all sequences, B·H.
        programs: that share them.
        lead: a head's longest row is dealt with the others of the head that many before it, so that it is done when its
            own others, which may wait for it, begin; 0: right before them.

    A row that waits for its head's longest one cannot wait for ever, if all programs are there at once: in the order in
    which rows are dealt, and so in each program's list, the longest row of a head stands before its others.
    """
    longest, *others = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    order: list[tuple[int, int]] = []
    for turn in range(heads + lead):
        if turn < heads:
            order.append((turn, longest))
        if turn >= lead:
            order += [(turn - lead, row) for row in others]
    last = max(0, len(order) - _ROWS_BY_LENGTH * programs)
    order[last:] = sorted(order[last:], key=lambda which: -lengths[which[1]])
    shares: list[list[tuple[int, int]]] = [[] for _ in range(programs)]
    loads = [(0.0, program) for program in range(programs)]
    for head, row in order:
        load, program = loads[0]
        shares[program].append((head, row))
        heapq.heapreplace(loads, (load + lengths[row] + _ROW_TILES, program))
    return shares


@functools.cache
def dealt(
    device: torch.device, lengths: tuple[float, ...], heads: int, programs: int, lead: int = 0
) -> tuple[Tensor, Tensor]:
    """Where each program's rows begin, (programs,), and the rows of all, (…, 2), as kernels read them: int32.

    They are made once, in milliseconds, and copied to the device, which cannot be part of a CUDA graph, and kept, as
    graphs may hold them.

    Args:
        device: that reads them.
        lengths: as of `deal`, and the next two alike.
        heads: likewise.
        programs: likewise.
        lead: likewise.
    """
    starts: list[int] = []
    every: list[tuple[int, int]] = []
    for share in deal(lengths, heads, programs, lead):
        starts.append(len(every))
        every += [*share, *[(-1, 0)] * _BEHIND]
    whole = torch.int32
    return torch.tensor(starts, dtype=whole, device=device), torch.tensor(every, dtype=whole, device=device)
