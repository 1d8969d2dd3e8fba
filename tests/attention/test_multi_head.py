import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lit_t6.attention import MultiHeadConfig
from lit_t6.ops import apply_rope, rope_angles
from lit_t6.ops.dense import packed

from ..ops.seeds import INTERPRETED


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_module_is_the_formula_of_its_weights(kv_heads):
    heads, dim, width, length = 4, 8, 20, 6
    module = MultiHeadConfig(heads, kv_heads, dim).build(width).double()
    torch.nn.init.normal_(module.out.weight)
    x = torch.randn(2, length, width, dtype=torch.float64)

    w_q, w_k, w_v = module.qkv.weight.split([heads * dim, kv_heads * dim, kv_heads * dim])
    q, k, v = ((x @ w.T).unflatten(-1, (-1, dim)) for w in (w_q, w_k, w_v))
    angles = rope_angles(torch.arange(length), dim)
    k, v = (t.repeat_interleave(heads // kv_heads, dim=2) for t in (apply_rope(k, *angles), v))
    logits = torch.einsum("bqhd,bkhd->bhqk", apply_rope(q, *angles), k) / dim**0.5
    logits = logits.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    expected = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2) @ module.out.weight.T
    torch.testing.assert_close(module(x), expected)


@INTERPRETED
@pytest.mark.parametrize("each", [False, True])
def test_the_rows_of_the_projection_are_attended_to_as_they_are(monkeypatch, each):
    """In training on a GPU, as asked here; with the results of queries, keys and values apart."""
    module = MultiHeadConfig(3, head_dim=16).build(20)
    torch.nn.init.normal_(module.out.weight)
    x, towards = torch.randn(2, 2, 5, 20)
    places = torch.tensor([[0, 1, 2, 0, 1], [5, 6, 7, 8, 9]])[slice(None) if each else 0]
    calls, found = [], []
    attend = packed.packed_causal_attention
    monkeypatch.setattr(packed, "packed_causal_attention", lambda *rows: calls.append(rows[0].shape) or attend(*rows))
    for here in (False, True):
        torch._dynamo.reset()
        monkeypatch.setattr(packed, "is_for", lambda rows, num_heads, here=here: here)
        for run in (module, torch.compile(module, fullgraph=True, backend="aot_eager")):
            out = run(x, positions=places)
            found.append([out, *torch.autograd.grad(out, list(module.parameters()), towards)])
    assert calls == 2 * [(2, 5, 3 * 3 * 16)]
    for results in found[1:]:
        torch.testing.assert_close(results, found[0])


def test_other_attention_than_plain_is_not_to_rows(monkeypatch):
    monkeypatch.setattr(packed, "is_for", lambda rows, num_heads: True)
    monkeypatch.setattr(packed, "packed_causal_attention", lambda *rows: pytest.fail("taken"))
    x, ids = torch.randn(2, 5, 20), torch.zeros(2, 5, dtype=torch.int64)
    whole = MultiHeadConfig(2, head_dim=16)
    whole.build(20)(x, document_ids=ids)
    whole.build(20)(x, cache=whole.build_cache(2, 5))
    MultiHeadConfig(2, 1, head_dim=16).build(20)(x)
    MultiHeadConfig(2, head_dim=16, rope_fraction=0.5).build(20)(x)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Profiler clears events", "ignore:TensorFloat32 tensor cores")
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_rows_are_attended_to_in_training(monkeypatch, compiled):
    torch._dynamo.reset()
    module = MultiHeadConfig(4, head_dim=64).build(128).cuda()
    torch.nn.init.normal_(module.out.weight, std=0.1)
    run = torch.compile(module, fullgraph=True) if compiled else module
    x, towards = torch.randn(2, 3, 130, 128, device="cuda")
    found = []
    for taken in (True, False):
        if not taken:
            monkeypatch.setattr(packed, "is_for", lambda rows, num_heads: False)
            torch._dynamo.reset()
        with torch.autocast("cuda", torch.bfloat16), profile(activities=[ProfilerActivity.CPU]) as seen:
            out = run(x)
            grads = torch.autograd.grad(out, list(module.parameters()), towards.to(out.dtype))
        names = {event.name for event in seen.events()}
        assert any("causal_attention_packed_backward" in name for name in names) == taken
        found.append([out, *grads])
    for actual, expected in zip(*found, strict=True):
        assert (actual - expected).norm() < 0.02 * expected.norm()
    with torch.no_grad():
        run(x)
