"""What is computed again on the way back: the same numbers, from less that is kept."""

import gc
from dataclasses import replace

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.model import T6Config, T6Model
from lit_t6.model.recompute import check_recompute
from lit_t6.ops import fused
from lit_t6.ops.dense import packed

from ..ops.seeds import INTERPRETED, QUIET
from .captured import capture_blocks

MECHANISMS = {
    "TPA": TPAConfig(5, 16),
    "TPA-KVonly": TPAConfig(5, 16, factorized="kv"),
    "MHA": MultiHeadConfig(4, None, 16),
    "GQA": MultiHeadConfig(4, 2, 16),
}
HOW = ("selective", "full")


def make_model(mechanism="TPA"):
    torch.manual_seed(0)
    attention = replace(MECHANISMS[mechanism])  # a copy, which a test may change
    model = T6Model(T6Config(97, 32, 48, 2, attention, multiple_of=8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def draw(documents=False, batch=3, length=32):
    torch.manual_seed(1)
    tokens, targets = torch.randint(97, (2, batch, length))
    return tokens, targets, (torch.arange(32) // torch.tensor([[8], [15], [32]]) if documents else None)


def step(model, documents=False, mixed=False, size=(3, 32), **options):
    """Loss and gradients."""
    tokens, targets, ids = draw(documents, *size)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False):
        loss = model.loss(tokens, targets, document_ids=ids, **options)
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.fixture
def _captured(monkeypatch):
    capture_blocks(monkeypatch)


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("documents", [False, True], ids=["one document", "documents"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_loss_and_gradients_are_the_same(mechanism, documents, mixed):
    model = make_model(mechanism)
    expected = step(model, documents, mixed)
    for recompute in HOW:
        check_equal(step(model, documents, mixed, recompute=recompute), expected)


@pytest.mark.usefixtures("_captured")
@pytest.mark.parametrize("mixed", [pytest.param(False, marks=pytest.mark.slow), True], ids=["float32", "mixed"])
@pytest.mark.parametrize("mechanism", ["TPA", "MHA"])
def test_loss_and_gradients_of_compiled_blocks_are_the_same(mechanism, mixed):
    model = make_model(mechanism)
    expected = step(model, True, mixed, compiled=True)
    for recompute in HOW:
        check_equal(step(model, True, mixed, compiled=True, recompute=recompute), expected)


class Formed(TorchDispatchMode):
    """Remembers what is formed, without keeping it."""

    def __init__(self, there):
        super().__init__()
        self.sizes, self.there = {}, {StorageWeakRef(x.untyped_storage()) for x in there}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.sizes[StorageWeakRef(x.untyped_storage())] = x.untyped_storage().nbytes()
        return out

    @property
    def bytes(self):
        """Of what is still there."""
        return sum(size for storage, size in self.sizes.items() if not storage.expired() and storage not in self.there)


def kept_numbers_of_a_token(model, recompute):
    """By all blocks, beside their weights: numbers that are there when the way back begins."""
    tokens = draw()[0]
    x = model.embedding(tokens).detach().requires_grad_()
    tables = [table for block in model.blocks for table in (block.attention.rope.cos, block.attention.rope.sin)]
    with Formed([*model.parameters(), *tables, x]) as formed:
        for block in model.blocks:
            x = block(x, recompute=recompute)
    gc.collect()  # Triton's interpreter leaves circles
    return formed.bytes / 4 / tokens.numel()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_less_is_kept(mechanism):
    model = make_model(mechanism)
    width, attention = 48, model.config.attention
    # Result, its logarithms and the input of the other norm, and the result of the block, of which one is the input
    # of the next.
    of_attention = attention.heads() * (16 + 1)
    few = {"full": width, "selective": width + width + of_attention}
    kept = {recompute: kept_numbers_of_a_token(model, recompute) for recompute in ("none", *HOW)}
    for recompute, numbers in few.items():
        assert kept[recompute] == pytest.approx(2 * numbers)
    assert kept["none"] > 3 * kept["selective"]


@pytest.mark.usefixtures("_captured")
@pytest.mark.slow
def test_compiled_blocks_keep_less():
    model = make_model()
    kept = {}
    for recompute in ("none", *HOW):
        sizes = {}
        step(model, compiled=True, recompute=recompute)  # what is captured is not to be counted

        def count(x, sizes=sizes):
            sizes[x.data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            model.loss(*draw()[:2], compiled=True, recompute=recompute)
        kept[recompute] = sum(sizes.values())
    assert kept["full"] < kept["selective"] < 0.7 * kept["none"]


@INTERPRETED
@pytest.mark.filterwarnings(*[mark.args[0] for mark in QUIET])
@pytest.mark.parametrize("mechanism", ["TPA", "TPA-KVonly"])
def test_what_the_kernels_of_factors_gave_is_kept(monkeypatch, mechanism):
    model = make_model(mechanism)
    for block in model.blocks:
        block.attention.config.impl = "triton"
    expected, calls = step(model, size=(1, 3)), []
    plain = fused.attend
    monkeypatch.setattr(fused, "attend", lambda *arguments: calls.append(1) or plain(*arguments))
    for recompute, times in (("selective", 1), ("full", 2)):
        calls.clear()
        check_equal(step(model, size=(1, 3), recompute=recompute), expected)
        assert len(calls) == times * len(model.blocks)


@INTERPRETED
@pytest.mark.usefixtures("_captured")
@pytest.mark.parametrize("compiled", [False, True])
def test_of_attention_to_packed_rows_no_more_than_its_result_is_kept(monkeypatch, compiled):
    monkeypatch.setattr(packed, "is_for", lambda rows, num_heads: torch.is_grad_enabled())
    model = make_model("MHA")
    expected, calls = step(model, size=(1, 3), compiled=compiled), []
    plain = fused.attend
    monkeypatch.setattr(fused, "attend", lambda *arguments: calls.append(1) or plain(*arguments))
    for recompute, times in (("selective", 1), ("full", 2)):
        calls.clear()
        check_equal(step(model, size=(1, 3), compiled=compiled, recompute=recompute), expected)
        assert len(calls) == times * len(model.blocks)
    if not compiled:
        width, of_attention = 48, 4 * (16 + 1)
        assert kept_numbers_of_a_token(model, "selective") == pytest.approx(2 * (2 * width + of_attention))


def test_validation_and_decoding_are_left_alone(monkeypatch):
    model = make_model()
    monkeypatch.setattr("lit_t6.model.block.recomputed", lambda *_, **__: pytest.fail("nothing is to be recomputed"))
    with torch.no_grad():
        model.loss(*draw()[:2], recompute="full")
    model(draw()[0][:, :4], cache=model.new_cache(3))
    assert len(list(model.generate(draw()[0], 2))) == 2


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="recompute='blocks': expected one of none, selective, full"):
        check_recompute("blocks")
