"""`factor_attention` of factors that lie beside each other in the rows of one matrix product, as they are trained.

Its gradient is one matrix of the same rows, which the kernel writes in place: gradients of six slices would be copied
into it. Dense queries lie there too, and are turned by the same kernels.

Letters: B batch, T positions, C columns, R rank, H heads, D head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_t6.ops.tpa.factor_attention import attend, attend_backward, tables
from lit_t6.ops.tpa.heads import Tables
from lit_t6.ops.tpa.packed_rows import cut


def packed_attention(
    rows: Tensor,
    ranks: Sequence[int],
    num_heads: int,
    head_dim: int,
    rope: Tables = None,
    scale: float | None = None,
) -> Tensor:
    """Causal attention of every head over the whole sequence, differentiable; `why_not` of `cut` says if it can.

    Args:
        rows: (B, T, C), contiguous, as `cut` of `packed_rows` takes them.
        ranks: likewise.
        num_heads: H.
        head_dim: D.
        rope: as of `factor_attention`; turns dense queries too.
        scale: likewise.

    Returns:
        (B, T, H, D).
    """
    cos, sin = (None, None) if rope is None else rope
    factor = head_dim**-0.5 if scale is None else scale
    return _packed_attention(rows, [*ranks], num_heads, head_dim, cos, sin, factor)[0]


@torch.library.custom_op("lit_t6::factor_attention_packed", mutates_args=())
def _packed_attention(
    rows: Tensor,
    ranks: Sequence[int],
    num_heads: int,
    head_dim: int,
    cos: Tensor | None,
    sin: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return attend(cut(rows, ranks, num_heads, head_dim)[0], tables(cos, sin), scale, True, num_heads)


@_packed_attention.register_fake
def _(rows, ranks, num_heads, head_dim, cos, sin, scale):  # type: ignore[no-untyped-def]
    batch, length, _ = rows.shape
    lse = rows.new_empty(batch, num_heads, length, dtype=torch.float32)
    return rows.new_empty(batch, length, num_heads, head_dim), lse


@torch.library.custom_op("lit_t6::factor_attention_packed_backward", mutates_args=())
def _packed_attention_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    rows: Tensor,
    ranks: Sequence[int],
    head_dim: int,
    cos: Tensor | None,
    sin: Tensor | None,
    scale: float,
) -> Tensor:
    num_heads = out.shape[2]
    found = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
    pairs, _ = cut(rows, ranks, num_heads, head_dim)
    into, rest = cut(found, ranks, num_heads, head_dim)
    rest.zero_()
    attend_backward(grad, out, lse, pairs, tables(cos, sin), scale, into, True, num_heads)
    return found


@_packed_attention_backward.register_fake
def _(grad, out, lse, rows, ranks, head_dim, cos, sin, scale):  # type: ignore[no-untyped-def]
    return torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    rows, ctx.ranks, _, ctx.head_dim, cos, sin, ctx.scale = inputs
    ctx.save_for_backward(*output, rows, cos, sin)
    ctx.set_materialize_grads(False)


def _back(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 7
    out, lse, rows, cos, sin = ctx.saved_tensors
    found = _packed_attention_backward(grad, out, lse, rows, ctx.ranks, ctx.head_dim, cos, sin, ctx.scale)
    return found, *(None,) * 6


_packed_attention.register_autograd(_back, setup_context=_keep)
