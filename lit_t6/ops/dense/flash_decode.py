"""Decoding with cached keys and values on a GPU: what the kernels are started with.

Letters: B batch, N new queries, M cached positions, H query heads, G key/value heads, D and E head sizes.
"""

import math

import torch
import triton
from torch import Tensor
from triton import next_power_of_2

from lit_t6.ops.decode_plan import DecodePlan, Plans, key_of
from lit_t6.ops.dense.kernels.decode import _dense_decode_fwd_kernel
from lit_t6.ops.device import on_device, shared_memory
from lit_t6.ops.splits import MAX_LENGTH, MAX_QUERIES, blocks, layout, positions, refusal, splits_of

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
_PLANS = Plans()


def why_not(q: Tensor, k: Tensor, v: Tensor | int) -> str | None:
    """Why the kernel cannot take arguments of `lit_t6.ops.cached_attention`, or None if it can."""
    size = k.shape[-1]
    limits = {"new queries": (q.shape[1], MAX_QUERIES), "cached positions": (k.shape[1], MAX_LENGTH)}
    if isinstance(v, int):
        limits |= {"size of the shared values": (v, MAX_SHARED_SIZE), "features behind them": (size - v, MAX_REST)}
    else:
        limits |= {"head size": (size, MAX_SIZE), "head size of the values": (v.shape[-1], MAX_SIZE)}
    return refusal(limits, k, *([] if isinstance(v, int) else [v]))


def decode_again(q: Tensor, k: Tensor, v: Tensor | int, lengths: Tensor | None, scale: float | None) -> Tensor | None:
    """`lit_t6.ops.cached_attention` of arguments like those of a call before; None if not to be had, see `Plans`."""
    if k.dim() != 4:
        return None
    if lengths is None:
        lengths = torch.full(k.shape[:1], k.shape[1], device=k.device)
    values, size = (None, v) if isinstance(v, int) else (v, None)
    plan = _PLANS.of_known((scale, size), (q, lengths), (k, values))
    return None if plan is None else plan((q, k, k if values is None else values), lengths)


@torch.library.custom_op("lit_t6::dense_decode", mutates_args=())
def flash_decode(
    q: Tensor, k: Tensor, v: Tensor | None, shared_dim: int | None, lengths: Tensor, scale: float | None
) -> Tensor:
    """(B, N, H, E); arguments are those of `lit_t6.ops.cached_attention`, checked there; `v`, or E of shared values."""
    k = k if k.stride(-1) == 1 else k.contiguous()
    v = v if v is None or v.stride(-1) == 1 else v.contiguous()
    q, lengths = q.contiguous(), lengths.to(torch.int64).contiguous()
    key = key_of((scale, shared_dim), (q, lengths), (k, v))
    plan = _PLANS.made(key, lambda: _plan(q, k, v, shared_dim, scale))
    with on_device(k.device):
        return plan((q, k, k if v is None else v), lengths)


def _plan(q: Tensor, k: Tensor, v: Tensor | None, shared_dim: int | None, scale: float | None) -> DecodePlan:
    """How `flash_decode` computes such arguments."""
    batch, num_queries, num_heads, head_dim = q.shape
    num_kv_heads = k.shape[2]
    group = num_heads // num_kv_heads
    shared = v is None
    v = k if v is None else v
    value_dim = v.shape[-1] if shared_dim is None else shared_dim
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
    sizes = blocks(
        rows, bytes_per_token, k.itemsize, num_rows, num_cached, k.device, choices=_BLOCKS_AND_STAGES, room=room
    )
    if block_e * rows > 8192:
        sizes["num_warps"] = 8
    splits = splits_of(sizes, bytes_per_token, num_rows, num_cached, k.device)
    scale = head_dim**-0.5 if scale is None else scale
    return DecodePlan(
        _dense_decode_fwd_kernel,
        tiles=tiles,
        splits=splits,
        shape=(batch, num_queries, num_heads, value_dim),
        dtype=q.dtype,
        device=k.device,
        block_m=sizes["BLOCK_M"],
        scale=1.0,
        values={
            "k_stride_b": k.stride(0) // in_k[2],
            "v_stride_b": v.stride(0) // in_v[2],
            "num_splits": splits,
            "scale": scale * math.log2(math.e),
            "NUM_QUERIES": num_queries,
            "NUM_HEADS": num_heads,
            "GROUP": group,
            "HEAD_DIM": head_dim,
            "VALUE_DIM": value_dim,
            "K": in_k,
            "V": in_v,
            "SHARED": shared,
            "BLOCK_N": block_n,
            "BLOCK_H": block_h,
            "BLOCK_D": block_d,
            "BLOCK_E": block_e,
            "PRECISION": "ieee" if k.dtype == torch.float32 else "tf32",
            **sizes,
        },
    )


@flash_decode.register_fake
def _(q, k, v, shared_dim, lengths, scale):  # type: ignore[no-untyped-def]
    return q.new_empty(*q.shape[:3], v.shape[-1] if shared_dim is None else shared_dim)
