"""Writing new tokens into the buffers of a cache: on a GPU in one launch, with all that decoding does before it.

Letters: B batch, N new positions, M cached positions, P rotated features of a row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_t6.ops.implementation import HAS_TRITON
from lit_t6.ops.rope import apply_rope

MAX_PIECES = 9
"""Of one launch: the factors of queries, keys and values, of third order."""


class Piece(NamedTuple):
    """Some of the numbers that a projection makes of a token: a matrix."""

    num_rows: int
    row_size: int
    rotated: bool
    """Whether RoPE turns its rows."""
    buffer: int
    """Which buffer keeps it; -1: it is given back."""


def append_tokens(buffers: Sequence[Tensor], new: Sequence[Tensor], lengths: Tensor) -> None:
    """Write new tokens behind the last of each row of each buffer.

    Args:
        buffers: each (B, M, …) of one or two axes more; written to.
        new: for each, (B, N, …), of any type.
        lengths: (B,) int64: tokens that each row holds; not changed. There must be room for N more.
    """
    if lengths.is_cuda and HAS_TRITON:
        append_by_kernel(list(buffers), list(new), lengths)
        return
    batch, num_new = new[0].shape[:2]
    places = lengths[:, None] + torch.arange(num_new, device=lengths.device)
    rows = torch.arange(batch, device=lengths.device)[:, None]
    for buffer, values in zip(buffers, new, strict=True):
        buffer[rows, places] = values.to(buffer.dtype)


def append_projection(
    buffers: Sequence[Tensor],
    projected: Tensor,
    pieces: Sequence[Piece],
    lengths: Tensor,
    rope: tuple[Tensor, Tensor],
) -> list[Tensor]:
    """Cut what a projection made of new tokens into pieces, rotate some, and write those that are kept.

    Args:
        buffers: each (B, M, rows, row size); written to.
        projected: (B, N, columns), the columns of the pieces one after the other, each with its rows one after the
            other.
        pieces: at most `MAX_PIECES`.
        lengths: (B,) int64: tokens that each row holds, and thus the positions of the new ones; not changed. There
            must be room for N more.
        rope: cosines and sines (at least M, P / 2) from `rope_angles`, entry m for position m.

    Returns:
        The pieces that are not kept, (B, N, rows, row size) each, contiguous.
    """
    if lengths.is_cuda and HAS_TRITON and projected.dtype != torch.float64:  # the kernel rotates in float32
        flat = [int(number) for piece in pieces for number in piece]
        back = [projected.new_empty(*projected.shape[:2], *piece[:2]) for piece in pieces if piece.buffer < 0]
        append_projection_by_kernel(list(buffers), back, projected, flat, lengths, *rope)
        return back
    places = lengths[:, None] + torch.arange(projected.shape[1], device=lengths.device)
    cos, sin = (table[places] for table in rope)
    kept, rest = {}, []
    for piece, x in zip(pieces, _cut(projected, pieces), strict=True):
        turned = apply_rope(x, cos, sin) if piece.rotated else x
        if piece.buffer < 0:
            rest.append(turned.contiguous())
        else:
            kept[piece.buffer] = turned
    append_tokens([buffers[number] for number in kept], list(kept.values()), lengths)
    return rest


def _cut(projected: Tensor, pieces: Sequence[Piece]) -> list[Tensor]:
    parts = projected.split([piece.num_rows * piece.row_size for piece in pieces], dim=-1)
    return [part.unflatten(-1, piece[:2]) for part, piece in zip(parts, pieces, strict=True)]


@torch.library.custom_op("lit_t6::append_tokens", mutates_args=("buffers",))
def append_by_kernel(buffers: list[Tensor], new: list[Tensor], lengths: Tensor) -> None:
    """`append_tokens` of at most `MAX_PIECES` buffers by a kernel."""
    sources, targets = ([x if x.ndim == 4 else x.unsqueeze(2) for x in tensors] for tensors in (new, buffers))
    _launch(sources, targets, [0] * len(new), [1] * len(new), lengths, lengths, lengths)


@append_by_kernel.register_fake
def _(buffers, new, lengths):  # type: ignore[no-untyped-def]
    return None


@torch.library.custom_op("lit_t6::append_projection", mutates_args=("buffers", "back"))
def append_projection_by_kernel(
    buffers: list[Tensor],
    back: list[Tensor],
    projected: Tensor,
    pieces: list[int],
    lengths: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> None:
    """`append_projection` by a kernel; `pieces` are their numbers, one after the other, `back` what is not kept.

    Written to, not returned: compilers take no operator that returns a list.
    """
    plan = _pieces(pieces)
    rest = iter(back)
    to = [next(rest) if piece.buffer < 0 else buffers[piece.buffer] for piece in plan]
    turned = [2 * cos.shape[-1] if piece.rotated else 0 for piece in plan]
    _launch(_cut(projected, plan), to, turned, [int(piece.buffer >= 0) for piece in plan], lengths, cos, sin)


@append_projection_by_kernel.register_fake
def _(buffers, back, projected, pieces, lengths, cos, sin):  # type: ignore[no-untyped-def]
    return None


def _pieces(flat: list[int]) -> list[Piece]:
    rows = [flat[start : start + 4] for start in range(0, len(flat), 4)]
    return [Piece(num_rows, row_size, bool(rotated), buffer) for num_rows, row_size, rotated, buffer in rows]


def _launch(
    new: list[Tensor],
    to: list[Tensor],
    turned: list[int],
    kept: list[int],
    lengths: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> None:
    from lit_t6.ops.device import early_start
    from lit_t6.ops.kernels.append import _append_kernel  # needs Triton

    assert len(new) <= MAX_PIECES, f"{len(new)} pieces, {MAX_PIECES} at most"
    batch, num_new = new[0].shape[:2]
    arguments: list[Tensor | int] = []
    pieces = {}
    for number in range(MAX_PIECES):
        if number >= len(new):
            arguments += [lengths, 0, 0, lengths, 0]  # in the place of what is not there
            pieces[f"P{number}"] = (1, 1, 0, 0, 0, 0, 0)
            continue
        x, target = new[number], to[number]
        x = x if x.stride(-1) == 1 else x.contiguous()
        arguments += [x, x.stride(0), x.stride(1), target, target.stride(0)]
        strides = (x.stride(2), target.stride(2), target.stride(1))
        pieces[f"P{number}"] = (*x.shape[2:], *strides, turned[number], kept[number])
    _append_kernel[(batch * num_new, len(new))](
        lengths,
        cos.contiguous(),
        sin.contiguous(),
        num_new,
        *arguments,
        **pieces,
        EARLY=early_start(lengths.device)["EARLY"],
        num_warps=4,
    )
