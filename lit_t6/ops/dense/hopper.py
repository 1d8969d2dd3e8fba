"""Causal attention in training by kernels of ours on Hopper GPUs: what they are started with.

Letters: B batch, T positions, H heads, D head size.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lit_t6.ops.alignment import ALIGNMENT
from lit_t6.ops.dense.work_lists import dealt
from lit_t6.ops.device import num_multiprocessors

SIZE = 64
"""Of heads."""
QUERIES = 64
"""Positions that a warp group takes, and queries of a tile on the way back."""
KEYS = 2 * QUERIES
"""Of a row of tiles on the way back: two warp groups'."""
_WARPS = 4  # of a warp group
_BACK_STAGES, _BACK_REGISTERS = 4, (208, 72)
_FORWARD = ((1536, (64, 4, 4, 112)), (2**31, (128, 2, 3, 160)))
"""Keys of a tile, stages, warp groups and their registers, up to a length: few queries leave large tiles half empty."""
_MIN_HEADS = 2
"""B·H for each multiprocessor: from then on a head's first row of tiles on the way back is done so long before its
others that it stores the gradient of queries, and they add to it. Of fewer heads it starts with zeros."""
_MAX_INT = 2**31


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
    """Why these kernels cannot take such tensors, or None if they can.

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
        if max(KEYS * heads * size, batch * heads * (length + KEYS)) >= _MAX_INT:
            return f"{batch} sequences of {length} with {heads} heads, more than it can count"
    return _missing()


@torch.compiler.assume_constant_result
def _missing() -> str | None:
    return _import_problem()


@functools.cache
def _import_problem() -> str | None:
    try:
        import lit_t6.ops.dense.kernels.attention_backward
        import lit_t6.ops.dense.kernels.attention_forward  # noqa: F401  # whether that is possible
    except (ImportError, AttributeError) as error:  # Gluon is an experiment of Triton's, and changes
        return f"the installed Triton has no such Gluon: {error}"
    return None


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Causal attention, and the logarithms of the sums of exponentials, (B, H, T) float32, both contiguous.

    Where T is no multiple of 128, rows of the next sequence are read with the last ones of this, and count zero times:
    what is not finite there is not finite here either. The first call for a shape copies a list to the GPU: it cannot
    be part of a CUDA graph.

    Args:
        q: (B, T, H, D); rows of heads may lie apart, as in a projection's.
        k: likewise.
        v: likewise.
        scale: of the logits.

    Raises:
        RuntimeError: the kernel cannot take them (`why_not`), or the installed Triton cannot compile it.
    """
    batch, length, heads, size = shape = _checked_shape(q)
    from lit_t6.ops.dense.kernels.attention_forward import _dense_attention_fwd_kernel

    if scale <= 0:  # the highest logit is that of the highest product
        q, scale = (-q, -scale) if scale else (torch.zeros_like(q), 1.0)
    keys, stages, groups, registers = next(settings for longest, settings in _FORWARD if length <= longest)
    queries = groups * QUERIES
    lengths = tuple(min(end, length) / keys for end in range(queries, length + queries, queries))
    programs = num_multiprocessors(q.device)
    out = torch.empty(shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    with _compiling():
        _dense_attention_fwd_kernel[(programs,)](
            *(_tiled(q, QUERIES), _tiled(k, keys), _tiled(v, keys), out, lse, length, heads, scale),
            *dealt(q.device, lengths, batch * heads, programs),
            *(QUERIES, keys, size, stages, groups, registers),
            num_warps=_WARPS,
        )
    return out, lse


def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[QueryGradient, Tensor, Tensor]:
    """Gradients of queries, keys and values; those of keys and values are (B, T, H, D), contiguous.

    The first call for a shape copies a list to the GPU: it cannot be part of a CUDA graph.

    Args:
        grad: of the result, (B, T, H, D).
        q: as `attention` takes it, and the next two alike.
        k: likewise.
        v: likewise.
        out: the result, (B, T, H, D).
        lse: logarithms of the sums of exponentials, (B, H, T), float32.
        scale: of the logits.

    Raises:
        RuntimeError: as of `attention`.
    """
    batch, length, heads, size = shape = _checked_shape(q)
    from lit_t6.ops.dense.kernels.attention_backward import _dense_attention_bwd_kernel

    grad = grad.contiguous()
    lines, stored = sums(grad, out.contiguous(), lse)
    num_tiles = lines.shape[2]
    programs = num_multiprocessors(q.device)
    # All programs have to be there at once, which they are not while a collective holds multiprocessors.
    stores = batch * heads >= _MIN_HEADS * programs and not _shares_its_work()
    new = torch.empty if stores else torch.zeros
    tiles = new(batch, heads, num_tiles, QUERIES * size, dtype=torch.float32, device=q.device)
    of_k, of_v = (torch.empty(shape, dtype=q.dtype, device=q.device) for _ in range(2))
    lengths = tuple(float(num_tiles - first) for first in range(0, num_tiles, KEYS // QUERIES))
    with _compiling():
        _dense_attention_bwd_kernel[(programs,)](
            *(_tiled(x, QUERIES) for x in (q, k, v, grad)),
            *(_descriptor(lines.view(-1, QUERIES), 2), tiles, stored, of_k, of_v, length, heads, scale),
            *dealt(q.device, lengths, batch * heads, programs, programs if stores else 0),
            *(QUERIES, size, _BACK_STAGES, _BACK_REGISTERS, stores),
            num_warps=_WARPS,
            launch_cooperative_grid=stores,  # programs wait for others
        )
    return QueryGradient(tiles, shape, scale), of_k, of_v


def sums(grad: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """What the way back needs beforehand of each query.

    Args:
        grad: of the result, (B, T, H, D), contiguous.
        out: the result, likewise.
        lse: (B, H, T).

    Returns:
        (B, H, tiles, 2, 64) float32: of each tile's queries the logarithms to the base of 2, infinite behind the last
        one, and Σ out · grad. And a zero for each head, (B·H,) int32.
    """
    from lit_t6.ops.dense.kernels.attention_sums import _dense_attention_sums_kernel  # needs Triton

    batch, length, heads, size = out.shape
    num_tiles = -(-length // KEYS) * (KEYS // QUERIES)
    lines = torch.empty(batch, heads, num_tiles, 2, QUERIES, dtype=torch.float32, device=out.device)
    stored = torch.empty(batch * heads, dtype=torch.int32, device=out.device)
    _dense_attention_sums_kernel[(batch * heads * num_tiles,)](
        out, grad, lse.contiguous(), lines, stored, length, heads, num_tiles, D=size, ROWS=QUERIES
    )
    return lines, stored


def _shares_its_work() -> bool:
    """Whether other processes train the same model."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _checked_shape(q: Tensor) -> tuple[int, int, int, int]:
    """(B, T, H, D), of what the kernels can take."""
    batch, length, heads, size = q.shape
    if problem := why_not(q.dtype, q.device, q.shape):
        raise RuntimeError(problem)
    return batch, length, heads, size


def _tiled(x: Tensor, rows: int) -> Any:
    """The descriptor of (B, T, H, D) as (B·T, H·D), of which tiles of a head's positions are read."""
    batch, length, heads, size = x.shape
    in_line = x.stride(3) == 1 and x.stride(2) == size and x.stride(0) == length * x.stride(1) >= length * heads * size
    aligned = x.data_ptr() % ALIGNMENT == 0 and x.stride(1) * x.element_size() % ALIGNMENT == 0
    if not (in_line and aligned):
        x = x.clone(memory_format=torch.contiguous_format)
    return _descriptor(x.as_strided((batch * length, heads * size), (x.stride(1), 1)), rows)


def _descriptor(x: Tensor, rows: int) -> Any:
    """Of a matrix, of which tiles of rows × 64 columns are read; halves lie as the matrix units want them."""
    from triton.experimental.gluon.language import NVMMASharedLayout
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    bits = 8 * x.element_size()
    layout = NVMMASharedLayout(swizzle_byte_width=128 if bits == 16 else 0, element_bitwidth=bits, rank=2)
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [rows, QUERIES], layout)


@contextmanager
def _compiling() -> Iterator[None]:
    """What Triton cannot compile is refused as others refuse: a backend that can is looked for."""
    from triton.errors import TritonError

    try:
        yield
    except TritonError as error:
        raise RuntimeError(f"the installed Triton cannot compile the kernel: {error}") from error
