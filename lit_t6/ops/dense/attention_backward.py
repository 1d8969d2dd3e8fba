"""The way back of causal attention by a kernel of ours, on Hopper GPUs: what it is started with.

Letters: B batch, T positions, H heads, D head size.
"""

import functools
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_t6.ops.alignment import ALIGNMENT
from lit_t6.ops.device import num_multiprocessors

SIZE = 64
"""Of heads."""
QUERIES, KEYS = 64, 128
"""Positions of a tile: a row of tiles is one head's KEYS with all queries that see them."""
_WARPS = 8  # the order of a tile's numbers is theirs
_MAX_INT = 2**31
_ROW_TILES, _ROWS_BY_LENGTH = 0.7, 6
"""What beginning a row costs, in tiles; and how many rows of a program are dealt out by length, at the end."""
_BEHIND = 4
"""Rows behind the last one of each program, which are none: it looks ahead."""
_TOKENS, _HEADS, _SUM_WARPS = 16, 4, 2
"""Of a program that sums up beforehand."""


@dataclass(frozen=True)
class QueryGradient:
    """Gradient of queries as the kernel sums it up.

    Args:
        tiles: (B, H, tiles, 64 · D) float32. A tile is one head's 64 positions, the last ones filled up, in an order
            that is the kernel's: row r and column c stand at (r // 16)·1024 + (r % 16 // 8)·512 + (c // 16)·128
            + (r % 8)·16 + (c % 8 // 2)·4 + (c % 16 // 8)·2 + c % 2.
        shape: (B, T, H, D).
        scale: of the logits, by which the numbers are still to be multiplied.
    """

    tiles: Tensor
    shape: tuple[int, int, int, int]
    scale: float

    def rows(self, dtype: torch.dtype) -> Tensor:
        """The gradient itself, (B, T, H, D)."""
        from lit_t6.ops.dense.kernels.attention_sums import _dense_attention_rows_kernel  # needs Triton

        batch, length, heads, size = self.shape
        there, kept = -(-length // QUERIES), self.tiles.shape[2]
        found = torch.empty(self.shape, dtype=dtype, device=self.tiles.device)
        _dense_attention_rows_kernel[(batch * heads * there,)](
            self.tiles, found, length, heads, self.scale, there, kept, D=size, ROWS=QUERIES
        )
        return found


def why_not(dtype: torch.dtype, device: torch.device, shape: Sequence[int] | None = None) -> str | None:
    """Why `attention_backward` cannot take such tensors, or None if it can.

    Args:
        dtype: of queries, keys and values.
        device: of theirs.
        shape: of theirs, (B, T, H, D), if that is known.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return f"tensors on {device}, expected an NVIDIA GPU"
    if (generation := torch.cuda.get_device_capability(device)) != (9, 0):
        return f"a GPU of compute capability {generation}, expected (9, 0), Hopper"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"heads of {dtype}, expected float16 or bfloat16"
    if shape is not None:
        batch, length, heads, size = shape
        if size != SIZE:
            return f"heads of {size}, expected {SIZE}"
        if max(KEYS * heads * size, batch * heads * (length + KEYS) // _TOKENS) >= _MAX_INT:
            return f"{batch} sequences of {length} with {heads} heads, more than it can count"
    return _missing()


@torch.compiler.assume_constant_result
def _missing() -> str | None:
    return _import_problem()


@functools.cache
def _import_problem() -> str | None:
    try:
        import lit_t6.ops.dense.kernels.attention_backward  # noqa: F401  # whether that is possible
    except (ImportError, AttributeError) as error:  # Gluon is an experiment of Triton's, and changes
        return f"the installed Triton has no such Gluon: {error}"
    return None


def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[QueryGradient, Tensor, Tensor]:
    """Gradients of queries, keys and values; those of keys and values are (B, T, H, D), contiguous.

    The first call for a number of heads and rows copies its plan to the GPU: it cannot be part of a CUDA graph.

    Args:
        grad: of the result, (B, T, H, D).
        q: (B, T, H, D).
        k: likewise.
        v: likewise.
        out: the result, likewise.
        lse: logarithms of the sums of exponentials, (B, H, T), float32.
        scale: of the logits.

    Raises:
        RuntimeError: it cannot take them (`why_not`), or the installed Triton cannot compile the kernel.
    """
    batch, length, heads, size = shape = (q.shape[0], q.shape[1], q.shape[2], q.shape[3])
    if problem := why_not(q.dtype, q.device, shape):
        raise RuntimeError(problem)
    from triton.errors import TritonError

    from lit_t6.ops.dense.kernels.attention_backward import _dense_attention_bwd_kernel

    grad, q, k, v, out = (_packed(x) for x in (grad, q, k, v, out))
    delta, lse2, tiles = sums(grad, out, lse)
    programs = num_multiprocessors(q.device)
    plan = _plan_on(q.device, -(-length // KEYS), batch * heads, programs)
    of_k, of_v = torch.empty_like(k), torch.empty_like(v)
    try:
        _dense_attention_bwd_kernel[(programs,)](
            *(q, k, v, grad, lse2, delta, tiles, of_k, of_v, length, heads, scale, *plan),
            *(QUERIES, size, length % KEYS == 0),
            num_warps=_WARPS,
        )
    except TritonError as error:  # as others refuse: one that takes them is looked for
        raise RuntimeError(f"the installed Triton cannot compile the kernel: {error}") from error
    return QueryGradient(tiles, shape, scale), of_k, of_v


def sums(grad: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernel needs beforehand.

    Args:
        grad: of the result, (B, T, H, D), contiguous.
        out: the result, likewise.
        lse: (B, H, T).

    Returns:
        Σ out · grad of each row and the logarithms to the base of 2, (B, H, T) each; and zeros for a `QueryGradient`.
    """
    from triton import cdiv

    from lit_t6.ops.dense.kernels.attention_sums import _dense_attention_sums_kernel  # needs Triton

    batch, length, heads, size = out.shape
    delta, lse2 = (torch.empty(batch, heads, length, dtype=torch.float32, device=out.device) for _ in range(2))
    num_tiles = cdiv(length, KEYS) * (KEYS // QUERIES)
    tiles = torch.empty(batch, heads, num_tiles, QUERIES * size, dtype=torch.float32, device=out.device)
    token_blocks = num_tiles * QUERIES // _TOKENS
    _dense_attention_sums_kernel[(batch * cdiv(heads, _HEADS) * token_blocks,)](
        *(out, grad, lse.contiguous(), delta, lse2, tiles, length, heads, token_blocks),
        **dict(D=size, TOKENS=_TOKENS, HEADS=_HEADS, num_warps=_SUM_WARPS),
    )
    return delta, lse2, tiles


def plan(rows: int, heads: int, programs: int) -> list[list[tuple[int, int]]]:
    """Rows of tiles, as (head, row), that each program takes, one after the other.

    Programs work at the same heads, so that what one reads is in the cache for the next. The last rows are dealt out
    the long ones first, so that all programs end at about the same time.

    Args:
        rows: of a head. The first is the longest: all queries see its keys.
        heads: of all sequences, B·H.
        programs: that share them.
    """
    order = [(head, row) for head in range(heads) for row in range(rows)]
    last = max(0, len(order) - _ROWS_BY_LENGTH * programs)
    order[last:] = sorted(order[last:], key=lambda which: which[1])
    shares: list[list[tuple[int, int]]] = [[] for _ in range(programs)]
    loads = [(0.0, program) for program in range(programs)]
    for head, row in order:
        load, program = loads[0]
        shares[program].append((head, row))
        heapq.heapreplace(loads, (load + tiles_in(row, rows) + _ROW_TILES, program))
    return shares


def tiles_in(row: int, rows: int) -> int:
    """Tiles of a row of a head."""
    return (rows - row) * (KEYS // QUERIES)


@functools.lru_cache(maxsize=64)
def _plan_on(device: torch.device, rows: int, heads: int, programs: int) -> tuple[Tensor, Tensor]:
    """Where each program's rows begin, (programs,), and the rows of all, (…, 2), as the kernel reads them."""
    starts: list[int] = []
    every: list[tuple[int, int]] = []
    for share in plan(rows, heads, programs):
        starts.append(len(every))
        every += [*share, *[(-1, 0)] * _BEHIND]
    whole = torch.int32
    return torch.tensor(starts, dtype=whole, device=device), torch.tensor(every, dtype=whole, device=device)


def _packed(x: Tensor) -> Tensor:
    """Contiguous, and where rows may be read 16 bytes at a time."""
    x = x.contiguous()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()
