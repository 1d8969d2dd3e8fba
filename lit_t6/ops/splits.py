"""What kernels that read a cache in parts share: how many parts of which size, and how rows lie in memory.

Letters: B batch, N new queries, M cached positions, R rank.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lit_t6.ops.alignment import ALIGNMENT
from lit_t6.ops.device import no_gpu, num_multiprocessors, shared_memory

MAX_QUERIES = 16
"""New tokens that such kernels are for: more read a cache as fast by matrix products."""
MAX_LENGTH = 2**20
"""Tokens of a cache."""
BLOCKS_AND_STAGES: Sequence[tuple[int, int]] = ((128, 3), (64, 3), (32, 3), (16, 3), (16, 2), (16, 1))
"""Tokens of a block, and blocks that are read ahead: the best first."""
_BEGINNING = 2
"""Blocks that a program could read while it begins and ends."""
_AT_ONCE = 3
"""Programs for which a multiprocessor has registers."""


def refusal(limits: Mapping[str, tuple[int, int]], *cached: Tensor) -> str | None:
    """Why a kernel cannot read a cache, or None if it can.

    Args:
        limits: sizes by what they are called, each with the largest that the kernel takes.
        cached: what the cache holds.
    """
    for name, (value, limit) in limits.items():
        if value > limit:
            return f"{name}: {value}, {limit} at most"
    kinds = {x.dtype for x in cached}
    if len(kinds) > 1 or not kinds <= {torch.float32, torch.float16, torch.bfloat16}:
        return f"a cache of {', '.join(sorted(map(str, kinds)))}, expected one of float32, float16, bfloat16"
    problem = no_gpu(cached[0].device)
    if problem is None and torch.bfloat16 in kinds and cached[0].device.type == "cpu":
        return "bfloat16 on a CPU, of which Triton's interpreter makes other numbers, expected float32 or float16"
    return problem


def layout(x: Tensor | None) -> tuple[int, int, int, int]:
    """How what is cached, (B, M, R, ·), lies in memory: strides of M and R, and two figures to read 16 bytes at once.

    They are the greatest number of entries, up to 16 bytes, of which all strides are multiples; and how many entries
    of a row may be read: in padded rows, the padding too.
    """
    if x is None:
        return 0, 0, 1, 0
    stride_b, stride_m, stride_r = x.stride()[:3]
    vec = math.gcd(ALIGNMENT // x.itemsize, stride_b, stride_m, stride_r, x.data_ptr() % ALIGNMENT // x.itemsize)
    size = x.shape[-1]
    padded = -(-size // vec) * vec
    last = x.storage_offset() + sum((n - 1) * s for n, s in zip(x.shape[:3], x.stride(), strict=False))
    fits = last + padded <= x.untyped_storage().nbytes() // x.itemsize
    return stride_m, stride_r, vec, padded if fits else size


def positions(*cached: Tensor | None) -> int:
    """Of what is cached, (B, M, R, ·): how many a row of the batch has room for, M at least.

    A plan made for it holds while the cache fills, of which M tells the filled part: nothing is compiled again.
    """
    there = [x for x in cached if x is not None]
    return max([x.shape[1] for x in there] + [x.stride(0) // x.stride(1) for x in there if x.stride(1)])


@functools.cache
def num_splits(num_rows: int, at_once: int, most: int) -> int:
    """Into how many parts to split the cache of each row, so that the whole GPU is busy to the end.

    Programs run in waves, each of which takes as long to begin and to end as for some blocks. More waves even out what
    the last leaves over, and hinder each other.

    Args:
        num_rows: programs if nothing were split.
        at_once: programs that the GPU runs at once.
        most: blocks of the cache.
    """

    def cost(splits: int) -> float:
        waves = -(-num_rows * splits // at_once)
        return waves * (-(-most // splits) + _BEGINNING) * (1 + 0.03 * waves)

    # Of equals the most: one program for each place, some without any block, is faster than a few less.
    return min(range(min(most, max(1, 4 * at_once // num_rows)), 0, -1), key=cost)


def most_logits(itemsize: int) -> int:
    """Tokens of a block times rows of a program at most: exact products of float32 take many registers."""
    return 8192 if itemsize == 2 else 1024


def blocks(
    rows: int,
    bytes_per_token: int,
    itemsize: int,
    num_rows: int,
    num_cached: int,
    device: torch.device,
    choices: Sequence[tuple[int, int]] = BLOCKS_AND_STAGES,
    room: int | None = None,
    programs: float = 0.75,
) -> dict[str, int]:
    """Tokens of a block, blocks that are read ahead, and warps.

    As many of each as shared memory holds: what bounds the speed is how many bytes are on their way. Of a short cache,
    what bounds it is how long a program takes for its only block: smaller ones for more programs.

    Args:
        rows: heads times queries of a program.
        bytes_per_token: of the cache in shared memory, padding included.
        itemsize: bytes of a number.
        num_rows: programs if nothing were split.
        num_cached: how many positions the cache has room for, see `positions`.
        device: where it all runs.
        choices: tokens and blocks, the best first.
        room: bytes of shared memory for the blocks; all of it if not given.
        programs: so many a multiprocessor, each with one block, must there be for blocks of more than 32.
    """
    room = shared_memory(device) if room is None else room
    for block, stages in choices:
        busy = num_rows * -(-num_cached // block) >= programs * num_multiprocessors(device)
        if stages * block * bytes_per_token <= room and block * rows <= most_logits(itemsize) and (busy or block <= 32):
            break
    return {"BLOCK_M": block, "NUM_STAGES": stages, "num_warps": 8 if rows > 64 else 4}


def splits_of(
    plan: Mapping[str, int], bytes_per_token: int, num_rows: int, num_cached: int, device: torch.device
) -> int:
    """As many parts as keep the GPU busy; none depends on how many of the cached positions are valid.

    Args:
        plan: from `blocks`.
        bytes_per_token: as there.
        num_rows: programs if nothing were split.
        num_cached: as there.
        device: where it all runs.
    """
    block_m = plan["BLOCK_M"]
    at_once = max(1, min(_AT_ONCE, shared_memory(device) // (plan["NUM_STAGES"] * block_m * bytes_per_token)))
    return num_splits(num_rows, at_once * num_multiprocessors(device), -(-num_cached // block_m))
