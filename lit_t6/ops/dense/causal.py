"""Causal attention over dense heads in training, by the fastest of PyTorch's fused kernels, as measured.

PyTorch itself goes by a fixed order, and would choose while a compiler looks on. An operator chooses when it runs:
nothing is compiled again for it, and what a compiler has cached does not hold it.

Letters: B batch, T positions, H heads, D head size.
"""

import torch
from torch import Tensor

from lit_t6.ops import fused

SIZE_MULTIPLE, MAX_SIZE = 8, 128
"""Sizes of heads that all backends take."""


def is_for(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether these are trained with on a GPU, in half precision, with as many heads of keys as of queries."""
    half = q.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled("cuda")
    size = q.shape[-1]
    return (
        q.is_cuda
        and half
        and torch.is_grad_enabled()
        and (q.requires_grad or k.requires_grad or v.requires_grad)
        and q.shape == k.shape == v.shape
        and q.numel() > 0
        and size <= MAX_SIZE
        and size % SIZE_MULTIPLE == 0
        and not torch.are_deterministic_algorithms_enabled()  # which not all ways back are
        and len(fused.usable(torch.bfloat16, q.device)) > 1
    )


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Causal attention, differentiable once.

    Args:
        q: (B, T, H, D).
        k: likewise.
        v: likewise.
        scale: of the logits; 1/√D if not given.

    Returns:
        (B, T, H, D), in autocast's type where it is on, as of PyTorch's own.
    """
    device = q.device.type
    if torch.is_autocast_enabled(device):  # whose rules do not reach into operators of ours
        q, k, v = (x.to(torch.get_autocast_dtype(device)) for x in (q, k, v))
    return _causal_attention(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)[0]


@torch.library.custom_op("lit_t6::causal_attention", mutates_args=())
def _causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return fused.attend(q, k, v, scale, fused.backend_for(q))


@_causal_attention.register_fake
def _(q, k, v, scale):  # type: ignore[no-untyped-def]
    batch, length, heads, _ = q.shape
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(
        batch, heads, length, dtype=torch.float32
    )


@torch.library.custom_op("lit_t6::causal_attention_backward", mutates_args=())
def _causal_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    grads = fused.attend_backward(grad, q, k, v, out, lse, scale, fused.backend_for(q))
    return grads[0].contiguous(), grads[1].contiguous(), grads[2].contiguous()


@_causal_attention_backward.register_fake
def _(grad, q, k, v, out, lse, scale):  # type: ignore[no-untyped-def]
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, scale = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.scale = scale
    ctx.set_materialize_grads(False)


def _back(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 4
    return *_causal_attention_backward(grad, *ctx.saved_tensors, ctx.scale), None


_causal_attention.register_autograd(_back, setup_context=_keep)
