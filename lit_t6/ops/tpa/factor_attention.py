"""Attention over a whole sequence that keeps factors for its way back, and neither queries nor keys nor values.

The rank sums are made again on the way back, by one kernel that writes what it takes little time to write: kept are
(Rq + Rk + Rv)(H + D) numbers of a token where 3·H·D were, beside the result
and a logarithm a head, and there are no second derivatives.

Letters: B batch, T positions, R rank, H heads, D head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_t6.ops import fused
from lit_t6.ops.device import no_gpu
from lit_t6.ops.tpa.factors import MAX_BATCH, MAX_HEADS, MAX_RANK, MAX_SIZE, SIZE_MULTIPLE
from lit_t6.ops.tpa.heads import Pair, Tables, form_heads, form_heads_backward

_LETTERS = "qkv"


def why_not(*factors: Tensor | None) -> str | None:
    """Why `factor_attention` cannot take six factors of a sequence, or None if it can.

    Args:
        factors: a_q, b_q, a_k, b_k, a_v, b_v; where an a is None, the b are dense heads.
    """
    pairs = list(zip(_LETTERS, factors[::2], factors[1::2], strict=True))
    heads = {letter: b.shape[2] if a is None else a.shape[3] for letter, a, b in pairs if b is not None}
    sizes = {letter: b.shape[3] for letter, _, b in pairs if b is not None}
    there = [x for x in factors if x is not None]
    device, dtype = there[0].device, there[0].dtype
    if problem := no_gpu(device):
        return problem
    if len({x.dtype for x in there}) > 1:
        return f"factors of {', '.join(sorted({str(x.dtype) for x in there}))}, expected one type"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"factors of {dtype}, expected one of float32, float16, bfloat16"
    if len(set(heads.values())) > 1 or len(set(sizes.values())) > 1:
        return f"heads {heads} of sizes {sizes}, expected as many and as large ones of queries, keys and values"
    if max(heads.values()) > MAX_HEADS or max(sizes.values()) > MAX_SIZE:
        return f"{heads['q']} heads of {sizes['q']}, at most {MAX_HEADS} of {MAX_SIZE}"
    if not fused.usable(dtype, device):
        return f"no fused attention for {dtype} on {device}"
    if there[0].shape[0] > MAX_BATCH:
        return f"{there[0].shape[0]} sequences, at most {MAX_BATCH}"
    if not there[0].shape[0] or not there[0].shape[1]:
        return "nothing to attend to"
    if device.type == "cuda" and sizes["q"] % SIZE_MULTIPLE:
        return f"heads of {sizes['q']}, expected a multiple of {SIZE_MULTIPLE}"
    if device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        return "deterministic algorithms were asked for, which not all of its ways back are"
    ranks = [a.shape[2] for _, a, _ in pairs if a is not None]
    if max(ranks, default=0) > MAX_RANK:
        return f"rank {max(ranks)}, at most {MAX_RANK}"
    return None


def factor_attention(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor | None,
    b_k: Tensor,
    a_v: Tensor | None,
    b_v: Tensor,
    rope: Tables = None,
    scale: float | None = None,
) -> Tensor:
    """Causal attention of every head over the whole sequence, differentiable.

    Args:
        a_q: (B, T, Rq, H); None for dense queries.
        b_q: (B, T, Rq, D), or dense queries (B, T, H, D), which are not turned here.
        a_k: as for the queries, and the others alike.
        b_k: likewise.
        a_v: likewise; never turned.
        b_v: likewise.
        rope: cosines and sines (T, D / 2) or (B, T, D / 2) by which b_q and b_k are turned; None if they are already,
            as factors are of which only some features turn.
        scale: of the logits; 1/√D if not given.

    Returns:
        (B, T, H, D).
    """
    cos, sin = (None, None) if rope is None else rope
    factor = b_q.shape[-1] ** -0.5 if scale is None else scale
    return _factor_attention(a_q, b_q, a_k, b_k, a_v, b_v, cos, sin, factor)[0]


def tables(cos: Tensor | None, sin: Tensor | None) -> Tables:
    """Both, or none."""
    return None if cos is None or sin is None else (cos, sin)


def attend(
    pairs: Sequence[Pair], rope: Tables, scale: float, turns_dense: bool = False, num_heads: int | None = None
) -> tuple[Tensor, Tensor]:
    """Attention by factors, without gradients: the result and the logarithms of sums of exponentials.

    Args:
        pairs: of queries, keys and values, as of `form_heads`.
        rope: likewise.
        scale: of the logits.
        turns_dense: as of `form_heads`.
        num_heads: likewise.
    """
    q, k, v = form_heads(pairs, rope, turns_dense, num_heads)
    return fused.attend(q, k, v, scale, fused.backend_for(q))


def attend_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    pairs: Sequence[Pair],
    rope: Tables,
    scale: float,
    into: Sequence[Pair] | None = None,
    turns_dense: bool = False,
    num_heads: int | None = None,
) -> Sequence[Pair]:
    """Gradients of `attend`, as `form_heads_backward` gives them.

    Args:
        grad: of the result.
        out: the result.
        lse: the logarithms.
        pairs: as of `attend`.
        rope: likewise.
        scale: likewise.
        into: as of `form_heads_backward`.
        turns_dense: as of `attend`.
        num_heads: likewise.
    """
    q, k, v = form_heads(pairs, rope, turns_dense, num_heads)
    left_as_they_are = pairs[0][0] is None and not turns_dense
    backward = fused.attend_backward if left_as_they_are else fused.attend_backward_in_tiles
    grads = backward(grad, q, k, v, out, lse, scale, fused.backend_for(q))
    return form_heads_backward(grads, pairs, rope, into, turns_dense, num_heads)


@torch.library.custom_op("lit_t6::factor_attention", mutates_args=())
def _factor_attention(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor | None,
    b_k: Tensor,
    a_v: Tensor | None,
    b_v: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return attend(((a_q, b_q), (a_k, b_k), (a_v, b_v)), tables(cos, sin), scale)


@_factor_attention.register_fake
def _(a_q, b_q, a_k, b_k, a_v, b_v, cos, sin, scale):  # type: ignore[no-untyped-def]
    batch, length = b_q.shape[:2]
    heads = b_q.shape[2] if a_q is None else a_q.shape[3]
    lse = b_q.new_empty(batch, heads, length, dtype=torch.float32)
    return b_q.new_empty(batch, length, heads, b_v.shape[-1]), lse


@torch.library.custom_op("lit_t6::factor_attention_backward", mutates_args=())
def _factor_attention_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor | None,
    b_k: Tensor,
    a_v: Tensor | None,
    b_v: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    pairs = ((a_q, b_q), (a_k, b_k), (a_v, b_v))
    (of_aq, of_bq), (of_ak, of_bk), (of_av, of_bv) = (
        (b.new_empty(0) if a is None else a, b)  # an operator gives tensors
        for a, b in attend_backward(grad, out, lse, pairs, tables(cos, sin), scale)
    )
    return of_aq, of_bq, of_ak, of_bk, of_av, of_bv


@_factor_attention_backward.register_fake
def _(grad, out, lse, a_q, b_q, a_k, b_k, a_v, b_v, cos, sin, scale):  # type: ignore[no-untyped-def]
    return tuple(
        out.new_empty(0) if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for x in (a_q, b_q, a_k, b_k, a_v, b_v)
    )


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *factors, cos, sin, scale = inputs
    ctx.save_for_backward(*output, *factors, cos, sin)
    ctx.scale = scale
    ctx.set_materialize_grads(False)


def _back(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    out, lse, *factors, cos, sin = ctx.saved_tensors
    if grad is None:
        return (None,) * 9
    grads = _factor_attention_backward(grad, out, lse, *factors, cos, sin, ctx.scale)
    return *(None if x is None else g for x, g in zip(factors, grads, strict=True)), None, None, None


_factor_attention.register_autograd(_back, setup_context=_keep)
