"""The least time that a decode step of few tokens could take: kernels that only read as many bytes as the cache has.

python -m experiments.decode_speed.least --num_heads 16 32 48 --batch 1 16 --cache 4096
"""

import sys
from functools import partial
from itertools import product

import torch
import triton
from torch import Tensor

from experiments.options import add_device, parser_for, positive
from lit_t6.bench.facts import check_device
from lit_t6.bench.grid import Point
from lit_t6.bench.kernels.read import _sum_blocks_kernel
from lit_t6.bench.mechanisms import MECHANISMS
from lit_t6.bench.timing import num_sets, time_calls
from lit_t6.ops.device import early_start, no_gpu

BLOCKS = (2048, 4096, 8192)
"""Numbers that a program reads; the fastest counts."""
MAX_BYTES = 2**28
"""The second kernel has one program."""


def sums(x: Tensor, block: int) -> Tensor:
    """Read x once: the sum of each of its blocks, by a program each.

    Args:
        x: (N,) float32.
        block: numbers of a block, a power of 2.

    Returns:
        (N / block, rounded up,).
    """
    programs = triton.cdiv(x.numel(), block)
    out = torch.empty(programs, device=x.device)
    _sum_blocks_kernel[(programs,)](x, out, x.numel(), BLOCK=block, num_warps=8, **early_start(x.device))
    return out


def total(x: Tensor, block: int) -> Tensor:
    """Read x once, and add up its blocks by a second kernel, as what is found of the parts of a cache is merged.

    Args:
        x: (N,) float32.
        block: as of `sums`.
    """
    parts = sums(x, block)
    return sums(parts, triton.next_power_of_2(parts.numel()))


def least_ms(nbytes: int, device: str) -> tuple[float, float]:
    """Milliseconds of reading so many bytes, by one kernel and by two, from memory and not from a processor's cache.

    Args:
        nbytes: to read.
        device: where.

    Raises:
        ValueError: more than `MAX_BYTES` or none, or a kernel does not give the sum.
    """
    if not 4 <= nbytes <= MAX_BYTES:
        raise ValueError(f"a cache of {nbytes:,} bytes: expected 4 to {MAX_BYTES:,}, for which two kernels are enough.")
    # Zeros and ones, whose sums are exact, and are not read any faster.
    drawn = [torch.randint(2, (nbytes // 4,), device=device).float() for _ in range(num_sets(nbytes, device))]
    for block in BLOCKS:
        if total(drawn[0], block).item() != drawn[0].sum(dtype=torch.float64).item():
            raise ValueError(f"reading {nbytes} bytes in blocks of {block}: another sum than PyTorch's.")
    one, two = (
        min(time_calls([partial(way, x, block) for x in drawn], device).ms for block in BLOCKS) for way in (sums, total)
    )
    return one, two


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status.
    """
    parser = parser_for("experiments.decode_speed.least", __doc__)
    parser.add_argument("--num_heads", type=positive, nargs="+", default=[16, 32, 48], help="heads of 64")
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 16], help="sequences")
    parser.add_argument("--cache", type=positive, nargs="+", default=[4096], help="tokens of each sequence")
    add_device(parser)
    options = parser.parse_args(arguments)
    check_device(options.device)
    if problem := no_gpu(torch.device(options.device)):
        print(f"error: {problem}.", file=sys.stderr)
        return 1
    print("| heads | batch, cache | MB | one kernel, µs | two, µs |\n|---:|---:|---:|---:|---:|")
    for heads, batch, cache in product(options.num_heads, options.batch, options.cache):
        point = Point(heads, 64, batch, cache, (16, 1, 1), 4, "bfloat16", options.device)
        nbytes = MECHANISMS["TPA"].cache_bytes(point)
        try:
            one, two = (1000 * ms for ms in least_ms(nbytes, options.device))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"| {heads} | {batch}, {cache:,} | {nbytes / 1e6:.2f} | {one:.2f} | {two:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
