"""Filling sizes up to what GPUs multiply fast."""

import pytest
import torch
import torch.nn.functional as F

from lit_t6.ops import alignment
from lit_t6.ops.alignment import aligned_linear, padding


def test_on_a_cpu_nothing_is_filled_up():
    x, weight = torch.randn(2, 5, 7), torch.randn(13, 7)
    assert padding(13, x) == 0
    assert torch.equal(aligned_linear(x, weight), F.linear(x, weight))


def test_filled_up_columns_are_not_seen_and_take_no_gradient(monkeypatch):
    monkeypatch.setattr(alignment, "padding", lambda size, x: -size % 64)
    x, weight = torch.randn(2, 5, 7, requires_grad=True), torch.randn(13, 7, requires_grad=True)
    out = aligned_linear(x, weight)
    assert out.shape == (2, 5, 13)
    assert out.stride(-2) == 64
    torch.testing.assert_close(out, F.linear(x, weight))
    towards = torch.randn_like(out)
    found = torch.autograd.grad(out, (x, weight), towards)
    for mine, theirs in zip(found, torch.autograd.grad(F.linear(x, weight), (x, weight), towards), strict=True):
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
