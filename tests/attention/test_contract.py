import pytest

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.testing import CONTRACT

MECHANISMS = {
    "tpa": TPAConfig(num_heads=6, head_dim=16),
    "tpa, odd": TPAConfig(num_heads=7, head_dim=10, rank_q=5, rank_k=1, rank_v=3),
    "tpa by the reference": TPAConfig(num_heads=3, head_dim=16, rank_q=2, impl="reference"),
    "mha": MultiHeadConfig(num_heads=3, head_dim=16),
    "mqa": MultiHeadConfig(num_heads=5, num_kv_heads=1, head_dim=16),
    "gqa": MultiHeadConfig(num_heads=6, num_kv_heads=2, head_dim=16),
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_contract(check, mechanism):
    check(MECHANISMS[mechanism], d_model=48)
