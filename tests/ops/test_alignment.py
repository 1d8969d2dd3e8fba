"""Filling sizes up to what GPUs multiply fast."""

import pytest
import torch
import torch.nn.functional as F

from lit_t6.ops import alignment
from lit_t6.ops.alignment import AlignedLinear, padding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu_nothing_is_filled_up(dtype):
    layer, x = AlignedLinear(7, 13, bias=False).to(dtype), torch.randn(2, 5, 7, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert padding(13, x) == 0
        assert torch.equal(layer(x), F.linear(x, layer.weight))


def test_on_no_device_shapes_are_told():
    assert AlignedLinear(7, 13, bias=False, device="meta")(torch.empty(2, 7, device="meta")).shape == (2, 13)


def test_filled_up_columns_are_not_seen_and_take_no_gradient(monkeypatch):
    monkeypatch.setattr(alignment, "padding", lambda size, x: -size % 64)
    layer, x = AlignedLinear(7, 13, bias=False), torch.randn(2, 5, 7, requires_grad=True)
    leaves, out = (x, layer.weight), layer(x)
    assert out.shape == (2, 5, 13)
    assert out.stride(-2) == 64
    plain = F.linear(*leaves)
    torch.testing.assert_close(out, plain)
    towards = torch.randn_like(out)
    found, expected = (torch.autograd.grad(y, leaves, towards) for y in (out, plain))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.gpu
def test_on_a_gpu_odd_sizes_are_filled_up_in_training_in_half_precision_only():
    x = torch.zeros(1, 1, device="cuda")
    assert padding(13, x) == 0
    with torch.autocast("cuda", torch.bfloat16):
        assert padding(13, x) == 51
        assert padding(2736, x) == 0  # 16 bytes do
        with torch.no_grad():
            assert padding(13, x) == 0
    assert padding(13, x.bfloat16()) == 51
