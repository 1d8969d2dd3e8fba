"""How fast memory can be read: what decoding is held against."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor

from lit_t6.bench.grid import free_memory
from lit_t6.bench.timing import Call, time_calls
from lit_t6.ops.implementation import HAS_TRITON

GPU_BYTES, CPU_BYTES = 4 * 2**30, 2**26
_BLOCKS = ((2048, 4, 4), (4096, 8, 4), (4096, 8, 1), (8192, 8, 3), (8192, 16, 1))
"""Numbers of a block of the read kernel, its warps, and blocks that are read ahead."""
_A_MULTIPROCESSOR = (1, 2, 4, 8)
"""Programs of the read kernel."""


def measure_read_rates(device: str, nbytes: int | None = None) -> dict[str, float]:
    """GB/s at which kernels that do nothing else read memory: sums of PyTorch and, on a GPU, kernels of ours.

    Args:
        device: whose memory.
        nbytes: how much is read at a time; if not given, several GB on a GPU and 64 MB elsewhere.

    Returns:
        A rate for each kernel, by its name.
    """
    if nbytes is None:
        wanted = GPU_BYTES if torch.device(device).type == "cuda" else CPU_BYTES
        nbytes = min(wanted, free_memory(device) // 2)
    x = torch.randn(max(1, nbytes // (4 * 65536)) * 65536, device=device)
    return {name: x.nbytes / time_calls([call], device).ms / 1e6 for name, call in _readers(x)}


def _readers(x: Tensor) -> Iterator[tuple[str, Call]]:
    yield "torch.sum", x.sum
    yield "torch.sum of rows", lambda: x.view(-1, 65536).sum(dim=1)
    yield "torch.amax of rows", lambda: x.view(-1, 65536).amax(dim=1)
    if x.is_cuda and HAS_TRITON:
        multiprocessors = torch.cuda.get_device_properties(x.device).multi_processor_count
        for plan, count in product(_BLOCKS, _A_MULTIPROCESSOR):
            name = "a Triton kernel that sums blocks of {} with {} warps in {} stages".format(*plan)
            yield f"{name}, {count} programs a multiprocessor", partial(triton_sums, x, *plan, count * multiprocessors)


def triton_sums(x: Tensor, block: int, warps: int, stages: int, programs: int) -> Tensor:
    """Sums of parts of `x`, read by a kernel of ours.

    Args:
        x: float32, a multiple of `block` and fewer than 2³¹ numbers.
        block: numbers that a program reads at once, a power of 2.
        warps: of a program.
        stages: blocks that are read ahead.
        programs: how many, each of which gives a sum.

    Returns:
        (programs,).
    """
    from lit_t6.bench.kernels.read import _read_kernel  # needs Triton

    out = torch.empty(programs, device=x.device)
    _read_kernel[(programs,)](x, out, x.numel() // block, BLOCK=block, NUM_STAGES=stages, num_warps=warps)
    return out
