"""Starting a Triton kernel again, without looking at its arguments again."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Launch:
    """A Triton kernel with its grid and every argument that stays the same.

    Triton looks at all arguments at each start, which takes Python longer than a decode step takes a GPU. Here it does
    so at the first one; later ones hand over addresses and numbers, and nothing else.

    Args:
        kernel: its first arguments change from start to start: tensors, and numbers that it is not specialized on.
        grid: programs along three axes.
        values: the arguments behind them, and options of the start such as num_warps.
    """

    def __init__(self, kernel: Any, grid: tuple[int, int, int], **values: Any) -> None:
        self._kernel, self._grid, self._values = kernel, grid, values
        self._rest: Sequence[Any] = ()
        self._run: Callable[..., None] | None = None

    @property
    def compiled(self) -> bool:
        """Whether `again` will do."""
        return self._run is not None

    def first(self, *changing: Tensor | int) -> None:
        """Start the kernel through Triton, which compiles it if it must. An interpreted one is always started so."""
        found = self._kernel[self._grid](*changing, **self._values)
        if found is not None:
            self._rest = [self._values[name] for name in self._kernel.arg_names[len(changing) :]]
            self._run = found[self._grid]

    def again(self, *changing: int) -> None:
        """Start the compiled kernel on the current stream of the current device, which is that of the first start.

        Args:
            changing: addresses in the place of tensors, of the same types, and multiples of 16 bytes where those were;
                and numbers of as many bits.
        """
        assert self._run is not None
        self._run(*changing, *self._rest)


def is_watched() -> bool:
    """Whether operators are recorded or transformed now, so that a call of one is more than its result."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._ops._len_torch_dispatch_stack_pre_dispatch()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    )
