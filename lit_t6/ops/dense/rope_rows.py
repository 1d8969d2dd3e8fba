"""RoPE between the rows of one projection and heads, by kernels: what they are started with.

Letters: B batch, T positions, H heads, D head size.
"""

from typing import Any

from torch import Tensor
from triton import cdiv, next_power_of_2

from lit_t6.ops.dense.hopper import QueryGradient
from lit_t6.ops.dense.kernels.rope_rows import _rope_rows_bwd_kernel, _rope_rows_fwd_kernel

_TOKENS, _TILE = 2, 1024
"""Tokens of a program, and pairs of a tile at most: for one warp. Many small programs hide the way to memory best."""


def rope_rows(
    rows: Tensor, num_heads: int, cos: Tensor, sin: Tensor, copies_values: bool = False
) -> tuple[Tensor, ...]:
    """Queries and keys, turned, and values if they are asked for, (B, T, H, D) each, contiguous.

    Args:
        rows: (B, T, 3·H·D), contiguous: q, k, v, each head-major.
        num_heads: H.
        cos: (T, D / 2) or (B or 1, T, D / 2), float32, as `apply_rope` takes them.
        sin: likewise.
        copies_values: whether values are wanted too.
    """
    batch, length, columns = rows.shape
    size = columns // (3 * num_heads)
    parts = tuple(rows.new_empty(batch, length, num_heads, size) for _ in range(3 if copies_values else 2))
    grid, arguments, constants = _settings(parts[0], cos, sin)
    _rope_rows_fwd_kernel[grid](rows, parts, *arguments, PARTS=len(parts), **constants)
    return parts


def rope_rows_backward(of_q: Tensor | QueryGradient, of_k: Tensor, of_v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The gradient of the rows, (B, T, 3·H·D), contiguous.

    Args:
        of_q: gradient of the turned queries, (B, T, H, D), also as it was summed up.
        of_k: gradient of the turned keys, (B, T, H, D).
        of_v: gradient of the values, likewise.
        cos: as `rope_rows` took them.
        sin: likewise.
    """
    batch, length, num_heads, size = of_k.shape
    rows = of_k.new_empty(batch, length, 3 * num_heads * size)
    grid, arguments, constants = _settings(of_k, cos, sin)
    tiled, factor = isinstance(of_q, QueryGradient), 1.0
    if isinstance(of_q, QueryGradient):
        first, factor = (of_q.tiles, of_q.tiles.shape[2], 0, 0), of_q.scale
    else:
        first = _part(of_q)
    grads = first, _part(of_k), _part(of_v)
    _rope_rows_bwd_kernel[grid](grads, rows, *arguments, factor, TILED=tiled, **constants)
    return rows


def _part(grad: Tensor) -> tuple[Tensor, int, int, int]:
    """As the kernel takes it."""
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    return grad, grad.stride(0), grad.stride(1), grad.stride(2)


def _settings(heads: Tensor, cos: Tensor, sin: Tensor) -> tuple[tuple[int], tuple[Any, ...], dict[str, Any]]:
    """Grid, arguments from the tables on, and constants."""
    batch, length, num_heads, size = heads.shape
    cos, sin = cos.contiguous(), sin.contiguous()
    assert 2 * cos.shape[-1] == size, "all features are turned"
    assert cos.shape[-2] == length, f"angles of {cos.shape[-2]} positions, expected {length}"
    assert cos.ndim == 2 or len(cos) in (1, batch), f"angles of {len(cos)} rows, expected 1 or {batch}"
    stride = 0 if cos.ndim == 2 or len(cos) == 1 else length * size // 2
    block_p = next_power_of_2(size // 2)
    block_h = min(next_power_of_2(num_heads), max(1, _TILE // (_TOKENS * block_p)))
    constants = {
        "SHAPE": (num_heads, size, block_h, _TOKENS, block_p),
        "num_warps": max(1, _TOKENS * block_h * block_p // 1024),
    }
    return (cdiv(batch * length, _TOKENS),), (cos, sin, batch * length, length, stride), constants
