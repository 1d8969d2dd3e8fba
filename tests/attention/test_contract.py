import pytest

from lit_t6.attention import LatentConfig, MFAConfig, MultiHeadConfig, TPAConfig
from lit_t6.testing import CONTRACT

MECHANISMS = {
    "tpa": TPAConfig(num_heads=6, head_dim=16),
    "tpa, odd": TPAConfig(num_heads=7, head_dim=10, rank_q=5, rank_k=1, rank_v=3),
    "tpa by the reference": TPAConfig(num_heads=3, head_dim=16, rank_q=2, impl="reference"),
    "mha": MultiHeadConfig(num_heads=3, head_dim=16),
    "mqa": MultiHeadConfig(num_heads=5, num_kv_heads=1, head_dim=16),
    "gqa": MultiHeadConfig(num_heads=6, num_kv_heads=2, head_dim=16),
    "mla": LatentConfig(num_heads=3, head_dim=8),
    "mla, odd": LatentConfig(5, 7, value_dim=9, rope_dim=6, query_latent_dim=11, kv_latent_dim=13, head_norm=True),
    "mfa": MFAConfig(num_heads=3, head_dim=16),
    "mfa, odd": MFAConfig(num_heads=7, head_dim=10, query_rank=9, rope_fraction=0.5, head_norm=True),
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_contract(check, mechanism):
    check(MECHANISMS[mechanism], d_model=48)
