"""Attention over dense heads by the backend that was measured: as an operator on a CPU, every backend on a GPU."""

import pytest
import torch
import torch.nn.functional as F

from lit_t6.ops import dense_attention, fused
from lit_t6.ops.dense.causal import _causal_attention, causal_attention, is_for
from lit_t6.testing import assert_as_exact_as


def by_pytorch(q, k, v, scale=None):
    out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True, scale=scale)
    return out.transpose(1, 2)


def cut_out(batch=2, length=9, heads=3, size=16, **options):
    """Queries, keys and values as a projection leaves them: columns of one matrix."""
    return torch.randn(batch, length, 3, heads, size, **options).requires_grad_().unbind(2)


def run(function, heads, dtype, scale=0.3):
    leaves = [x.detach().to(dtype).requires_grad_() for x in heads]
    out = function(*leaves, scale)
    towards = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out).to(dtype)
    return {"out": out.detach()} | dict(zip("qkv", torch.autograd.grad(out, leaves, towards), strict=True))


def test_equals_pytorchs_own():
    torch.manual_seed(0)
    heads = cut_out()
    for scale in (None, 0.3):
        expected, found = (run(f, heads, torch.float32, scale) for f in (by_pytorch, causal_attention))
        for name in expected:
            assert torch.equal(found[name], expected[name]), name


def test_autocast_decides_the_type():
    heads = cut_out()
    with torch.autocast("cpu", torch.bfloat16):
        out = causal_attention(*heads)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, by_pytorch(*heads))
    (grad,) = torch.autograd.grad(out.sum(), heads[0])
    assert grad.dtype == torch.float32


def test_the_operator_is_registered_rightly():
    torch.manual_seed(0)
    torch.library.opcheck(_causal_attention, (*cut_out(), 0.3))


def test_a_compiler_takes_it_whole():
    torch._dynamo.reset()
    torch.manual_seed(0)
    heads = cut_out()
    compiled = torch.compile(causal_attention, fullgraph=True, backend="aot_eager")
    expected, found = (run(f, heads, torch.float32) for f in (causal_attention, compiled))
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_a_cpu_is_left_to_pytorch():
    assert not is_for(*cut_out())


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cudnn", "hopper", "flash", "efficient"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_all_backends_are_as_exact_as_pytorchs_choice(backend, dtype, monkeypatch):
    if backend not in fused.usable(dtype, torch.device("cuda", 0)):
        pytest.skip(f"{backend} is not for this GPU")
    torch.manual_seed(0)
    monkeypatch.setattr(fused, "fastest", lambda *_: backend)
    heads = cut_out(2, 200, 7, 64, dtype=torch.float64, device="cuda")
    exact, reference = run(by_pytorch, heads, torch.float64), run(by_pytorch, heads, dtype)
    for name, value in run(causal_attention, heads, dtype).items():
        assert_as_exact_as(value, reference[name], exact[name], name)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_it_is_for_training_in_half_precision(compiled, monkeypatch):
    torch._dynamo.reset()
    asked = []
    monkeypatch.setattr(fused, "fastest", lambda shape, *_: asked.append(shape) or "flash")
    attend = torch.compile(dense_attention, fullgraph=True) if compiled else dense_attention
    with torch.autocast("cuda", torch.bfloat16):
        heads = cut_out(length=100, device="cuda")
        out = attend(*heads)
        assert asked == [(2, 128, 3, 16)]
        out.float().sum().backward()
        assert len(asked) == 2
        ids = torch.zeros(2, 100, dtype=torch.int64, device="cuda")
        attend(*heads, document_ids=ids)
        attend(heads[0], *(x[:, :, :1] for x in heads[1:]))  # key heads that are shared
        with torch.no_grad():
            attend(*heads)
    attend(*heads)  # float32
    assert len(asked) == 2
