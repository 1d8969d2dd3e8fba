"""Queries, keys and values from factors and back by kernels: what they are started with.

Letters: B batch, T positions, R rank, H heads, D head size, A numbers of a row of a: of H heads, and zeros behind them.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from triton import next_power_of_2

from lit_t6.ops.dense.hopper import QueryGradient
from lit_t6.ops.tpa.kernels.heads import _tpa_heads_bwd_kernel, _tpa_heads_fwd_kernel

Tables = tuple[Tensor, Tensor] | None
"""Cosines and sines from `rope_angles`, (T, D / 2) or (B or 1, T, D / 2), with which b is turned; None: not at all."""
Pair = tuple[Tensor | None, Tensor]
"""a (B, T, R, A) and b (B, T, R, D), of one type; or None and heads (B, T, H, D), which are left as they are, but for
queries that are to be turned."""

_TILE = 2048
"""Numbers of a tile of heads: for one warp of a program. Many small programs hide the way to memory best."""
_BACK_TILE, _BACK_REGISTERS = 1024, 128
"""On the way back two tiles are there at once; and registers of a thread where they suffice, for more programs."""


def form_heads(
    pairs: Sequence[Pair], rope: Tables, turns_dense: bool = False, num_heads: int | None = None
) -> list[Tensor]:
    """(1/R) Σ_r a_r ⊗ b_r of queries, keys and values, (B, T, H, D) each, contiguous.

    Args:
        pairs: factors of queries, keys and values.
        rope: how b of queries and keys are turned.
        turns_dense: whether queries that are given are turned too; only where keys or values have factors.
        num_heads: H, if rows of a have zeros behind those of heads; A if not given.
    """
    dense = turns_dense and pairs[0][0] is None
    parts = _parts(pairs)
    there = [part for part in parts if isinstance(part, tuple)]
    assert there or not dense, "the kernel turns queries beside factors"
    left = _left(pairs, turns_dense)
    heads = [b.contiguous() if is_left else _room(a, b, num_heads) for is_left, (a, b) in zip(left, pairs, strict=True)]
    if there:
        grid, tables, constants = _settings(there, parts, rope, num_heads)
        _tpa_heads_fwd_kernel[grid](
            *(tuple(heads), tuple(_part(x) for x in parts), *tables),
            **constants,
            DENSE=dense,
        )
    return heads


def form_heads_backward(
    grads: Sequence[Tensor | QueryGradient],
    pairs: Sequence[Pair],
    rope: Tables,
    into: Sequence[Pair] | None = None,
    turns_dense: bool = False,
    num_heads: int | None = None,
) -> Sequence[Pair]:
    """Gradients of a and b of queries, keys and values, contiguous; of heads that are given, None and theirs.

    Args:
        grads: of the heads, (B, T, H, D) each; of queries that have factors or are turned also in tiles, which are read
            as they are.
        pairs: as `form_heads` took them.
        rope: likewise.
        into: where the gradients are written, of each a and b, if no heads are given but those that are turned: slices
            of the rows of a contiguous (B, T, C), for one. What is behind the heads of a is filled with zeros.
        turns_dense: as `form_heads` took it.
        num_heads: likewise.
    """
    dense = turns_dense and pairs[0][0] is None
    parts = _parts(pairs)
    there = [part for part in parts if isinstance(part, tuple)]
    found = into or [
        _of_given(grad) if is_left else (None if a is None else a.new_empty(a.shape), b.new_empty(b.shape))
        for is_left, grad, (a, b) in zip(_left(pairs, turns_dense), grads, pairs, strict=True)
    ]
    if there:
        grid, tables, constants = _settings(there, parts, rope, num_heads, found)
        _tpa_heads_bwd_kernel[grid](
            tuple(_gradient(grad) for grad in grads),
            tuple(_part(x) for x in parts),
            tuple(_into(a, b) for a, b in found),
            *tables,
            **constants,
            DENSE=dense,
            IN_TILES=isinstance(grads[0], QueryGradient),
        )
    return found


def _parts(pairs: Sequence[Pair]) -> list[Tensor | tuple[Tensor, Tensor]]:
    """Factors, or heads, with features beside each other."""
    return [_dense_rows(b) if a is None else (_dense_rows(a), _dense_rows(b)) for a, b in pairs]


def _left(pairs: Sequence[Pair], turns_dense: bool) -> list[bool]:
    """Which heads are left as they are."""
    return [a is None and not (turns_dense and i == 0) for i, (a, _) in enumerate(pairs)]


def _room(a: Tensor | None, b: Tensor, num_heads: int | None) -> Tensor:
    """For heads."""
    heads = b.shape[2] if a is None else num_heads or a.shape[3]
    return b.new_empty(*b.shape[:2], heads, b.shape[3])


def _step(parts: Sequence[Any]) -> int:
    """What divides all strides but those of 1, up to what makes rows of 16 bytes; a compiler looks for 16 only."""
    tensors = [x for part in parts for x in (part if isinstance(part, tuple) else (part,)) if x is not None]
    return math.gcd(16, *(x.stride(i) for x in tensors for i in range(3)))


def _of_given(grad: Tensor | QueryGradient) -> tuple[None, Tensor]:
    """The gradient of heads that are left as they are."""
    assert isinstance(grad, Tensor), "tiles are for queries that have factors or are turned"
    return None, grad.contiguous()


def _gradient(grad: Tensor | QueryGradient) -> tuple[Any, ...]:
    """As the kernel takes it."""
    if isinstance(grad, QueryGradient):
        return grad.tiles, grad.tiles.shape[2], grad.scale
    grad = _dense_rows(grad)
    return grad, *grad.stride()[:3]


def _part(part: Tensor | tuple[Tensor, Tensor]) -> tuple[Any, ...]:
    """As the kernels take it; of heads that are given, something in its place."""
    a, b = (part, part) if isinstance(part, Tensor) else part
    return a, b, *a.stride()[:3], *b.stride()[:3]


def _into(a: Tensor | None, b: Tensor) -> tuple[Any, ...]:
    """As the kernel takes it; of heads, theirs twice."""
    a = b if a is None else a
    return a, b, *_steps(a), *_steps(b)


def _steps(gradient: Tensor) -> tuple[int, int]:
    """From one token of all to the next, and from one rank or head to the next."""
    of_row, of_token, of_rank, _ = gradient.stride()
    return of_row if gradient.shape[1] == 1 else of_token, of_rank  # a single token's may be any


def _dense_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _settings(
    there: Sequence[tuple[Tensor, Tensor]],
    parts: Sequence[Any],
    rope: Tables,
    num_heads: int | None,
    into: Sequence[Pair] = (),
) -> tuple[tuple[int, int], tuple[Tensor | int, ...], dict[str, Any]]:
    """Grid, arguments from the tables on, and constants; those of the way back, if gradients go into something."""
    a, b = there[0]
    back, heads = bool(into), num_heads or a.shape[3]
    assert {x.shape[3] for x, _ in there} == {a.shape[3]}, "rows of a are equally long"
    assert heads <= a.shape[3] <= heads + -heads % 16, "tiles of 16 heads reach to the end of a row of a"
    batch, length, _, size = b.shape
    ranks = tuple(part[0].shape[2] if isinstance(part, tuple) else 0 for part in parts)
    # Tensor cores take eight columns, and sixteen rows.
    block_d, block_r = max(16, next_power_of_2(size)), max(8 if back else 16, next_power_of_2(max(ranks)))
    tile = _BACK_TILE if back else _TILE
    block_h = max(16, min(tile // block_d, next_power_of_2(heads)))
    exact = a.dtype == torch.float32
    constants = {
        "RANKS": ranks,
        "ROTATED": rope is not None,
        "SHAPE": (
            *(heads, size, block_h, block_d, block_r, "ieee" if exact else "tf32"),
            *(a.shape[3], _step([*parts, *into])),
        ),
        "num_warps": max(1, block_r * block_d * a.itemsize // (2 * _TILE)),
    }
    if back and a.is_cuda and block_r * block_d <= 512 and not exact:
        constants["maxnreg"] = _BACK_REGISTERS
    return (length, batch), (*_tables(rope, b), length, _stride(rope)), constants


def _tables(rope: Tables, b: Tensor) -> tuple[Tensor, Tensor]:
    if rope is None:
        return b, b  # in the place of what is not there
    cos, sin = (table.contiguous() for table in rope)
    assert 2 * cos.shape[-1] == b.shape[-1], "the kernel turns all features or none"
    assert cos.shape[-2] == b.shape[1], f"angles of {cos.shape[-2]} positions, expected {b.shape[1]}"
    assert cos.ndim == 2 or len(cos) in (1, len(b)), f"angles of {len(cos)} rows, expected 1 or {len(b)}"
    return cos, sin


def _stride(rope: Tables) -> int:
    """From one row's angles to the next one's, of tables that are contiguous."""
    return 0 if rope is None or rope[0].ndim == 2 or len(rope[0]) == 1 else rope[0].shape[1] * rope[0].shape[2]
