"""Hidden states, weights and targets, and how cross-entropies of them are compared."""

import pytest
import torch

from lit_t6.ops import linear_cross_entropy
from lit_t6.testing import assert_as_exact_as

from .seeds import INTERPRETED

REDUCTIONS = ("mean", "sum", "none")
WAYS = ("auto", pytest.param("triton", marks=INTERPRETED))
"""With chunks this small, "auto" on a CPU is chunks in plain PyTorch."""


def draw(shape, width, vocabulary, ignored=0.2, spread=3.0, device="cpu"):
    """Hidden states and weight in float64, and targets; logits have a standard deviation of `spread`."""
    hidden = torch.randn(*shape, width, dtype=torch.float64, device=device)
    weight = torch.randn(vocabulary, width, dtype=torch.float64, device=device) * (spread * width**-0.5)
    targets = torch.randint(vocabulary, shape, device=device)
    targets[torch.rand(shape, device=device) < ignored] = -100
    return hidden, weight, targets


def run(hidden, weight, targets, dtype, reduction="mean", autocast=None, upstream=1.0, **options):
    """Loss, and gradients of its product with something in the place of what comes behind it.

    `dtype` is of hidden states and weight, or a pair of them.
    """
    dtypes = dtype if isinstance(dtype, tuple) else (dtype, dtype)
    leaves = [x.detach().to(kind).requires_grad_() for x, kind in zip((hidden, weight), dtypes, strict=True)]
    with torch.autocast(hidden.device.type, dtype=autocast, enabled=autocast is not None):
        loss = linear_cross_entropy(*leaves, targets, reduction=reduction, **options)
    towards = torch.linspace(-1, 2, loss.numel(), dtype=torch.float64) if loss.ndim else torch.tensor(0.7).double()
    towards = (towards * upstream).view(loss.shape).to(loss)
    grads = torch.autograd.grad(loss, leaves, towards)
    return {"loss": loss.detach(), "hidden": grads[0], "weight": grads[1]}


def check(problem, dtype, reduction, impl, **options):
    exact = run(*problem, torch.float64, reduction, **options | {"autocast": None}, impl="reference")
    reference = run(*problem, dtype, reduction, **options, impl="reference")
    actual = run(*problem, dtype, reduction, **options, impl=impl)
    for name in exact:
        assert_as_exact_as(actual[name], reference[name], exact[name], name)
    ignored = problem[2] == -100
    assert not actual["hidden"][ignored].any()
    assert reduction != "none" or not actual["loss"][ignored].any()
