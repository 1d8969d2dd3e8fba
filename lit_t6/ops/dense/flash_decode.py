"""Decoding with cached keys and values on a GPU: what the kernels are started with.

Letters: B batch, N new queries, M cached positions, H query heads, G key/value heads, D and E head sizes.
"""

import math

import torch
import triton
from torch import Tensor
from triton import next_power_of_2

from lit_t6.ops.dense.kernels.decode import _dense_decode_fwd_kernel
from lit_t6.ops.device import early_start, shared_memory
from lit_t6.ops.splits import MAX_LENGTH, MAX_QUERIES, Parts, blocks, layout, positions, refusal

MAX_SIZE = 256
"""Features of a key or a value."""
MAX_SHARED_SIZE = 512
"""Features of a value that is the beginning of its key, as in the absorbed form of MLA."""
MAX_REST = 128
"""Features of such a key behind the value."""
_BLOCKS_AND_STAGES = ((128, 3), (64, 3), (64, 2), (32, 3), (32, 2), (16, 2), (16, 1))
_ROWS = 128
"""Rows of a program at most."""
_RESULTS = 32768
"""Numbers of the result that a program holds at most."""


def why_not(q: Tensor, k: Tensor, v: Tensor | int) -> str | None:
    """Why the kernel cannot take arguments of `lit_t6.ops.cached_attention`, or None if it can."""
    size = k.shape[-1]
    limits = {"new queries": (q.shape[1], MAX_QUERIES), "cached positions": (k.shape[1], MAX_LENGTH)}
    if isinstance(v, int):
        limits |= {"size of the shared values": (v, MAX_SHARED_SIZE), "features behind them": (size - v, MAX_REST)}
    else:
        limits |= {"head size": (size, MAX_SIZE), "head size of the values": (v.shape[-1], MAX_SIZE)}
    return refusal(limits, k, *([] if isinstance(v, int) else [v]))


@torch.library.custom_op("lit_t6::dense_decode", mutates_args=())
def flash_decode(q: Tensor, k: Tensor, v: Tensor | None, value_dim: int, lengths: Tensor, scale: float) -> Tensor:
    """(B, N, H, E); arguments are those of `lit_t6.ops.cached_attention`, checked there; no `v`: shared with `k`."""
    batch, num_queries, num_heads, head_dim = q.shape
    num_kv_heads = k.shape[2]
    group = num_heads // num_kv_heads
    shared = v is None
    k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (k, k if v is None else v))
    in_k, in_v = layout(k), layout(v)

    block_d = max(16, next_power_of_2(head_dim - value_dim if shared else head_dim))
    block_e = max(16, next_power_of_2(value_dim))
    most_rows = max(16, min(_ROWS, _RESULTS // block_e))
    block_h = min(next_power_of_2(group), most_rows)
    block_n = min(max(next_power_of_2(num_queries), 16 // block_h), most_rows // block_h)
    rows = block_h * block_n
    tiles = num_kv_heads * triton.cdiv(group, block_h) * triton.cdiv(num_queries, block_n)
    bytes_per_token = k.itemsize * (block_d + block_e)
    room = shared_memory(k.device) - rows * bytes_per_token  # the queries stay there
    num_rows, num_cached = batch * tiles, positions(k, v)
    plan = blocks(
        rows, bytes_per_token, k.itemsize, num_rows, num_cached, k.device, choices=_BLOCKS_AND_STAGES, room=room
    )
    if block_e * rows > 8192:
        plan["num_warps"] = 8
    shape = (batch, num_queries, num_heads, value_dim)
    parts = Parts.planned(plan, bytes_per_token, num_rows, num_cached, shape, k.device)
    lengths = lengths.to(torch.int64)
    _dense_decode_fwd_kernel[(parts.splits, tiles, batch)](
        q.contiguous(),
        k,
        v,
        lengths,
        parts.out,
        parts.top,
        parts.total,
        k.stride(0) // in_k[2],
        v.stride(0) // in_v[2],
        parts.splits,
        scale * math.log2(math.e),
        NUM_QUERIES=num_queries,
        NUM_HEADS=num_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        VALUE_DIM=value_dim,
        K=in_k,
        V=in_v,
        SHARED=shared,
        BLOCK_N=block_n,
        BLOCK_H=block_h,
        BLOCK_D=block_d,
        BLOCK_E=block_e,
        PRECISION="ieee" if k.dtype == torch.float32 else "tf32",
        **plan,
        **early_start(k.device),
    )
    return parts.merge(lengths, plan["BLOCK_M"], 1.0, q.dtype)


@flash_decode.register_fake
def _(q, k, v, value_dim, lengths, scale):  # type: ignore[no-untyped-def]
    return q.new_empty(*q.shape[:3], value_dim)
