"""What kernels that read a cache in parts share: how many parts, how rows lie in memory, and the merge of the parts.

Letters: B batch, N new queries, M cached positions, H heads, E head size of the values, R rank.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from triton import next_power_of_2

from lit_t6.ops.alignment import ALIGNMENT
from lit_t6.ops.device import early_start, no_gpu, num_multiprocessors, shared_memory
from lit_t6.ops.kernels.merge import _merge_kernel

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
    return no_gpu(cached[0].device)


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


def blocks(
    rows: int,
    bytes_per_token: int,
    itemsize: int,
    num_rows: int,
    num_cached: int,
    device: torch.device,
    choices: Sequence[tuple[int, int]] = BLOCKS_AND_STAGES,
    room: int | None = None,
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
    """
    most_registers = 8192 if itemsize == 2 else 1024  # exact products of float32 take many
    room = shared_memory(device) if room is None else room
    for block, stages in choices:
        busy = num_rows * -(-num_cached // block) >= 0.75 * num_multiprocessors(device)
        if stages * block * bytes_per_token <= room and block * rows <= most_registers and (busy or block <= 32):
            break
    return {"BLOCK_M": block, "NUM_STAGES": stages, "num_warps": 8 if rows > 64 else 4}


class Parts:
    """What a kernel writes for each part of the cache, and its merge.

    Args:
        splits: how many parts.
        shape: of the result, (B, N, H, E).
        device: of both.
    """

    def __init__(self, splits: int, shape: tuple[int, int, int, int], device: torch.device) -> None:
        batch, num_queries, num_heads, value_dim = shape
        self.splits, self.shape = splits, shape
        self.out = torch.empty(batch, splits, num_queries, num_heads, value_dim, dtype=torch.float32, device=device)
        """(B, splits, N, H, E): the sums of each part, weighted by powers of 2 of the logits less the largest."""
        # Each on its own: Triton compiles a kernel again for a start that is no multiple of 16 bytes.
        self.top, self.total = (torch.empty_like(self.out[..., 0]) for _ in range(2))
        """(B, splits, N, H): the largest logit of each part, and the sum of its weights.

        The logarithm of the sum of exponentials is both in one number, and loses digits where the logits are large.
        """

    @classmethod
    def planned(
        cls,
        plan: Mapping[str, int],
        bytes_per_token: int,
        num_rows: int,
        num_cached: int,
        shape: tuple[int, int, int, int],
        device: torch.device,
    ) -> "Parts":
        """As many parts as keep the GPU busy; none depends on how many of the cached positions are valid.

        Args:
            plan: from `blocks`.
            bytes_per_token: as there.
            num_rows: programs if nothing were split.
            num_cached: as there.
            shape: of the result, (B, N, H, E).
            device: where it all runs.
        """
        block_m = plan["BLOCK_M"]
        at_once = max(1, min(_AT_ONCE, shared_memory(device) // (plan["NUM_STAGES"] * block_m * bytes_per_token)))
        most = -(-num_cached // block_m)
        return cls(num_splits(num_rows, at_once * num_multiprocessors(device), most), shape, device)

    def merge(self, lengths: Tensor, block_m: int, scale: float, dtype: torch.dtype) -> Tensor:
        """The result, (B, N, H, E): the mean over all parts.

        Args:
            lengths: (B,) int64 of the cache.
            block_m: tokens of a block; each part took as many blocks as any, the last the rest.
            scale: of the result.
            dtype: of the result.
        """
        batch, num_queries, num_heads, value_dim = self.shape
        result = torch.empty(self.shape, dtype=dtype, device=self.out.device)
        # All parts of a row at once if they are no more than 128, and few numbers of it: most programs wait for memory.
        block_s = min(128, max(2, next_power_of_2(self.splits)))
        block_e = min(max(16, next_power_of_2(value_dim)), max(32, 2048 // block_s))
        _merge_kernel[(num_queries * num_heads, batch, -(-value_dim // block_e))](
            self.out,
            self.top,
            self.total,
            lengths,
            result,
            self.splits,
            scale,
            NUM_ROWS=num_queries * num_heads,
            VALUE_DIM=value_dim,
            BLOCK_M=block_m,
            BLOCK_S=block_s,
            BLOCK_E=block_e,
            num_warps=4 if block_s * block_e > 2048 else 2,
            **early_start(self.out.device),
        )
        return result
