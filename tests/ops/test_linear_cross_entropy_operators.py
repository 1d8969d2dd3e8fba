"""Operators of the cross-entropy in chunks: what they form and keep, what compilers make of them, what is refused."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lit_t6.ops import linear_cross_entropy
from lit_t6.ops.linear_cross_entropy import chunks
from lit_t6.ops.linear_cross_entropy.chunks import chunk_size, over_chunks
from lit_t6.ops.linear_cross_entropy.operators import (
    _cross_entropy_each_backward,
    cross_entropy_each,
    cross_entropy_sum,
)

from .cross_entropy_problems import REDUCTIONS, draw, run
from .seeds import INTERPRETED, QUIET

pytestmark = QUIET


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("needed", [0, 1])
def test_one_gradient_alone(needed, reduction):
    hidden, weight, targets = draw((150,), 8, 33)
    both = run(hidden, weight, targets, torch.float64, reduction)
    leaves = [hidden.clone(), weight.clone()]
    leaves[needed].requires_grad_()
    loss = linear_cross_entropy(*leaves, targets, reduction=reduction)
    towards = torch.linspace(-1, 2, 150, dtype=torch.float64) if reduction == "none" else torch.tensor(0.7).double()
    loss.backward(towards)
    torch.testing.assert_close(leaves[needed].grad, both[("hidden", "weight")[needed]])
    assert leaves[1 - needed].grad is None


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_way_back_can_be_gone_twice_but_not_be_differentiated(reduction):
    hidden, weight, targets = draw((150,), 8, 33)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    loss = linear_cross_entropy(*leaves, targets, reduction=reduction).sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(3 * loss, leaves, retain_graph=True)
    torch.testing.assert_close([3 * x for x in first], list(second))
    with pytest.raises(RuntimeError, match="has no second derivatives .* use impl='reference'"):
        torch.autograd.grad(loss, leaves, create_graph=True)


@pytest.mark.usefixtures("small_chunks")
def test_without_gradients_none_are_formed():
    hidden, weight, targets = draw((150,), 8, 33)
    hidden.requires_grad_()
    with torch.no_grad():
        for reduction in REDUCTIONS:
            assert not linear_cross_entropy(hidden, weight, targets, reduction=reduction).requires_grad
    _, *grads = cross_entropy_sum(hidden, weight, targets, -100, torch.float64, False, False, False)
    assert [x.numel() for x in grads] == [0, 0]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kernel", [False, pytest.param(True, marks=INTERPRETED)])
def test_the_logits_of_all_tokens_are_never_there(kernel):
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.numbers = max(self.numbers, out.numel())
            return out

    hidden, weight, targets = draw((1000,), 8, 97)
    with Largest() as largest:
        over_chunks(hidden.float(), weight.float(), targets, -100, torch.float32, kernel, True, True)
    assert largest.numbers < hidden.shape[0] * weight.shape[0]


@pytest.mark.parametrize("num_tokens", [1, 127, 128, 1024, 1025, 5000, 16384, 10**6])
@pytest.mark.parametrize("vocabulary", [2, 50304, 128256, 10**6])
def test_chunks_keep_to_the_memory_and_are_even(num_tokens, vocabulary):
    size = chunk_size(num_tokens, 2 * vocabulary)
    assert size == num_tokens or size % 128 == 0
    assert size <= max(1024, chunks.MAX_BYTES // (2 * vocabulary))
    number = -(-num_tokens // size)
    assert num_tokens - (number - 1) * size > size - 128 * number


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kernel", [False, pytest.param(True, marks=INTERPRETED)])
def test_the_operators_are_registered_rightly(kernel):
    hidden, weight, targets = draw((140,), 8, 33)
    leaves = [hidden.float().requires_grad_(), weight.float().requires_grad_()]
    settings = (-100, torch.float32, kernel)
    torch.library.opcheck(cross_entropy_sum, (*leaves, targets, *settings, True, True))
    torch.library.opcheck(cross_entropy_sum, (leaves[0], weight.float(), targets, *settings, True, False))
    torch.library.opcheck(cross_entropy_each, (*leaves, targets, *settings))
    plain = (torch.randn(140), hidden.float(), weight.float(), targets, *settings)
    torch.library.opcheck(_cross_entropy_each_backward, (*plain, True, True))
    torch.library.opcheck(_cross_entropy_each_backward, (*plain, False, True))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_compiler_takes_it_whole(reduction, autocast):
    problem = draw((140,), 8, 33)
    leaves = [x.float().requires_grad_() for x in problem[:2]]

    def loss_and_more(hidden, weight, targets):
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            return linear_cross_entropy(hidden * 2, weight, targets, reduction=reduction).square().sum()

    found = []
    for function in (loss_and_more, torch.compile(loss_and_more, fullgraph=True, backend="aot_eager")):
        loss = function(*leaves, problem[2])
        found.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(reduction="max"), "reduction='max', expected one of mean, sum, none"),
        (dict(weight=torch.zeros(33, 7)), r"weight: shape \(33, 7\), expected \(V, C\) with the C of hidden, \(4, 8\)"),
        (dict(targets=torch.zeros(5).long()), r"targets: shape \(5,\), expected \(4,\)"),
        (dict(targets=torch.zeros(4)), "targets: torch.float32, expected integers"),
        (dict(weight=torch.zeros(33, 8).double()), "weight: torch.float64, expected torch.float32 as hidden is"),
        (dict(impl="cuda"), "impl='cuda' is not an implementation"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = dict(hidden=torch.zeros(4, 8), weight=torch.zeros(33, 8), targets=torch.zeros(4).long()) | change
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**arguments)


def test_what_the_kernel_cannot_is_said(monkeypatch):
    arguments = torch.zeros(4, 8).double(), torch.zeros(33, 8).double(), torch.zeros(4).long()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match=r"cannot take the cross-entropy of this: logits of torch.float64, expected"):
        linear_cross_entropy(*arguments, impl="triton")
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="tensors on cpu, expected a GPU"):
        linear_cross_entropy(*arguments, impl="triton")
