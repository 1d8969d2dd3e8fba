"""Where numbers stand in the tiles of a `QueryGradient` (`lit_t6/ops/dense/hopper.py`), for kernels that read them.

A tile is one head's 64 positions by 64 features. Of a row, each TOGETHER features lie together, as 0, 1, 8, 9, 2, 3, …
"""

import triton
import triton.language as tl


@triton.jit
def _row_in_tile(row, TILE: tl.constexpr = 4096):
    """The place of a row's first feature."""
    return row // 16 * (TILE // 4) + row % 16 // 8 * 512 + row % 8 * 16


@triton.jit
def _column_in_tile(n, TOGETHER: tl.constexpr = 16):
    """How far from there the n-th of its numbers is, as they lie."""
    return n // TOGETHER * (8 * TOGETHER) + n % TOGETHER


@triton.jit
def _feature_of(n, TOGETHER: tl.constexpr = 16):
    """Which feature that is."""
    return n // TOGETHER * TOGETHER + n % 4 // 2 * 8 + n % TOGETHER // 4 * 2 + n % 2


@triton.jit
def _to_tile_order(rows, SIZE: tl.constexpr, COLUMNS: tl.constexpr):
    """(SIZE, COLUMNS), a row of a feature: from the usual order to that in which features lie."""
    apart = tl.reshape(rows, (SIZE // 16, 2, 4, 2, COLUMNS))
    return tl.reshape(tl.permute(apart, (0, 2, 1, 3, 4)), (SIZE, COLUMNS))


@triton.jit
def _from_tile_order(rows, SIZE: tl.constexpr, COLUMNS: tl.constexpr):
    """(SIZE, COLUMNS), a row of a feature: from the order in which features lie to the usual one."""
    apart = tl.reshape(rows, (SIZE // 16, 4, 2, 2, COLUMNS))
    return tl.reshape(tl.permute(apart, (0, 2, 1, 3, 4)), (SIZE, COLUMNS))
