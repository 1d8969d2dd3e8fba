"""What tests of kernels share: random shapes at some sizes, caches that must not be read too far, poisoned memory."""

import multiprocessing
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

NAN = float("nan")
INTERPRETED = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the kernels are compiled")
QUIET = [  # the interpreter computes with NumPy, which warns of what kernels leave out by masks
    pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]


def poison(kept: Tensor, lengths: Sequence[int]) -> None:
    """Fill what is behind the end of each row (B, M, …) with NaN."""
    for row, valid in enumerate(lengths):
        kept[row, valid:] = NAN


def poison_new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `torch.empty` gives with NaN, whole numbers with another one: all of it has to be written."""
    empty = torch.empty

    def poisoned(*size: Any, **how: Any) -> Tensor:
        new = empty(*size, **how)
        return new.fill_(NAN if new.is_floating_point() else 7)

    monkeypatch.setattr(torch, "empty", poisoned)


def check_seed(
    seed: int,
    dtypes: list[torch.dtype],
    device: str,
    draw_shape: Callable[..., Any],
    check_decoding: Callable[..., None],
    sizes: int = 3,
) -> str | None:
    """Check some sizes of one shape; what went wrong, if anything did."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    small = device == "cpu"
    shape = draw_shape(chance, dtypes, small=small)
    for _ in range(sizes):
        batch = chance.choice([1, 2, 3] if small else [1, 2, 3, 5, 17])
        length = max(chance.choice([1, 17, 130] if small else [1, 64, 127, 1000, 4097]), shape.num_queries)
        try:
            lengths = [length, *(chance.randint(0, length) for _ in range(batch - 1))]
            check_decoding(shape, batch, length, lengths, device)
        except Exception as error:  # of any kind: it is told to the process that asked
            return f"seed {seed}, {shape}: {type(error).__name__}: {error}"
    return None


def check_seeds_on_a_gpu(count: int, **functions: Any) -> None:
    """Check that many shapes, in processes of their own, as most of the time kernels are compiled."""
    dtypes = [torch.bfloat16, torch.bfloat16, torch.float16, torch.float32]
    check = partial(check_seed, dtypes=dtypes, device="cuda", **functions)
    with multiprocessing.get_context("spawn").Pool(12) as pool:
        problems = [problem for problem in pool.map(check, range(count), chunksize=1) if problem]
    assert not problems, "\n".join(problems)
