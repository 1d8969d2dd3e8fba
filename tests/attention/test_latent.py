import math

import pytest
import torch
from torch.nn.functional import rms_norm

from lit_t6.attention import LatentConfig, solve_num_heads
from lit_t6.ops import apply_rope, rope_angles

from .modules import randomised

SMALL = LatentConfig(3, 8, value_dim=6, rope_dim=4, query_latent_dim=7, kv_latent_dim=5)


def normed(x, norm):
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight


def test_module_is_the_formula_of_its_weights():
    width, length, d, dr, e, dc = 20, 6, 8, 4, 6, 5
    module = randomised(SMALL, width)
    x = torch.randn(2, length, width, dtype=torch.float64)

    query_latent = normed(x @ module.query_down.weight.T, module.query_norm)
    down = x @ module.kv_down.weight.T
    latent = normed(down[..., :dc], module.kv_norm)
    angles = rope_angles(torch.arange(length), dr)
    k_rope = apply_rope(down[..., None, dc:], *angles)[:, :, 0]
    future = torch.ones(length, length).triu(1).bool()
    heads = []
    for h in range(3):
        q = query_latent @ module.query_up.weight[h * (d + dr) : (h + 1) * (d + dr)].T
        kv = latent @ module.kv_up.weight[h * (d + e) : (h + 1) * (d + e)].T
        q_rope = apply_rope(q[..., None, d:], *angles)[:, :, 0]
        logits = torch.einsum("bqd,bkd->bqk", q[..., :d], kv[..., :d]) + torch.einsum("bqd,bkd->bqk", q_rope, k_rope)
        weights = (logits / math.sqrt(d + dr)).masked_fill(future, float("-inf")).softmax(-1)
        heads.append(weights @ kv[..., d:])
    expected = torch.cat(heads, dim=-1) @ module.out.weight.T
    torch.testing.assert_close(module(x), expected)


def test_decoding_forms_no_key_or_value_of_a_head():
    module = randomised(SMALL, 20)
    cache = SMALL.build_cache(2, 40, torch.float64)
    x = torch.randn(2, 30, 20, dtype=torch.float64)
    projected = []
    module.kv_up.register_forward_hook(lambda layer, args, output: projected.append(output.shape))
    module(x[:, :29], cache=cache)
    module(x[:, 29:], cache=cache)
    assert projected == [(2, 29, 3 * (8 + 6))]  # the prefill only


def test_runs_under_autocast():
    module = SMALL.build(20)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(torch.randn(1, 4, 20)).dtype == torch.bfloat16


def test_numbers_of_the_paper():
    c, h, d, dr, dc, dq = 768, 13, 64, 32, 256, 512
    config = LatentConfig(h)
    table_1 = dq * (c + h * d + h * dr) + dc * (c + 2 * h * d) + c * (h * d + dr)
    assert config.num_parameters(c) == table_1 + dc + dq  # the norms' weights come on top
    assert config.with_num_heads(h).cache_numbers_per_token() == dc + dr
    assert config.build_cache(3, 10, torch.bfloat16).bytes_per_token == 2 * (dc + dr)
    assert LatentConfig(32).decode_multiply_adds_per_cached_token() == 17408
    wide = LatentConfig(32, 128)  # DeepSeek's sizes follow from its head_dim
    assert (wide.kv_latent_size, wide.rope_size) == (512, 64)
    assert wide.decode_multiply_adds_per_cached_token() == 34816
    assert LatentConfig(64, 128).decode_multiply_adds_per_cached_token() == 69632
    assert LatentConfig(4, 16, 8).attention_flops_per_token(9) == 2 * 4 * (16 + 8 + 8) * 5


@pytest.mark.parametrize(
    ("d_model", "latents", "num_heads"),
    [
        (768, (256, 512), 13),
        (1024, (512, 1024), 11),
        (1280, (512, 1024), 18),
        (1600, (512, 1024), 29),
        (1024, (256, 512), 23),
        (1280, (256, 512), 34),
        (1600, (256, 512), 49),
    ],
)
def test_solved_head_counts(d_model, latents, num_heads):
    config = LatentConfig(kv_latent_dim=latents[0], query_latent_dim=latents[1])
    assert solve_num_heads(config, d_model).num_heads == num_heads


def parts(module):
    """Queries, the part of a key that a head makes, the shared key and values of inputs of unit mean square."""
    config = module.config
    x = rms_norm(torch.randn(4000, module.d_model), (module.d_model,))
    q = module.query_up(module.query_norm(module.query_down(x)))
    latent, k_rope = module.kv_down(x).split((config.kv_latent_size, config.rope_size), -1)
    kv = module.kv_up(module.kv_norm(latent)).unflatten(-1, (config.num_heads, -1))
    return q, kv[..., : config.head_dim], k_rope, kv[..., config.head_dim :]


def test_a_stated_variance_is_that_of_queries_keys_and_values():
    module = LatentConfig(16, 32, value_dim=24).build(256)
    module.query_norm.weight.data.fill_(7.0)
    module.reset_parameters("variance", 0.2)
    assert (module.query_norm.weight == 1).all()
    for part in parts(module):
        assert part.var().item() == pytest.approx(0.2, rel=0.1)


def test_upstream_and_paper_schemes():
    module = LatentConfig(16, 32, value_dim=24).build(512)  # dc 128, dc' 256, Dr 16
    for layer in (module.query_down, module.query_up, module.kv_down, module.kv_up):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(1 / 3 / layer.in_features), rel=0.02)
    module.reset_parameters("paper")
    kv_up = module.kv_up.weight.detach().unflatten(0, (16, 56))
    for weight, fans in (
        (module.query_down.weight, 512 + 256),
        (module.query_up.weight.unflatten(0, (16, 48))[:, 32:], 256 + 16 * 16),
        (module.kv_down.weight[:128], 512 + 128),
        (module.kv_down.weight[128:], 512 + 16),
        (kv_up[:, :32], 128 + 16 * 32),
        (kv_up[:, 32:], 128 + 16 * 24),
    ):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.03)


def test_nulls_follow_the_head_size():
    assert LatentConfig().numbers() == {
        "num_heads": 0,
        "head_dim": 64,
        "value_dim": 64,
        "rope_dim": 32,
        "query_latent_dim": 512,
        "kv_latent_dim": 256,
        "rope_base": 10000,
    }
    assert LatentConfig().label == "MLA (256/512)"
    assert LatentConfig(head_dim=2).rope_size == 2
    assert LatentConfig(head_dim=50).rope_size == 24


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LatentConfig(rope_dim=7), "LatentConfig: rope_dim=7 is odd, but RoPE rotates pairs.*; take 8"),
        (lambda: LatentConfig(rope_dim=0), "LatentConfig: rope_dim must be at least 1, got 0"),
        (lambda: LatentConfig(kv_latent_dim=0), "kv_latent_dim must be at least 1, got 0"),
        (lambda: LatentConfig(query_latent_dim=-1), "query_latent_dim must be at least 1, got -1"),
        (lambda: LatentConfig(value_dim=0), "value_dim must be at least 1, got 0"),
        (lambda: LatentConfig(head_dim=0), "head_dim must be at least 1, got 0"),
        (lambda: LatentConfig(num_heads=0), "num_heads must be at least 1, got 0"),
        (lambda: LatentConfig().build(64), "num_heads is null"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
