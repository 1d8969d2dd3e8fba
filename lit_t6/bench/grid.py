"""What is measured: the points of the grid, in an order that may be broken off, and whether they fit in memory.

Letters: B batch, M cached tokens, H query heads, G key/value heads, D head size, R ranks.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Point:
    """One shape of a decode step: each of B sequences attends with one new token to M cached ones.

    Args:
        num_heads: H.
        head_dim: D, of keys and of values.
        batch: B.
        cache: M, tokens of every sequence, the new one included.
        ranks: Rq, Rk, Rv of tensor product attention.
        kv_groups: G of grouped-query attention.
        dtype: a key of `DTYPES`.
        device: where it runs.
    """

    num_heads: int
    head_dim: int
    batch: int
    cache: int
    ranks: tuple[int, int, int]
    kv_groups: int
    dtype: str
    device: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of cache, queries and result."""
        return DTYPES[self.dtype]

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.torch_dtype.itemsize

    @property
    def kind(self) -> dict[str, Any]:
        """Type and device of the tensors, as arguments of what makes them."""
        return {"dtype": self.torch_dtype, "device": self.device}

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return torch.device(self.device).type == "cuda"

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, B and M: what tells points of one run apart."""
        return self.num_heads, self.batch, self.cache

    def __str__(self) -> str:
        return f"H {self.num_heads}, batch {self.batch}, cache {self.cache:,}"


def order(heads: Sequence[int], batches: Sequence[int], caches: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(H, B, M) of all points, such that the first ones span the grid and the later ones fill it.

    Args:
        heads: values of H.
        batches: values of B.
        caches: values of M.
    """
    of_batch, of_cache = _turns(batches), _turns(caches)
    turns = sorted({b + c for b in of_batch.values() for c in of_cache.values()})
    for turn in turns:
        for num_heads in dict.fromkeys(heads):
            for batch in of_batch:
                for cache in of_cache:
                    if of_batch[batch] + of_cache[cache] == turn:
                        yield num_heads, batch, cache


def _turns(values: Sequence[int]) -> dict[int, int]:
    """0 for the smallest and the largest value, 1 for the middle one, 2 for the middles of the halves, and so on."""
    known = sorted(set(values))
    turns = {known[0]: 0, known[-1]: 0}
    gaps, turn = [(0, len(known) - 1)], 1
    while gaps:
        halves = []
        for low, high in gaps:
            if high - low > 1:
                middle = (low + high + 1) // 2
                turns[known[middle]] = turn
                halves += [(low, middle), (middle, high)]
        gaps, turn = halves, turn + 1
    return turns


def free_memory(device: str) -> int:
    """Bytes that are free for tensors on the device now."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def no_room(needed: int, room: int) -> str | None:
    """Why something is left out: it needs more memory than there is; None if it fits.

    Args:
        needed: bytes.
        room: bytes.
    """
    if needed <= room:
        return None
    return f"takes about {needed / 2**30:,.1f} GiB, there is room for {room / 2**30:,.1f}"
