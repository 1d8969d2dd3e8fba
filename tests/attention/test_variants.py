"""The variants of tensor product attention, each against the formula that defines it."""

from dataclasses import replace

import pytest
import torch

from lit_t6.attention import MultiHeadConfig, TensorProductAttention, TPAConfig
from lit_t6.ops import apply_rope, materialise, outer_features, rope_angles

BASE = TPAConfig(num_heads=3, head_dim=8, rank_q=3, rank_k=2, rank_v=2)
WIDTH, LENGTH = 20, 6


def example(config):
    """A module with random weights, and an input."""
    torch.manual_seed(0)
    module = config.build(WIDTH).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        module.factors.weight /= WIDTH**0.5
    return module, torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)


def softmax_attention(q, k, v):
    """Queries (B, T, H, D), keys and values over as many heads, causal, by hand."""
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    logits = logits.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)


def turned(x, config, decay=None):
    dim = int(config.head_dim * config.rope_fraction) // 2 * 2
    return apply_rope(x, *rope_angles(torch.arange(LENGTH), dim, decay=decay))


def by_formula(module, x):
    """The output by loops over ranks; RoPE on whole queries and keys."""
    config = module.config
    weights = module.split(module.factors.weight)
    static = dict(module.static.items())

    def factor(name):
        if name in static:
            value = static[name].expand(2, LENGTH, -1, -1)
        else:
            shape = config.pieces()[name]
            value = (x @ weights[name].T).unflatten(-1, shape)
        if name.startswith("a_"):
            value = {"none": lambda a: a, "sigmoid": torch.sigmoid, "softmax": lambda a: a.softmax(-1)}[
                config.head_activation
            ](value)
        return value

    def heads(letter):
        if letter not in config.factorized:
            dense = factor(letter)
            return dense.repeat_interleave(config.num_heads // dense.shape[2], dim=2)
        a, b = factor(f"a_{letter}"), factor("b_k" if config.shared_b and letter == "v" else f"b_{letter}")
        return sum(a[:, :, r, :, None] * b[:, :, r, None, :] for r in range(a.shape[2])) / a.shape[2]

    q, k = (turned(heads(letter), config, config.rope_decay) for letter in "qk")
    read = softmax_attention(q, k, heads("v"))
    if config.head_norm:
        read = read / (read.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.head_norm.weight
    return read.flatten(2) @ module.out.weight.T


VARIANTS = {
    "tpa": {},
    "kv only": {"factorized": "kv"},
    "q only": {"factorized": "q"},
    "q only, one kv head": {"factorized": "q", "num_kv_heads": 1},
    "static a": {"static_a": True},
    "static b": {"static_b": True},
    "shared b": {"shared_b": True},
    "shared static b": {"shared_b": True, "static_b": True},
    "sigmoid": {"head_activation": "sigmoid"},
    "softmax of static a": {"head_activation": "softmax", "static_a": True},
    "rope on heads": {"rope_on": "heads"},
    "partial rope": {"rope_fraction": 1 / 3},
    "decay": {"rope_decay": 0.9, "rope_fraction": 0.5},
    "head norm": {"head_norm": True},
    "other value size": {"value_dim": 5},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_is_its_formula(name):
    module, x = example(replace(BASE, **VARIANTS[name]))
    torch.testing.assert_close(module(x), by_formula(module, x), rtol=1e-5, atol=1e-5)  # RoPE's tables are float32


@pytest.mark.parametrize("value_dim", [8, 4])
def test_third_order_is_its_formula(value_dim):
    """Paper appendix C: B_r = vec(b_r ⊗ c_r), and RoPE on b is T_t = I ⊗ R_t on the whole row (theorem C.1)."""
    config = replace(BASE, third_order_dim=4, value_dim=value_dim)
    module, x = example(config)
    f = {
        name: (x @ w.T).unflatten(-1, config.pieces()[name]) for name, w in module.split(module.factors.weight).items()
    }
    q, k, v = (materialise(f[f"a_{z}"], outer_features(f[f"b_{z}"], f[f"c_{z}"])) for z in "qkv")
    identity = torch.eye(4, dtype=torch.float64)[None, :, None].expand(1, 4, LENGTH, 4).transpose(1, 2)
    rotation = apply_rope(identity, *rope_angles(torch.arange(LENGTH), 4))[0]  # (T, 4, 4): row b is turned to b @ R
    whole = torch.stack([torch.block_diag(turn, turn) for turn in rotation])  # (T, 8, 8)
    q, k = (torch.einsum("bthd,tde->bthe", z, whole) for z in (q, k))
    expected = softmax_attention(q, k, v).flatten(2) @ module.out.weight.T
    torch.testing.assert_close(module(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decay", [None, 0.95])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rotating_b_is_rotating_queries_and_keys(fraction, decay):
    on_factors, x = example(replace(BASE, rope_fraction=fraction, rope_decay=decay))
    on_heads, _ = example(replace(on_factors.config, rope_on="heads"))
    torch.testing.assert_close(on_heads(x), on_factors(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kv_heads", [None, 1, 2])
@pytest.mark.parametrize("options", [{}, {"rope_fraction": 0.5, "head_norm": True}], ids=["plain", "with options"])
def test_mha_mqa_and_gqa_are_tpa_with_static_a(kv_heads, options):
    """Paper section 4, outputs and gradients of input and shared weights."""
    theirs = MultiHeadConfig(6, kv_heads, 8, **options).build(WIDTH).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    ours = TensorProductAttention.from_multi_head(theirs)
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    results = []
    for module, weight in ((theirs, theirs.qkv.weight), (ours, ours.factors.weight)):
        out = module(x)
        shared = [weight, module.out.weight, *([module.head_norm.weight] if module.head_norm else [])]
        gradients = torch.autograd.grad(out.square().sum(), (x, *shared))
        results.append((out, *gradients))
    for actual, expected in zip(*results[::-1], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
    groups = kv_heads or 6
    assert ours.config.cache_numbers_per_token() == theirs.config.cache_numbers_per_token() == 2 * groups * 8


def test_reference_and_fast_path_agree_for_every_variant():
    for name, options in VARIANTS.items():
        fast, x = example(replace(BASE, **options))
        slow, _ = example(replace(fast.config, impl="reference"))
        torch.testing.assert_close(fast(x), slow(x), rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_shared_factors_are_kept_once_and_static_ones_not_at_all():
    assert replace(BASE, shared_b=True).cache_shapes() == {"a_k": (2, 3), "a_v": (2, 3), "b_k": (2, 8)}
    assert replace(BASE, static_a=True).cache_shapes() == {"b_k": (2, 8), "b_v": (2, 8)}
    assert replace(BASE, static_b=True).cache_shapes() == {"a_k": (2, 3), "a_v": (2, 3)}
    assert replace(BASE, shared_b=True, static_b=True).cache_shapes() == {"a_k": (2, 3), "a_v": (2, 3)}
    third = replace(BASE, third_order_dim=2)
    assert third.cache_numbers_per_token() == 4 * (3 + 2 + 4)
    assert replace(BASE, factorized="q", num_kv_heads=1).cache_shapes() == {"k": (1, 8), "v": (1, 8)}


@pytest.mark.parametrize("name", VARIANTS)
def test_variance_of_queries_keys_and_values_is_the_stated_one(name):
    config = replace(
        TPAConfig(16, 32), **VARIANTS[name] | {"head_norm": False, "rope_decay": None, "rope_on": "factors"}
    )
    if config.value_size != config.head_dim:
        config = replace(config, value_dim=16)
    module = config.build(256)
    totals = torch.zeros(3)
    for seed in range(8):  # static factors are few: their own spread is averaged over several draws
        torch.manual_seed(seed)
        module.reset_parameters("variance", 0.2)
        x = torch.nn.functional.rms_norm(torch.randn(4, 100, 256), (256,))
        f = module.compute_factors(x)
        dense = (materialise(a, b) for a, b in ((f.a_q, f.b_q), (f.a_k, f.b_k), (f.a_v, f.b_v)))
        totals += torch.stack([heads.square().mean() for heads in dense]).detach() / 8
    torch.testing.assert_close(totals, torch.full((3,), 0.2), rtol=0.15, atol=0)


def test_third_order_variance():
    module = TPAConfig(16, 32, third_order_dim=8).build(256)
    module.reset_parameters("variance", 0.2)
    f = module.compute_factors(torch.nn.functional.rms_norm(torch.randn(8, 200, 256), (256,)))
    assert materialise(f.a_k, f.b_k).var().item() == pytest.approx(0.2, rel=0.15)
