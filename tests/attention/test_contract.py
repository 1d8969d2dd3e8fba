from dataclasses import replace

import pytest

from lit_t6.attention import LatentConfig, MFAConfig, MultiHeadConfig, TPAConfig
from lit_t6.testing import CONTRACT
from lit_t6.testing.attention_contract import check_positions_are_relative

TPA = TPAConfig(num_heads=6, head_dim=16)
MECHANISMS = {
    "tpa": TPA,
    "tpa, odd": TPAConfig(num_heads=7, head_dim=10, rank_q=5, rank_k=1, rank_v=3),
    "tpa by the reference": TPAConfig(num_heads=3, head_dim=16, rank_q=2, impl="reference"),
    "tpa, other values": replace(TPA, value_dim=10),
    "kv only": replace(TPA, factorized="kv", num_heads=5),
    "kv only by the reference": replace(TPA, factorized="kv", impl="reference"),
    "q only": replace(TPA, factorized="q", value_dim=12),
    "q only, grouped": replace(TPA, factorized="q", num_kv_heads=2),
    "q only by the reference": replace(TPA, factorized="q", num_kv_heads=3, impl="reference"),
    "static a": replace(TPA, static_a=True),
    "static a, kv only": replace(TPA, static_a=True, factorized="kv"),
    "static b": replace(TPA, static_b=True),
    "shared b": replace(TPA, shared_b=True),
    "shared static b": replace(TPA, shared_b=True, static_b=True),
    "shared b, kv only": replace(TPA, shared_b=True, factorized="kv"),
    "sigmoid": replace(TPA, head_activation="sigmoid"),
    "softmax": replace(TPA, head_activation="softmax", rank_v=1),
    "sigmoid of static a": replace(TPA, head_activation="sigmoid", static_a=True),
    "third order": replace(TPA, third_order_dim=4),
    "third order, other values": replace(TPA, third_order_dim=8, value_dim=8),
    "third order, shared b": replace(TPA, third_order_dim=4, shared_b=True),
    "third order, static b": replace(TPA, third_order_dim=4, static_b=True),
    "third order, static a": replace(TPA, third_order_dim=4, static_a=True),
    "rope on heads": replace(TPA, rope_on="heads"),
    "rope on heads, shared b": replace(TPA, rope_on="heads", shared_b=True),
    "rope on heads, kv only": replace(TPA, rope_on="heads", factorized="kv"),
    "partial rope": replace(TPA, rope_fraction=1 / 3),
    "partial rope, kv only": replace(TPA, rope_fraction=0.5, factorized="kv"),
    "rope with decay": replace(TPA, rope_decay=0.9),
    "rope with decay, kv only, partial": replace(TPA, rope_decay=0.9, rope_fraction=0.5, factorized="kv"),
    "rope with decay, shared b": replace(TPA, rope_decay=0.9, shared_b=True),
    "head norm": replace(TPA, head_norm=True, value_dim=8),
    "mha": MultiHeadConfig(num_heads=3, head_dim=16),
    "mqa": MultiHeadConfig(num_heads=5, num_kv_heads=1, head_dim=16),
    "gqa": MultiHeadConfig(num_heads=6, num_kv_heads=2, head_dim=16),
    "gqa, partial rope": MultiHeadConfig(num_heads=6, num_kv_heads=2, head_dim=15, rope_fraction=0.5),
    "mha, rope with decay": MultiHeadConfig(num_heads=3, head_dim=16, rope_decay=0.95),
    "mla": LatentConfig(num_heads=3, head_dim=8),
    "mla, odd": LatentConfig(5, 7, value_dim=9, rope_dim=6, query_latent_dim=11, kv_latent_dim=13, head_norm=True),
    "mfa": MFAConfig(num_heads=3, head_dim=16),
    "mfa, odd": MFAConfig(num_heads=7, head_dim=10, query_rank=9, rope_fraction=0.5, head_norm=True),
    "mqa, head norm": MultiHeadConfig(num_heads=5, num_kv_heads=1, head_dim=16, head_norm=True),
}
RUNS = [
    (check, mechanism)
    for mechanism, config in MECHANISMS.items()
    for check in CONTRACT
    # decay makes a score depend on the positions themselves, as upstream's does
    if not (check is check_positions_are_relative and getattr(config, "rope_decay", None))
]


@pytest.mark.parametrize(("check", "mechanism"), RUNS, ids=lambda given: getattr(given, "__name__", given))
def test_contract(check, mechanism):
    check(MECHANISMS[mechanism], d_model=48)


def test_decay_depends_on_positions_themselves():
    with pytest.raises(AssertionError):
        check_positions_are_relative(MECHANISMS["rope with decay"], d_model=48)
