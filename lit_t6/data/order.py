"""Which window is trained on when: a pure function of the seed and the global index of the sample.

Sample k of a run, counted over all steps, ranks and loader workers, is window π_e(k mod n), where n is the number of
windows, e = ⌊k / n⌋ the epoch and π_e a permutation drawn from (seed, e). So the order does not know how many ranks or
workers share the work, and where a run stands is one number.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

_MASK = 0xFFFFFFFFFFFFFFFF


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the input moves every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """A permutation of 0 … size-1, without a table: a Feistel network on the next power of four, walked until inside.

    Args:
        index: integers in [0, size).
        size: number of elements, at least 1.
        key: which permutation; any integer of 64 bits.

    Returns:
        Where each index goes, int64.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    half_mask = np.uint64((1 << half_bits) - 1)
    round_keys = _mix(np.uint64(key & _MASK) + np.arange(1, 7, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    out = index.astype(np.uint64)
    outside = np.ones(out.shape, dtype=bool)
    while outside.any():
        left, right = out[outside] >> np.uint64(half_bits), out[outside] & half_mask
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right + round_key) & half_mask)
        out[outside] = (left << np.uint64(half_bits)) | right
        outside = out >= size
    return out.astype(np.int64)


def window_of_sample(sample: np.ndarray, num_windows: int, seed: int) -> np.ndarray:
    """The window that each global sample index stands for.

    Args:
        sample: global sample indices, from 0 on, any shape (n,).
        num_windows: windows of the training split.
        seed: of the order.

    Returns:
        Window indices, (n,) int64. Each stretch of `num_windows` samples holds every window once.
    """
    windows = np.empty(sample.shape, dtype=np.int64)
    epochs = sample // num_windows
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        key = int(_mix(np.array([(seed * 0x9E3779B97F4A7C15 + int(epoch)) & _MASK], dtype=np.uint64))[0])
        windows[chosen] = permute(sample[chosen] % num_windows, num_windows, key)
    return windows


class GlobalOrderSampler(DistributedSampler[list[int]]):
    """Yields this rank's batches of global sample indices, going on from where the run stands.

    Batch j of all ranks together covers samples s + j·W·b … s + (j+1)·W·b - 1, W ranks of b samples.
    It is a DistributedSampler so that Lightning leaves it alone.

    Args:
        dataset: its length is the number of windows.
        batch_size: b, samples a rank and batch.
        rank: of this process.
        num_replicas: W.
        samples_seen: asked at the start of every epoch for s, the samples that the run has consumed.
        accumulate: batches that make up an optimizer step; an epoch holds whole steps only, since Lightning would step
            at its end with what has come together so far.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        rank: int = 0,
        num_replicas: int = 1,
        samples_seen: Callable[[], int] = lambda: 0,
        accumulate: int = 1,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank)
        self.batch_size, self.samples_seen, self.accumulate = batch_size, samples_seen, accumulate
        self.num_windows = len(dataset)  # type: ignore[arg-type]  # ours have a length

    @property
    def samples_per_batch(self) -> int:
        """Samples that all ranks together take in one batch: W·b."""
        return self.num_replicas * self.batch_size

    def __len__(self) -> int:
        """Batches an epoch: those of as many whole steps as the windows fill, at least one."""
        return max(1, self.num_windows // (self.samples_per_batch * self.accumulate)) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        first = self.samples_seen() + self.rank * self.batch_size
        for batch in range(len(self)):
            at = first + batch * self.samples_per_batch
            yield list(range(at, at + self.batch_size))


class InOrderSampler(DistributedSampler[list[int]]):
    """Yields this rank's batches of window indices, in order; all ranks get as many batches.

    Rank r takes windows r, r + W, r + 2W …; ranks that run out get -1, a window that counts for nothing.

    Args:
        dataset: its length is the number of windows.
        batch_size: windows a rank and batch.
        rank: of this process.
        num_replicas: W.
        limit: read this many windows at most, from the first on.
    """

    def __init__(
        self, dataset: Dataset[Any], batch_size: int, rank: int = 0, num_replicas: int = 1, limit: int | None = None
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank)
        present = len(dataset)  # type: ignore[arg-type]  # ours have a length
        self.num_windows = present if limit is None else min(present, limit)
        self.batch_size = batch_size

    @property
    def windows_per_rank(self) -> int:
        """Windows of a rank, the empty ones counted."""
        return -(-self.num_windows // self.num_replicas)

    def __len__(self) -> int:
        return -(-self.windows_per_rank // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        mine = range(self.rank, self.windows_per_rank * self.num_replicas, self.num_replicas)
        for at in range(0, len(mine), self.batch_size):
            yield [window if window < self.num_windows else -1 for window in mine[at : at + self.batch_size]]
