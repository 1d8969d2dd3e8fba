"""The operators and their ways back, for autograd and compilers.

Letters: N tokens, C width of the hidden states, V vocabulary.
"""

import torch
from torch import Tensor

from lit_t6.ops.linear_cross_entropy.chunks import kept_type, over_chunks
from lit_t6.ops.linear_cross_entropy.rows import wide


@torch.library.custom_op("lit_t6::cross_entropy_sum", mutates_args=())
def cross_entropy_sum(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ignore_index: int,
    dtype: torch.dtype,
    kernel: bool,
    need_hidden: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the losses, and its gradients, which are made on the way forward; arguments as of `over_chunks`."""
    losses, *grads = over_chunks(hidden, weight, targets, ignore_index, dtype, kernel, need_hidden, need_weight)
    return losses.sum(), grads[0], grads[1]


@cross_entropy_sum.register_fake
def _(hidden, weight, targets, ignore_index, dtype, kernel, need_hidden, need_weight):  # type: ignore[no-untyped-def]
    return (
        hidden.new_empty((), dtype=wide(dtype)),
        torch.empty(hidden.shape if need_hidden else (0,), dtype=kept_type(hidden.dtype), device=hidden.device),
        torch.empty(weight.shape if need_weight else (0,), dtype=wide(dtype), device=hidden.device),
    )


def _keep_grads(ctx, inputs, output):  # type: ignore[no-untyped-def]
    hidden, weight, *_, need_hidden, need_weight = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])
    ctx.types = (hidden.dtype if need_hidden else None, weight.dtype if need_weight else None)
    ctx.set_materialize_grads(False)


def _scale_grads(ctx, grad, *_):  # type: ignore[no-untyped-def]
    _refuse_second_derivatives()
    if grad is None:
        return (None,) * 8
    kept = zip(ctx.saved_tensors, ctx.types, strict=True)
    # A number without axes would be rounded to the type of a half one before it multiplies.
    grads = [None if dtype is None else (x.to(wide(x.dtype)) * grad).to(dtype) for x, dtype in kept]
    return *grads, *(None,) * 6


cross_entropy_sum.register_autograd(_scale_grads, setup_context=_keep_grads)


@torch.library.custom_op("lit_t6::cross_entropy_each", mutates_args=())
def cross_entropy_each(
    hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, dtype: torch.dtype, kernel: bool
) -> Tensor:
    """Losses of the tokens (N,); arguments as of `over_chunks`. The way back forms the logits again."""
    return over_chunks(hidden, weight, targets, ignore_index, dtype, kernel)[0]


@cross_entropy_each.register_fake
def _(hidden, weight, targets, ignore_index, dtype, kernel):  # type: ignore[no-untyped-def]
    return hidden.new_empty(len(hidden), dtype=wide(dtype))


@torch.library.custom_op("lit_t6::cross_entropy_each_backward", mutates_args=())
def _cross_entropy_each_backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ignore_index: int,
    dtype: torch.dtype,
    kernel: bool,
    need_hidden: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor]:
    unit: Tensor | None = None
    if dtype == torch.float16:  # whatever the losses are scaled by, the largest gradient fills the range of the type
        unit = grad.abs().amax()
        grad = grad / torch.where(unit > 0, unit, 1)
    _, *grads = over_chunks(hidden, weight, targets, ignore_index, dtype, kernel, need_hidden, need_weight, grad)
    if unit is not None:
        grads = [x * unit for x in grads]
    return grads[0].to(hidden.dtype), grads[1].to(weight.dtype)


@_cross_entropy_each_backward.register_fake
def _(grad, hidden, weight, *rest):  # type: ignore[no-untyped-def]
    return tuple(
        torch.empty(x.shape if needed else (0,), dtype=x.dtype, device=x.device)
        for x, needed in zip((hidden, weight), rest[-2:], strict=True)
    )


def _keep_inputs(ctx, inputs, output):  # type: ignore[no-untyped-def]
    hidden, weight, targets, *ctx.settings = inputs
    ctx.save_for_backward(hidden, weight, targets)


def _recompute(ctx, grad):  # type: ignore[no-untyped-def]
    _refuse_second_derivatives()
    needed = ctx.needs_input_grad[:2]
    grads = _cross_entropy_each_backward(grad, *ctx.saved_tensors, *ctx.settings, *needed)
    return *(x if need else None for x, need in zip(grads, needed, strict=True)), None, None, None, None


cross_entropy_each.register_autograd(_recompute, setup_context=_keep_inputs)


def _refuse_second_derivatives() -> None:
    if torch.is_grad_enabled():  # only where the way back is itself to be differentiated
        raise RuntimeError(
            "linear_cross_entropy has no second derivatives in chunks of tokens or by the kernel: with "
            "create_graph=True, use impl='reference'."
        )
