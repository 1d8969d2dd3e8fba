"""FlashTPA decoding (paper Algorithms 2 and 3) on a GPU: what the kernels are started with.

Letters: B batch, N new queries, M cached positions, H heads, D and E head sizes of keys and of values, R rank.
"""

import math
from typing import cast

import torch
import triton
from torch import Tensor
from triton import next_power_of_2

from lit_t6.ops.decode_plan import DecodePlan, Plans, key_of
from lit_t6.ops.device import on_device
from lit_t6.ops.splits import MAX_LENGTH, MAX_QUERIES, layout, positions, refusal
from lit_t6.ops.tpa.decode_sizes import Sizes
from lit_t6.ops.tpa.factors import materialise
from lit_t6.ops.tpa.kernels.decode import _tpa_decode_fwd_kernel

MAX_RANK_Q = 32
MAX_RANK = 8
MAX_SIZE = 128
_ROWS = 128
"""Heads times queries that one program takes at most."""
_CACHED = ("ak", "bk", "ck", "av", "bv", "cv")
"""In the kernel's order."""
Cached = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor | None]
"""a_k, b_k, c_k, a_v, b_v, c_v."""
_PLANS = Plans()


def why_not(
    a_q: Tensor | None, b_q: Tensor, a_k: Tensor, b_k: Tensor, a_v: Tensor, b_v: Tensor, c_v: Tensor | None
) -> str | None:
    """Why the kernels cannot take arguments of `lit_t6.ops.tpa_decode`, or None if they can."""
    limits = {
        "new queries": (b_q.shape[1], MAX_QUERIES),
        "rank of the queries": (0 if a_q is None else a_q.shape[2], MAX_RANK_Q),
        "rank of the keys": (a_k.shape[2], MAX_RANK),
        "rank of the values": (a_v.shape[2], MAX_RANK),
        "head size": (b_q.shape[3], MAX_SIZE),
        "head size of the values": (_width(b_v, c_v), MAX_SIZE),
        "cached positions": (a_k.shape[1], MAX_LENGTH),
    }
    return refusal(limits, a_k, b_k, a_v, b_v)


def _width(b: Tensor, c: Tensor | None) -> int:
    """Features of a row of B, of third order too."""
    return b.shape[-1] * (1 if c is None else c.shape[-1])


def decode_again(
    a_q: Tensor | None,
    b_q: Tensor,
    cached: Cached,
    rope: tuple[Tensor, Tensor] | None,
    lengths: Tensor | None,
    scale: float | None,
    zero_padding: bool,
) -> Tensor | None:
    """`lit_t6.ops.tpa_decode` of arguments like those of a call before; None if it is not to be had, see `Plans`."""
    a_k = cached[0]
    if a_k.dim() != 4:
        return None
    if lengths is None:
        lengths = torch.full(a_k.shape[:1], a_k.shape[1], device=a_k.device)
    plan = _PLANS.of_known((scale, zero_padding), (a_q, b_q, lengths), cached, rope)
    return None if plan is None else _start(plan, a_q, b_q, cached, rope, lengths)


@torch.library.custom_op("lit_t6::tpa_decode", mutates_args=())
def flash_decode(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor,
    b_k: Tensor,
    a_v: Tensor,
    b_v: Tensor,
    c_k: Tensor | None,
    c_v: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    lengths: Tensor,
    scale: float | None,
    zero_padding: bool,
) -> Tensor:
    """Arguments are those of `lit_t6.ops.tpa_decode`, checked there; `rope` as its two tables."""
    if a_q is not None:
        a_q = a_q.to(b_q.dtype)  # under autocast a softmax leaves float32
        if b_q.shape[1] > 1:  # forming few queries takes no time
            b_q = materialise(a_q, b_q)
            a_q = None
    a_q, cos, sin = (x if x is None else x.contiguous() for x in (a_q, cos, sin))
    b_q = b_q.contiguous()
    lengths = lengths.to(torch.int64).contiguous()
    given = (a_k, b_k, c_k, a_v, b_v, c_v)
    cached = cast(Cached, tuple(x if x is None or x.stride(-1) == 1 else x.contiguous() for x in given))
    rope = None if cos is None or sin is None else (cos, sin)
    key = key_of((scale, zero_padding), (a_q, b_q, lengths), cached, rope)
    plan = _PLANS.made(key, lambda: _plan(a_q, b_q, cached, cos, scale, zero_padding))
    with on_device(b_k.device):
        return _start(plan, a_q, b_q, cached, rope, lengths)


