"""A step of decoding that was planned once: a kernel that reads a cache in parts, and the merge of the parts.

Letters: B batch, N new queries, M cached positions, H heads, E head size of the values.
"""

import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from triton import next_power_of_2

from lit_t6.ops.alignment import ALIGNMENT
from lit_t6.ops.device import early_start, is_current, num_multiprocessors
from lit_t6.ops.kernels.merge import _merge_kernel
from lit_t6.ops.launch import Launch, is_watched
from lit_t6.ops.splits import MAX_LENGTH, layout

_MOST_PLANS = 1024
_ALONE = 64
"""Parts of a row that one warp merges."""
_LEAST = 8
"""Numbers of a row that it merges at least, if there are multiprocessors for more warps."""
_PLAIN = (Tensor, torch.nn.Parameter)
_NUMBERS = ALIGNMENT // 4
"""Numbers in float32 at multiples of which what parts write begins: Triton compiles a kernel again for other starts."""


class DecodePlan:
    """How calls that are alike are computed. It holds no tensor, and serves every length of a cache.

    Args:
        kernel: reads a part. It takes tensors, `lengths`, places for what it finds of each part (see `cut`), numbers
            that change, and `values`.
        tiles: programs that share a part of a row.
        splits: parts of each row.
        shape: of the result, (B, N, H, E).
        dtype: of the result.
        device: of all.
        block_m: tokens of a block; each part takes as many blocks as any, the last the rest.
        scale: of the result.
        values: see `Launch`.
    """

    def __init__(
        self,
        kernel: Any,
        *,
        tiles: int,
        splits: int,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        block_m: int,
        scale: float,
        values: Mapping[str, Any],
    ) -> None:
        batch, num_queries, num_heads, value_dim = shape
        self._shape, self._dtype, self._device = shape, dtype, device
        self._rows = (batch, splits, num_queries, num_heads)
        num_rows = math.prod(self._rows)
        self._top = -(-num_rows * value_dim // _NUMBERS) * _NUMBERS
        self._total = self._top + -(-num_rows // _NUMBERS) * _NUMBERS
        self._numbers = self._total + num_rows
        self._read = Launch(kernel, (splits, tiles, batch), **values, **early_start(device))
        # All parts of a row at once if they are few, and few numbers of it: most programs wait for memory. A warp alone
        # waits for no other.
        block_s = min(128, max(2, next_power_of_2(splits)))
        alone = block_s <= _ALONE
        block_e = min(max(16, next_power_of_2(value_dim)), max(16, 1024 // block_s) if alone else 32)
        rows = batch * num_queries * num_heads
        while alone and block_e > _LEAST and 3 * rows * -(-value_dim // block_e) < 2 * num_multiprocessors(device):
            block_e //= 2
        self._merge = Launch(
            _merge_kernel,
            (num_queries * num_heads, batch, -(-value_dim // block_e)),
            num_splits=splits,
            scale=scale,
            NUM_ROWS=num_queries * num_heads,
            VALUE_DIM=value_dim,
            BLOCK_M=block_m,
            BLOCK_S=block_s,
            BLOCK_E=block_e,
            ONCE=splits <= block_s,
            num_warps=1 if alone else 4,
            **early_start(device),
        )

    def __call__(self, tensors: Sequence[Tensor], lengths: Tensor, *numbers: int) -> Tensor:
        """The result, (B, N, H, E).

        Args:
            tensors: what the kernel takes first.
            lengths: (B,) int64: valid entries of each row.
            numbers: that change from call to call, such as M.
        """
        found = torch.empty(self._numbers, dtype=torch.float32, device=self._device)
        result = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        if self._merge.compiled:
            out, rows = found.data_ptr(), lengths.data_ptr()
            top, total = out + 4 * self._top, out + 4 * self._total
            self._read.again(*[x.data_ptr() for x in tensors], rows, out, top, total, *numbers)
            self._merge.again(out, top, total, rows, result.data_ptr())
        else:
            places = self.cut(found)
            self._read.first(*tensors, lengths, *places, *numbers)
            self._merge.first(*places, lengths, result)
        return result

    def cut(self, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is found of each part, all float32, in the memory for it.

        Returns:
            (B, splits, N, H, E): sums, weighted by powers of 2 of the logits less the largest. (B, splits, N, H): the
            largest logit. Likewise: the sum of weights; the logarithm of the sum of exponentials would be both in one
            number, and loses digits where the logits are large.
        """
        out = found[: math.prod(self._rows) * self._shape[-1]].view(*self._rows, self._shape[-1])
        top, total = (found[at : at + math.prod(self._rows)].view(self._rows) for at in (self._top, self._total))
        return out, top, total


class Plans:
    """Plans by what they depend on, the newest of them."""

    def __init__(self) -> None:
        self._plans: dict[Hashable, DecodePlan] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable | None) -> DecodePlan | None:
        """The plan of calls like one before; None if there is none."""
        return None if key is None else self._plans.get(key)

    def of_known(
        self,
        numbers: tuple[float | None, ...],
        whole: Sequence[Tensor | None],
        cached: Sequence[Tensor | None],
        tables: tuple[Tensor, Tensor] | None = None,
    ) -> DecodePlan | None:
        """The plan of a call like one before, whose arguments are not looked at any further, see `key_of` for them.

        None if there was no such call, or if a call is more than its result now, see `is_watched`.
        """
        first = cached[0]
        assert first is not None
        if is_watched() or first.shape[1] > MAX_LENGTH or not is_current(first.device):
            return None
        return self.get(key_of(numbers, whole, cached, tables))

    def made(self, key: Hashable | None, make: Callable[[], DecodePlan]) -> DecodePlan:
        """The plan of calls like one before, or a new one, which is kept; the oldest is forgotten if there are many."""
        plan = self.get(key)
        if plan is not None:
            return plan
        plan = make()
        if key is not None:
            with self._lock:
                if len(self._plans) >= _MOST_PLANS:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[key] = plan
        return plan

    def clear(self) -> None:
        """Forget all."""
        self._plans.clear()


def key_of(
    numbers: tuple[float | None, ...],
    whole: Sequence[Tensor | None],
    cached: Sequence[Tensor | None],
    tables: tuple[Tensor, Tensor] | None = None,
) -> Hashable | None:
    """What a plan depends on, and with it whether arguments are right: a call of the same key needs no check.

    Args:
        numbers: that are part of it.
        whole: tensors of which all sizes are.
        cached: what a cache holds, (B, M, R, ·), the first always there. M counts only where that has no room for it.
        tables: (at least M, ·).

    Returns:
        None where M is not the same in all of `cached` or more than `tables` have, and for tensors that only operators
        may take: of other classes than PyTorch's own, negated by a bit, on other devices than the first of `cached`,
        or such as want a gradient.
    """
    first = cached[0]
    assert first is not None
    num_keys, device, grad = first.shape[1], first.get_device(), torch.is_grad_enabled()

    def only_operators_take(x: Tensor) -> bool:
        return type(x) not in _PLAIN or (grad and x.requires_grad) or x.get_device() != device or x.is_neg()

    kinds: list[Any] = [numbers, device]
    for x in whole:
        if x is None:
            kinds.append(None)
        elif only_operators_take(x):
            return None
        else:
            kinds += (x.shape, x.stride(), x.dtype, x.data_ptr() % ALIGNMENT)
    room = 0
    for x in cached:
        if x is None:
            kinds.append(None)
            continue
        if only_operators_take(x) or x.dim() != 4:
            return None
        batch, length, rank, size = x.shape
        if length != num_keys:
            return None
        strides = x.stride()
        if strides[1]:
            room = max(room, strides[0] // strides[1])
        kinds += (batch, rank, size, strides, x.dtype, x.data_ptr() % ALIGNMENT)
        if size * x.itemsize % ALIGNMENT:  # whether more than a row may be read depends on what is behind the last one
            kinds.append(layout(x))
    kinds.append(num_keys if num_keys > room else None)
    for x in () if tables is None else tables:
        if only_operators_take(x) or len(x) < num_keys:
            return None
        kinds += (x.shape[1:], x.stride(), x.dtype, x.data_ptr() % ALIGNMENT)
    return tuple(kinds)
