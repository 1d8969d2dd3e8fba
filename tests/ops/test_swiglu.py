"""The feed-forward's second half: float32 under Triton's interpreter on a CPU, every type on a GPU."""

import pytest
import torch
import torch.nn.functional as F

from lit_t6.ops import swiglu
from lit_t6.ops.swiglu import swiglu_linear
from lit_t6.testing import assert_as_exact_as

from .seeds import INTERPRETED

SHAPES = [((3, 5, 42), 11), ((7, 2), 1), ((2, 2 * 5000), 3), ((1, 1, 128), 64), ((5, 2 * 700), 8)]


def plain(both, weight):
    gate, value = both.chunk(2, dim=-1)
    return F.linear(F.silu(gate) * value, weight)


def run(function, both, weight, dtype):
    leaves = [x.to(dtype).requires_grad_() for x in (both, weight)]
    out = function(*leaves)
    towards = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out).to(dtype)
    return out.detach(), *torch.autograd.grad(out, leaves, towards)


def check(shape, width, dtype, device):
    torch.manual_seed(shape[-1])
    both = 3 * torch.randn(shape, dtype=torch.float64, device=device)
    weight = torch.randn(width, shape[-1] // 2, dtype=torch.float64, device=device)
    both, weight = both.to(dtype).double(), weight.to(dtype).double()
    exact, reference = (run(plain, both, weight, kind) for kind in (torch.float64, dtype))
    for name, *each in zip(
        ("out", "both", "weight"), run(swiglu_linear, both, weight, dtype), reference, exact, strict=True
    ):
        assert_as_exact_as(*each, name)


@INTERPRETED
@pytest.mark.parametrize(("shape", "width"), SHAPES)
def test_result_and_gradients_are_as_exact_as_the_products(shape, width):
    check(shape, width, torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("shape", "width"), [*SHAPES, ((20, 1024, 2 * 2736), 1024)])
def test_the_same_on_a_gpu(shape, width, dtype):
    check(shape, width, dtype, "cuda")


@INTERPRETED
def test_more_features_than_32_bits_count(monkeypatch):
    monkeypatch.setattr(swiglu, "_SHORT", 0)
    check((3, 5, 2000), 11, torch.float32, "cpu")


@INTERPRETED
def test_one_token_and_none():
    weight = torch.randn(4, 5)
    for shape in ((10,), (0, 10), (2, 0, 10)):
        both = torch.randn(shape)
        torch.testing.assert_close(swiglu_linear(both, weight), plain(both, weight))


@INTERPRETED
def test_autocast_gives_its_type_and_gradients_of_the_arguments():
    both, weight = torch.randn(6, 10, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    exact = torch.autograd.grad(plain(both, weight).sum(), (both, weight))
    with torch.autocast("cpu", torch.bfloat16):
        out = swiglu_linear(both, weight)
    assert out.dtype == torch.bfloat16
    for actual, expected in zip(torch.autograd.grad(out.float().sum(), (both, weight)), exact, strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected, rtol=0.05, atol=0.05)


@INTERPRETED
def test_the_operators_keep_what_is_promised_of_operators():
    both, weight = torch.randn(6, 10, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    torch.library.opcheck(swiglu._swiglu_linear, (both, weight))


@INTERPRETED
def test_gates_and_values_alone_are_kept():
    kept = []
    both, weight = torch.randn(6, 10, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda _: None):
        swiglu_linear(both, weight)
    assert sorted(kept) == [20, 60]