def _start(
    plan: DecodePlan,
    a_q: Tensor | None,
    b_q: Tensor,
    cached: Cached,
    rope: tuple[Tensor, Tensor] | None,
    lengths: Tensor,
) -> Tensor:
    """Any tensor will do in the place of what is not there."""
    tables = (None, None) if rope is None else rope
    tensors = [lengths if x is None else x for x in (a_q, b_q, *cached, *tables)]
    return plan(tensors, lengths, cached[0].shape[1])


def _plan(
    a_q: Tensor | None, b_q: Tensor, cached: Cached, cos: Tensor | None, scale: float | None, zero_padding: bool
) -> DecodePlan:
    """How `flash_decode` computes such arguments."""
    a_k, b_k, c_k, a_v, b_v, c_v = cached
    batch, num_queries = b_q.shape[:2]
    num_heads, rank_k, rank_v = a_k.shape[-1], a_k.shape[2], a_v.shape[2]
    head_dim, value_dim = b_q.shape[-1], _width(b_v, c_v)
    rank_q = 0 if a_q is None else a_q.shape[2]
    layouts = [layout(x) for x in cached]
    units = [0 if x is None else x.stride(0) // lies[2] for x, lies in zip(cached, layouts, strict=True)]

    block_h = min(max(16, next_power_of_2(num_heads)), _ROWS)
    block_n = min(next_power_of_2(num_queries), _ROWS // block_h)
    block_d, block_e = (max(16, next_power_of_2(size)) for size in (head_dim, value_dim))
    tiles = triton.cdiv(num_heads, block_h) * triton.cdiv(num_queries, block_n)
    wide_k, wide_v = (block * (1 if c is None else 2) for block, c in ((block_d, c_k), (block_e, c_v)))
    bytes_per_token = b_k.itemsize * (rank_k * (wide_k + block_h) + rank_v * (wide_v + block_h))
    if cos is not None:  # what b_k is rotated with: its partners, cosines and sines
        bytes_per_token += rank_k * block_d * (b_k.itemsize + 2 * cos.itemsize)
    num_cached = positions(*cached)
    rows = block_h * block_n
    rows_first = _rows_come_first(rows, b_k.itemsize, zero_padding or not _reads_padding(num_heads, layouts))
    sizes = Sizes(rows_first, rows, bytes_per_token, b_k.itemsize, batch * tiles, num_cached, b_k.device)
    scale = head_dim**-0.5 if scale is None else scale
    return DecodePlan(
        _tpa_decode_fwd_kernel,
        tiles=tiles,
        splits=sizes.splits,
        shape=(batch, num_queries, num_heads, value_dim),
        dtype=b_q.dtype,
        device=b_k.device,
        block_m=sizes.block,
        scale=1 / rank_v,
        values={
            **{f"{name}_stride_b": unit for name, unit in zip(_CACHED, units, strict=True)},
            "num_splits": sizes.splits,
            "scale": scale * math.log2(math.e) / (max(rank_q, 1) * rank_k),
            "NUM_QUERIES": num_queries,
            "NUM_HEADS": num_heads,
            "HEAD_DIM": head_dim,
            "VALUE_DIM": value_dim,
            "RANK_Q": rank_q,
            "RANK_K": rank_k,
            "RANK_V": rank_v,
            **{name.upper(): lies for name, lies in zip(_CACHED, layouts, strict=True)},
            "THIRD_K": 0 if c_k is None else b_k.shape[-1],
            "THIRD_V": 0 if c_v is None else b_v.shape[-1],
            "ROTATED": 0 if cos is None else 2 * cos.shape[-1],
            "BLOCK_N": block_n,
            "BLOCK_H": block_h,
            "BLOCK_D": block_d,
            "BLOCK_E": block_e,
            "BLOCK_R": max(16, next_power_of_2(max(rank_q, 1))),
            "PRECISION": "ieee" if b_k.dtype == torch.float32 else "tf32",
            **sizes.constants,
        },
    )


def _reads_padding(num_heads: int, layouts: list[tuple[int, int, int, int]]) -> bool:
    """Whether rows of a_k or a_v, of which the layouts are the first and the fourth, are read beyond their end."""
    return any(layouts[place][3] > num_heads for place in (0, 3))


def _rows_come_first(rows: int, itemsize: int, finite: bool) -> bool:
    """How tiles lie, see the kernel: many rows first, where wide tensor cores take their products.

    Args:
        rows: of a tile.
        itemsize: bytes of a number.
        finite: whether nothing is read that a product with zero does not make zero.
    """
    return rows > 32 and itemsize == 2 and finite


@flash_decode.register_fake
def _(a_q, b_q, a_k, b_k, a_v, b_v, c_k, c_v, cos, sin, lengths, scale, zero_padding):  # type: ignore[no-untyped-def]
    return b_q.new_empty(*b_q.shape[:2], a_k.shape[-1], _width(b_v, c_v))
