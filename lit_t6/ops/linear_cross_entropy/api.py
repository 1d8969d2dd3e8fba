"""The way in: checks the arguments, chooses the implementation, runs it."""

from typing import get_args

import torch
from torch import Tensor

from lit_t6.ops.implementation import HAS_TRITON, Impl, check_impl
from lit_t6.ops.linear_cross_entropy.chunks import too_large
from lit_t6.ops.linear_cross_entropy.operators import cross_entropy_each, cross_entropy_sum
from lit_t6.ops.linear_cross_entropy.reference import Reduction, linear_cross_entropy_reference


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    impl: Impl = "auto",
) -> Tensor:
    """Cross-entropy, in nats, of a linear layer's logits, without all logits at once; README.md has the derivation.

    Matrix products are in autocast's type where autocast is on, else in that of the arguments; what follows is in
    float32 at least. Gradients come in the types of the arguments. They can be taken once: second derivatives are the
    reference's alone.

    Args:
        hidden: (…, C).
        weight: (V, C).
        targets: (…), integers; -100 or whatever `ignore_index` says is not counted.
        ignore_index: the target that is not counted: its loss and its gradient are 0.
        reduction: "mean" over the counted targets, NaN if there are none; "sum"; or "none": (…), 0 where ignored. The
            gradients of the first two are made with the loss. Those of "none" take the logits a second time.
        impl: "reference" forms all logits; "triton" those of a chunk of tokens at a time and a kernel for what follows;
            "auto" on a GPU "triton", elsewhere chunks in plain PyTorch if all logits are more than `chunks.MAX_BYTES`,
            and else the reference.

    Returns:
        The loss, float32 at least. By the kernel, it is NaN where a target is none of the V, nor ignored.

    Raises:
        ValueError: shapes or types that do not fit together, an unknown reduction or `impl`, or what the "triton" one
            cannot take, with the reason.
    """
    check_impl(impl)
    _check(hidden, weight, targets, reduction)
    targets = targets.long()
    dtype = _working_type(hidden, weight)
    kernel = impl == "triton" or (impl == "auto" and hidden.is_cuda)
    problem = _kernel_cannot(hidden.device, dtype) if kernel else None
    if problem is not None:
        if impl == "triton":
            raise ValueError(f"impl='triton' cannot take the cross-entropy of this: {problem}. Use impl='auto'.")
        kernel = False
    chunked = kernel or too_large(targets.numel(), weight.shape[0], dtype)
    if impl == "reference" or not chunked or not targets.numel():
        return linear_cross_entropy_reference(hidden, weight, targets, ignore_index=ignore_index, reduction=reduction)
    return _in_chunks(hidden, weight, targets, ignore_index, reduction, dtype, kernel)


def _in_chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    ignore_index: int,
    reduction: Reduction,
    dtype: torch.dtype,
    kernel: bool,
) -> Tensor:
    rows, flat = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if reduction == "none":
        return cross_entropy_each(rows, weight, flat, ignore_index, dtype, kernel).view(targets.shape)
    need = [torch.is_grad_enabled() and x.requires_grad for x in (hidden, weight)]
    total = cross_entropy_sum(rows, weight, flat, ignore_index, dtype, kernel, *need)[0]
    if reduction == "sum":
        return total
    count = (flat != ignore_index).sum()
    # Not divided by 0: the gradients of a mean of nothing are 0, as the reference's are.
    return torch.where(count > 0, total / count.clamp(min=1), float("nan"))


def _working_type(hidden: Tensor, weight: Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and torch.float64 not in (hidden.dtype, weight.dtype):
        return torch.get_autocast_dtype(device)
    if hidden.dtype != weight.dtype:
        raise ValueError(f"weight: {weight.dtype}, expected {hidden.dtype} as hidden is, or autocast to be on.")
    return hidden.dtype


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, reduction: str) -> None:
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction={reduction!r}, expected one of {', '.join(get_args(Reduction))}.")
    if weight.ndim != 2 or hidden.shape[-1:] != weight.shape[1:]:
        raise ValueError(
            f"weight: shape {tuple(weight.shape)}, expected (V, C) with the C of hidden, {tuple(hidden.shape)}."
        )
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(f"targets: shape {tuple(targets.shape)}, expected {tuple(hidden.shape[:-1])}.")
    if targets.is_floating_point():
        raise ValueError(f"targets: {targets.dtype}, expected integers.")


def _kernel_cannot(device: torch.device, dtype: torch.dtype) -> str | None:
    if not HAS_TRITON:
        return "Triton is not installed"
    from lit_t6.ops.linear_cross_entropy.kernel import why_not

    return why_not(device, dtype)
