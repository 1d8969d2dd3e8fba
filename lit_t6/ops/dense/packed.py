"""Causal attention in training over queries, keys and values that lie beside each other in the rows of one projection.

RoPE turns queries and keys in one launch. The gradient is one matrix of the same rows, which one kernel writes in
place: those of three slices would be turned back and copied into it one by one.

Letters: B batch, T positions, H heads, D head size.
"""

import torch
from torch import Tensor

from lit_t6.ops import fused
from lit_t6.ops.dense import causal
from lit_t6.ops.implementation import HAS_TRITON


def is_for(rows: Tensor, num_heads: int) -> bool:
    """Whether rows (B, T, 3·H·D) are trained with as `causal.is_for` says, where kernels can be had."""
    q, k, v = rows.unflatten(-1, (3, num_heads, -1)).unbind(2)
    return HAS_TRITON and causal.is_for(q, k, v)


def packed_causal_attention(
    rows: Tensor,
    num_heads: int,
    rope: tuple[Tensor, Tensor],
    scale: float | None = None,
    copies_values: bool = False,
) -> Tensor:
    """Causal attention with RoPE on queries and keys, differentiable once.

    Args:
        rows: (B, T, 3·H·D): q, k, v, each head-major.
        num_heads: H.
        rope: cosines and sines (T, D / 2) or (B or 1, T, D / 2), float32, as `apply_rope` takes them.
        scale: of the logits; 1/√D if not given.
        copies_values: whether values are copied out of the rows. As views of them they keep 3·H·D numbers of a token
            for the way back; as copies, made by the same launch, H·D.

    Returns:
        (B, T, H, D), in autocast's type where it is on.
    """
    device = rows.device.type
    if torch.is_autocast_enabled(device):  # whose rules do not reach into operators of ours
        rows = rows.to(torch.get_autocast_dtype(device))
    rows = rows.contiguous()
    # An operator of its own, without a gradient: what it gives is not kept where blocks are recomputed.
    q, k, v = _rope_rows(rows.detach(), num_heads, *rope, copies_values)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return _packed(rows, q, k, v if copies_values else None, *rope, factor)[0]


@torch.library.custom_op("lit_t6::rope_rows", mutates_args=())
def _rope_rows(
    rows: Tensor, num_heads: int, cos: Tensor, sin: Tensor, copies_values: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from lit_t6.ops.dense.rope_rows import rope_rows  # needs Triton

    q, k, *v = rope_rows(rows, num_heads, cos, sin, copies_values)
    return q, k, v[0] if v else rows.new_empty(0)


@_rope_rows.register_fake
def _(rows, num_heads, cos, sin, copies_values):  # type: ignore[no-untyped-def]
    heads = (*rows.shape[:2], num_heads, rows.shape[2] // (3 * num_heads))
    return rows.new_empty(heads), rows.new_empty(heads), rows.new_empty(heads if copies_values else 0)


def _values(rows: Tensor, num_heads: int) -> Tensor:
    return rows.unflatten(-1, (3, num_heads, -1)).select(2, 2)


@torch.library.custom_op("lit_t6::causal_attention_packed", mutates_args=())
def _packed(
    rows: Tensor, q: Tensor, k: Tensor, v: Tensor | None, cos: Tensor, sin: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """`q`, `k` and `v` are made of the rows, to which their gradient goes; values are read there if not given."""
    return fused.attend(q, k, _values(rows, q.shape[2]) if v is None else v, scale, fused.backend_for(q))


@_packed.register_fake
def _(rows, q, k, v, cos, sin, scale):  # type: ignore[no-untyped-def]
    batch, length, heads, _ = q.shape
    lse = q.new_empty(batch, heads, length, dtype=torch.float32)
    return torch.empty_like(q, memory_format=torch.contiguous_format), lse


@torch.library.custom_op("lit_t6::causal_attention_packed_backward", mutates_args=())
def _packed_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v_or_rows: Tensor,
    cos: Tensor,
    sin: Tensor,
    scale: float,
) -> Tensor:
    from lit_t6.ops.dense.rope_rows import rope_rows_backward

    v = v_or_rows if v_or_rows.ndim == 4 else _values(v_or_rows, q.shape[2])
    grads = fused.attend_backward_in_tiles(grad, q, k, v, out, lse, scale, fused.backend_for(q))
    return rope_rows_backward(*grads, cos, sin)


@_packed_backward.register_fake
def _(grad, out, lse, q, k, v_or_rows, cos, sin, scale):  # type: ignore[no-untyped-def]
    batch, length, heads, size = q.shape
    return q.new_empty(batch, length, 3 * heads * size)


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    rows, q, k, v, cos, sin, ctx.scale = inputs
    ctx.save_for_backward(*output, q, k, rows if v is None else v, cos, sin)
    ctx.set_materialize_grads(False)


def _back(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    found = None if grad is None else _packed_backward(grad, *ctx.saved_tensors, ctx.scale)
    return found, *(None,) * 6


_packed.register_autograd(_back, setup_context=_keep)
