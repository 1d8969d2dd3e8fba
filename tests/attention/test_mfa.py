import math

import pytest
import torch
from torch.nn.functional import rms_norm

from lit_t6.attention import MFAConfig, solve_num_heads
from lit_t6.ops import apply_rope, rope_angles

from .modules import randomised

SMALL = MFAConfig(num_heads=3, head_dim=8, query_rank=5)


def test_module_is_the_formula_of_its_weights():
    width, length, d, dq = 20, 6, 8, 5
    module = randomised(SMALL, width)
    x = torch.randn(2, length, width, dtype=torch.float64)

    down = x @ module.down.weight.T
    latent, k, v = down[..., :dq], down[..., dq : dq + d], down[..., dq + d :]
    angles = rope_angles(torch.arange(length), d)
    k = apply_rope(k[:, :, None], *angles)[:, :, 0]
    future = torch.ones(length, length).triu(1).bool()
    heads = []
    for h in range(3):
        q = latent @ module.query_up.weight[h * d : (h + 1) * d].T
        logits = torch.einsum("bqd,bkd->bqk", apply_rope(q[:, :, None], *angles)[:, :, 0], k) / math.sqrt(d)
        heads.append(logits.masked_fill(future, float("-inf")).softmax(-1) @ v)
    torch.testing.assert_close(module(x), torch.cat(heads, dim=-1) @ module.out.weight.T)


def test_costs():
    c, h, d, dq = 1024, 10, 256, 128
    config = MFAConfig(num_heads=h, query_rank=dq, head_norm=True)
    assert config.num_parameters(c) == c * dq + dq * h * d + 2 * c * d + h * d * c + d
    assert config.cache_numbers_per_token() == 2 * d
    assert config.build_cache(3, 10, torch.bfloat16).bytes_per_token == 2 * 2 * d
    assert config.decode_multiply_adds_per_cached_token() == 2 * h * d
    assert solve_num_heads(MFAConfig(), c).num_heads == 10
    assert MFAConfig().numbers()["query_rank"] == 256
    assert MFAConfig(rope_fraction=0.5).label == "MFA (256/256), 0.5 of RoPE"


def test_initialisation():
    module = MFAConfig(num_heads=12, head_dim=32, query_rank=64).build(256)
    for layer in (module.down, module.query_up):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(1 / 3 / layer.in_features), rel=0.03)
    module.reset_parameters("paper")
    latent, key, value = module.down.weight.detach().split(module.config.projection_rows)
    for weight, fans in ((latent, 256 + 64), (key, 256 + 32), (value, 256 + 32), (module.query_up.weight, 64 + 384)):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.03)
    module.reset_parameters("variance", 0.2)
    latent, key, value = module.down(rms_norm(torch.randn(4000, 256), (256,))).split(module.config.projection_rows, -1)
    for part in (module.query_up(latent), key, value):
        assert part.var().item() == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MFAConfig(query_rank=0), "MFAConfig: query_rank must be at least 1, got 0"),
        (lambda: MFAConfig(head_dim=33), "MFAConfig: head_dim=33 is odd"),
        (lambda: MFAConfig().build(64), "num_heads is null"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
