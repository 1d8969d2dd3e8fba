from dataclasses import replace

import pytest
import torch

from lit_t6.attention import TPAConfig, tpa
from lit_t6.ops import apply_rope, rope_angles
from lit_t6.ops.tpa.packed_rows import num_packed_columns
from lit_t6.testing import assert_as_exact_as

from ..ops.seeds import INTERPRETED
from .mechanisms import MECHANISMS


def test_module_is_the_papers_formula_of_its_weights():
    """Queries, keys and values by loops over ranks, rotated as wholes, and softmax by hand."""
    heads, dim, ranks, width, length = 3, 8, (3, 2, 1), 20, 6
    module = TPAConfig(heads, dim, *ranks).build(width).double()
    torch.nn.init.normal_(module.out.weight)
    x = torch.randn(2, length, width, dtype=torch.float64)

    rows = module.factors.weight.split([rank * size for size in (heads, dim) for rank in ranks])
    dense = []
    for a, b, rank in zip(rows[:3], rows[3:], ranks, strict=True):
        a, b = (x @ a.T).view(2, length, rank, heads), (x @ b.T).view(2, length, rank, dim)
        dense.append(sum(a[:, :, r, :, None] * b[:, :, r, None, :] for r in range(rank)) / rank)
    q, k, v = dense
    angles = rope_angles(torch.arange(length), dim)
    logits = torch.einsum("bqhd,bkhd->bhqk", apply_rope(q, *angles), apply_rope(k, *angles)) / dim**0.5
    logits = logits.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    expected = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2) @ module.out.weight.T
    torch.testing.assert_close(module(x), expected)


FACTORED = [
    name
    for name, config in MECHANISMS.items()
    if isinstance(config, TPAConfig) and config.value_size == config.head_dim and config.rope_on == "factors"
]


@INTERPRETED
@pytest.mark.parametrize(
    ("mechanism", "positions"), [*((name, None) for name in FACTORED), ("tpa", "rows"), ("tpa", "one row")]
)
def test_by_kernels_a_whole_sequence_gives_what_products_give(mechanism, positions):
    """Outputs and the gradients of all parameters, of every variant."""
    torch.manual_seed(0)
    config = MECHANISMS[mechanism]
    if config.factorized == "q" and config.num_kv_heads:
        pytest.skip("as many key heads as query heads are expected")
    first = {None: None, "rows": [[0], [4]], "one row": [[3]]}[positions]
    places = None if first is None else torch.arange(5) + torch.tensor(first)
    x, towards = torch.randn(2, 2, 5, 24, dtype=torch.float64)
    found = {}
    modules = {"exact": replace(config, impl="reference"), "plain": replace(config, impl="reference")}
    weights = None
    for name, settings in (modules | {"kernels": replace(config, impl="triton")}).items():
        module = settings.build(24)
        if weights is None:
            torch.nn.init.normal_(module.out.weight)
            weights = module.state_dict()
        module.load_state_dict(weights)
        module = module.to(torch.float64 if name == "exact" else torch.float32)
        dtype = module.out.weight.dtype
        out = module(x.to(dtype), positions=places)
        grads = torch.autograd.grad(out, list(module.parameters()), towards.to(dtype))
        found[name] = [out.detach(), *grads]
    for actual, plain, exact in zip(found["kernels"], found["plain"], found["exact"], strict=True):
        assert_as_exact_as(actual, plain, exact)


@INTERPRETED
@pytest.mark.parametrize("factorized", ["qkv", "kv"])
def test_the_rows_of_the_projection_are_attended_to_as_they_are(monkeypatch, factorized):
    """Where nobody looks at it; else, here with a hook, parts are cut out. Results are the same, of six to the bit."""
    calls = []
    packed = tpa.attend_packed
    monkeypatch.setattr(tpa, "attend_packed", lambda *rows: calls.append(rows[0].shape[-1]) or packed(*rows))
    module = TPAConfig(3, 8, factorized=factorized, impl="triton").build(20)
    torch.nn.init.normal_(module.out.weight)
    x, towards = torch.randn(2, 2, 5, 20)
    found = []
    for hooked in (False, True):
        if hooked:
            module.factors.register_forward_hook(lambda *_: None)
        out = module(x)
        found.append([out, *torch.autograd.grad(out, list(module.parameters()), towards)])
    config = module.config
    assert calls == [num_packed_columns((config.rank_q * (factorized == "qkv"), config.rank_k, config.rank_v), 3, 8)]
    if factorized == "qkv":
        assert all(map(torch.equal, *found))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("factorized", ["qkv", "kv"])
def test_what_kernels_cannot_take_is_cut_out_of_packed_rows(monkeypatch, factorized):
    """Deterministic algorithms on a GPU, for one."""
    calls = []
    monkeypatch.setattr(tpa, "attend_packed", lambda *given: calls.append(given))
    module = TPAConfig(3, 8, factorized=factorized).build(20)
    torch.nn.init.normal_(module.out.weight)
    x, towards = torch.randn(2, 2, 5, 20)
    found = []
    for packs in (False, True):
        monkeypatch.setattr(type(module), "_packs", packs)
        out = module(x)
        found.append([out, *torch.autograd.grad(out, list(module.parameters()), towards)])
    assert len(calls) == 1
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


@INTERPRETED
@pytest.mark.parametrize("factorized", ["qkv", "kv"])
def test_a_compiler_takes_the_rows_whole(factorized):
    module = TPAConfig(3, 8, factorized=factorized, impl="triton").build(20)
    torch.nn.init.normal_(module.out.weight)
    assert module._packs
    x, towards = torch.randn(2, 2, 5, 20)
    found = []
    for run in (module, torch.compile(module, fullgraph=True, backend="aot_eager")):
        out = run(x)
        found.append([out.detach(), *torch.autograd.grad(out, list(module.parameters()), towards)])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(
    "change",
    [
        dict(rope_fraction=0.5),
        dict(rope_on="heads"),
        dict(value_dim=4),
        dict(static_a=True),
        dict(static_b=True),
        dict(shared_b=True),
        dict(third_order_dim=4),
        dict(head_activation="sigmoid"),
    ],
)
@pytest.mark.parametrize("factorized", ["qkv", "kv"])
def test_what_does_not_turn_as_a_whole_or_is_not_the_projections_is_not_packed(factorized, change):
    config = TPAConfig(3, 8, factorized=factorized)
    assert config.is_packed
    assert not replace(config, **change).is_packed
    assert not TPAConfig(3, 8, factorized="q").is_packed


@INTERPRETED
def test_by_kernels_or_not_at_all():
    module = TPAConfig(3, 8, impl="triton").build(20)
    with pytest.raises(ValueError, match=r"cannot attend to this: lengths, document_ids or causal=False"):
        module(torch.randn(1, 4, 20), document_ids=torch.zeros(1, 4, dtype=torch.int64))


@torch.no_grad()
def test_whoever_looks_at_the_projection_sees_all_that_goes_through_it():
    """Adapters and quantised layers stand in its place."""
    module, seen = TPAConfig(3, 8).build(20), []
    module.factors.register_forward_hook(lambda layer, args, out: seen.append(out.shape[1]))
    x, cache = torch.randn(1, 4, 20), module.config.build_cache(1, 8)
    module(x)
    module(x, cache=cache)
    module(x[:, :1], cache=cache)
    assert seen == [4, 4, 1]
