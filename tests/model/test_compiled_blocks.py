"""Models as training compiles them: one graph for all blocks, the last sum of each formed by the next."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from lit_t6.model import t6

from .captured import capture_blocks
from .test_recompute import check_equal, draw, make_model, step

GRAPHS = 2
"""All blocks; the last sum and the norm. The embedding is compiled on a GPU alone: a CPU would add in any order."""


@pytest.fixture
def counter(monkeypatch):
    """Counts graphs, which run as they are."""
    counter = CompileCounterWithBackend("aot_eager")
    capture_blocks(monkeypatch, counter)
    return counter


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("mechanism", ["TPA", "MHA"])
def test_blocks_are_one_graph_and_learn_the_same(mechanism, mixed, counter):
    model = make_model(mechanism)
    assert len(model.blocks) > 1
    expected = step(model, mixed=mixed)
    check_equal(step(model, mixed=mixed, compiled=True), expected)
    assert counter.frame_count == GRAPHS


def test_validation_compiles_as_much(counter):
    model = make_model()
    tokens, targets, _ = draw()
    with torch.no_grad():
        assert torch.equal(model.loss(tokens, targets, compiled=True), model.loss(tokens, targets))
    assert counter.frame_count == GRAPHS


def test_a_hook_is_given_what_a_block_gives(counter):
    model = make_model()
    tokens, targets, _ = draw()
    seen = []
    model.blocks[0].register_forward_hook(lambda _block, _given, result: seen.append(result))
    plain = model.loss(tokens, targets)
    compiled = model.loss(tokens, targets, compiled=True)
    assert torch.equal(compiled, plain)
    assert torch.equal(*seen)


def test_a_block_of_another_kind_is_called(counter):
    class Skipped(t6.Block):
        def forward(self, x, *_):
            return x

    model = make_model()
    tokens, targets, _ = draw()
    model.blocks[1] = Skipped(model.config)
    with torch.no_grad():
        plain = model.loss(tokens, targets)
        assert torch.equal(model.loss(tokens, targets, compiled=True), plain)


def test_a_hook_on_all_modules_is_told_of_blocks(counter):
    model = make_model()
    tokens, targets, _ = draw()
    seen = []
    hook = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        model.loss(tokens, targets, compiled=True)
    finally:
        hook.remove()
    assert seen.count(t6.Block) == len(model.blocks)
