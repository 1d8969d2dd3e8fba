"""SwiGLU at widths that GPUs do not like."""

import torch

from lit_t6.model import feed_forward
from lit_t6.model.feed_forward import SwiGLU


def test_hidden_features_filled_up_change_nothing(monkeypatch):
    torch.manual_seed(0)
    module, x = SwiGLU(12, 21).double(), torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    torch.nn.init.normal_(module.out.weight)
    leaves = (x, *module.parameters())
    found = []
    for fill in (0, 43):
        monkeypatch.setattr(feed_forward, "padding", lambda width, x, fill=fill: fill)
        out = module(x)
        found.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    for plain, filled in zip(*found, strict=True):
        torch.testing.assert_close(filled, plain)


def test_layers_that_somebody_looks_at_are_called(monkeypatch):
    monkeypatch.setattr(feed_forward, "padding", lambda width, x: 43)
    module, seen = SwiGLU(12, 21), []
    module.out.register_forward_hook(lambda *_: seen.append("forward"))
    module(torch.randn(2, 12))
    assert seen == ["forward"]


def test_layers_whose_gradients_somebody_looks_at_are_called(monkeypatch):
    monkeypatch.setattr(feed_forward, "padding", lambda width, x: 43)
    module, seen = SwiGLU(12, 21), []
    module.out.register_full_backward_hook(lambda *_: seen.append("back"))
    module(torch.randn(2, 12)).sum().backward()
    assert seen == ["back"]
