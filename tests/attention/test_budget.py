"""The paper's Tables 1, 9 and 10 and appendix A.4, written out by hand."""

import pytest
import torch

from lit_t6.attention import (
    LatentConfig,
    MFAConfig,
    MultiHeadConfig,
    TPAConfig,
    attention_budget,
    compare_budgets,
    measure_budget,
    mechanisms,
    solve_num_heads,
)

WIDTHS = {"small": 768, "medium": 1024, "large": 1280, "xl": 1600}
# Paper Table 10. Its small TPA has 34 heads, where 33 is nearer to the budget, its small KVonly 22, where 21 is.
PAPER = {
    "mha": (MultiHeadConfig(), (12, 16, 20, 25)),
    "mqa": (MultiHeadConfig(num_kv_heads=1), (23, 31, 39, 49)),
    "gqa": (MultiHeadConfig(num_kv_heads=2), (22, 30, 38, 48)),
    "tpa": (TPAConfig(), (33, 47, 61, 78)),
    "tpa-kvonly": (TPAConfig(factorized="kv"), (21, 29, 37, 47)),
    # The table's 12, 23, 34, 49 heads of MLA do not meet the budget at its latents of 256/512, then 512/1024: these do.
    "mla at 256/512": (LatentConfig(64, 64), (13, 23, 34, 49)),
    "mla at 512/1024": (
        LatentConfig(64, 64, rope_dim=32, query_latent_dim=1024, kv_latent_dim=512),
        (None, 11, 18, 29),
    ),
}
# Paper Table 1: a configuration, C, numbers cached for a token in a layer, parameters of a layer.
TABLE_1 = [
    (MultiHeadConfig(12), 768, 2 * 12 * 64, 4 * 768 * 12 * 64),
    (MultiHeadConfig(12, 12, 32), 768, 2 * 12 * 32, 4 * 768 * 12 * 32),
    (MultiHeadConfig(23, 1), 768, 2 * 64, 2 * 768 * 64 * (23 + 1)),
    (MultiHeadConfig(22, 2), 768, 2 * 2 * 64, 2 * 768 * 64 * (22 + 2)),
    (MultiHeadConfig(32, 8, 128), 4096, 2 * 8 * 128, 2 * 4096 * 128 * (32 + 8)),
    (TPAConfig(34), 768, (2 + 2) * (34 + 64), 768 * (6 + 2 + 2) * (34 + 64) + 768 * 34 * 64),
    (TPAConfig(47, 128, 5, 2, 3), 1024, (2 + 3) * (47 + 128), 1024 * (5 + 2 + 3) * (47 + 128) + 1024 * 47 * 128),
    (TPAConfig(22, factorized="kv"), 768, (2 + 2) * (22 + 64), 768 * (2 + 2) * (22 + 64) + 2 * 768 * 22 * 64),
    (TPAConfig(34, static_a=True), 768, (2 + 2) * 64, (6 + 2 + 2) * (768 * 64 + 34) + 768 * 34 * 64),
    (TPAConfig(34, static_b=True), 768, (2 + 2) * 34, (6 + 2 + 2) * (768 * 34 + 64) + 768 * 34 * 64),
    # MLA and MFA; the weights of MLA's two norms come on top of the table
    (
        LatentConfig(12),
        768,
        256 + 32,
        512 * (768 + 12 * 64 + 12 * 32) + 256 * (768 + 2 * 12 * 64) + 768 * (12 * 64 + 32) + 768,
    ),
    (MFAConfig(6), 768, 2 * 256, 768 * 256 + 256 * 6 * 256 + 2 * 768 * 256 + 6 * 256 * 768),
    # Variants that the table leaves out
    (TPAConfig(34, factorized="q"), 768, 2 * 34 * 64, 768 * 6 * (34 + 64) + 3 * 768 * 34 * 64),
    (TPAConfig(34, factorized="q", num_kv_heads=2), 768, 2 * 2 * 64, 768 * (6 * (34 + 64) + 2 * 2 * 64 + 34 * 64)),
    (TPAConfig(34, shared_b=True), 768, 4 * 34 + 2 * 64, 768 * (10 * 34 + 8 * 64) + 768 * 34 * 64),
    (TPAConfig(34, shared_b=True, static_b=True), 768, 4 * 34, 768 * 10 * 34 + 8 * 64 + 768 * 34 * 64),
    (TPAConfig(34, third_order_dim=8), 768, 4 * (34 + 8 + 8), 768 * 10 * (34 + 8 + 8) + 768 * 34 * 64),
    (
        TPAConfig(34, value_dim=32),
        768,
        2 * (34 + 64) + 2 * (34 + 32),
        768 * (10 * 34 + 8 * 64 + 2 * 32) + 768 * 34 * 32,
    ),
    (TPAConfig(34, head_norm=True), 768, 4 * (34 + 64), 768 * 10 * (34 + 64) + 768 * 34 * 64 + 64),
]
# Paper appendix A.4: multiply-adds of a new token's attention for each cached token in a layer.
DECODING = [
    # C = 2048
    (MultiHeadConfig(32, None, 64), 4096),
    (MultiHeadConfig(32, 1, 64), 4096),
    (MultiHeadConfig(32, 8, 64), 4096),
    (TPAConfig(32, 64, 16, 1, 1), 3584),
    (TPAConfig(32, 64, 16, 2, 2), 7168),
    (TPAConfig(32, 64, 8, 1, 1), 2816),
    (TPAConfig(32, 64, 8, 2, 2), 5632),
    (LatentConfig(32, 64, kv_latent_dim=256, rope_dim=32), 17408),
    # C = 4096
    (MultiHeadConfig(32, None, 128), 8192),
    (MultiHeadConfig(32, 1, 128), 8192),
    (MultiHeadConfig(32, 8, 128), 8192),
    (TPAConfig(32, 128, 16, 1, 1), 6656),
    (TPAConfig(32, 128, 8, 1, 1), 5376),
    (LatentConfig(32, 128, kv_latent_dim=512, rope_dim=64), 34816),
    # C = 7168
    (MultiHeadConfig(64, None, 128), 16384),
    (MultiHeadConfig(64, 1, 128), 16384),
    (MultiHeadConfig(64, 8, 128), 16384),
    (TPAConfig(64, 128, 16, 1, 1), 11264),
    (TPAConfig(64, 128, 8, 1, 1), 9728),
    (LatentConfig(64, 128, kv_latent_dim=512, rope_dim=64), 69632),
    # by the same reasoning, what the appendix leaves out
    (TPAConfig(32, 64, 16, 2, 2, static_a=True), 7168),
    (TPAConfig(32, 64, 16, 2, 2, static_b=True), 7168),
    (TPAConfig(32, 64, 16, 2, 2, shared_b=True), 7168),
    (TPAConfig(32, 64, 16, 2, 2, value_dim=32), 16 * 2 * 64 + 32 * 16 * 2 + 32 * 2 * 32),
    (TPAConfig(32, 64, factorized="kv", third_order_dim=8), 32 * 2 * 64 + 32 * 2 + 2 * 64 + 2 * 64 + 32 * 2 * 64),
    (LatentConfig(32, 64, value_dim=16), 17408),
    (TPAConfig(32, 64, 16, 2, 2, factorized="kv"), 32 * 2 * 64 + 32 * 2 + 32 * 2 * 64),
    (TPAConfig(32, 64, 16, 2, 2, factorized="q"), 4096),
    (TPAConfig(32, 64, 16, 1, 1, third_order_dim=8), 16 * (8 + 8 + 1) + 32 * 16 + 64 + 32 * 64),
    (MFAConfig(8, 256), 4096),
]


@pytest.mark.parametrize(("config", "d_model", "cached", "parameters"), TABLE_1, ids=lambda value: str(value)[:60])
def test_table_1(config, d_model, cached, parameters):
    assert config.cache_numbers_per_token() == cached
    assert config.num_parameters(d_model) == parameters
    measured = measure_budget(config, d_model, num_layers=3, bytes_per_number=4)
    assert measured.cache_numbers_per_token_per_layer == cached
    assert measured.cache_bytes_per_token == 3 * 4 * cached
    assert measured.parameters_per_layer == parameters
    assert measured.parameters_over_budget == parameters / (4 * d_model**2)
    with torch.device("meta"):
        assert sum(weight.numel() for weight in config.build(d_model).parameters()) == parameters


@pytest.mark.parametrize(("config", "multiply_adds"), DECODING, ids=lambda value: str(value)[:60])
def test_decoding_arithmetic_of_appendix_a_4(config, multiply_adds):
    assert config.decode_multiply_adds_per_cached_token() == multiply_adds
    measured = measure_budget(config, 2048)
    assert measured.decode_multiply_adds_per_cached_token_per_layer == multiply_adds
    assert measured.decode_flops_per_cached_token_per_layer == 2 * multiply_adds


def test_every_mechanism_has_a_row():
    assert {type(row[0]) for row in TABLE_1} == set(mechanisms())


@pytest.mark.parametrize("mechanism", PAPER)
def test_head_counts_of_the_paper(mechanism):
    config, expected = PAPER[mechanism]
    for d_model, heads in zip(WIDTHS.values(), expected, strict=True):
        assert heads is None or solve_num_heads(config, d_model).num_heads == heads


@pytest.mark.parametrize("d_model", WIDTHS.values())
@pytest.mark.parametrize("mechanism", PAPER)
def test_no_other_head_count_is_nearer(mechanism, d_model):
    solved = solve_num_heads(PAPER[mechanism][0], d_model)
    heads, step = solved.num_heads, solved.num_heads_multiple

    def distance(n):
        return abs(solved.with_num_heads(n).num_parameters(d_model) - attention_budget(d_model))

    assert distance(heads) <= min(distance(heads + step), distance(heads - step))


def test_a_budget_that_no_head_count_meets():
    with pytest.raises(
        ValueError, match=r"TPA \(6, 2, 2\): no head count meets the budget of 4,096 parameters .* d_model=32"
    ):
        solve_num_heads(TPAConfig(), 32)


def test_ratios_are_to_multi_head_attention_of_the_same_budget():
    mha, mqa, tpa = compare_budgets([MultiHeadConfig(), MultiHeadConfig(num_kv_heads=1), TPAConfig()], 1024)
    assert (mha.num_heads, mqa.num_heads, tpa.num_heads) == (16, 31, 47)
    assert mha.parameters_over_mha == mha.cache_over_mha == mha.decode_over_mha == mha.projection_flops_over_mha == 1
    assert mqa.cache_over_mha == 1 / 16
    assert mqa.decode_over_mha == 31 / 16
    assert tpa.cache_over_mha == 4 * (47 + 64) / (2 * 1024)
    assert tpa.decode_over_mha == (12 * (64 + 47) + 47 * 2 * 64) / (2 * 1024)
    assert tpa.parameters_over_mha == tpa.projection_flops_over_mha == (10 * (47 + 64) + 47 * 64) / (4 * 1024)


def test_flops_of_training_a_token():
    measured = measure_budget(MultiHeadConfig(16), 1024, seq_len=5)
    assert measured.projection_flops_per_token_per_layer == 2 * 4 * 1024**2
    # Query · key and weight · value with the 1, 2, … 5 keys that the tokens see: 3 on average.
    assert measured.attention_flops_per_token_per_layer == 2 * (2 * 16 * 64) * 3
    # Queries, keys and values are formed from their factors besides.
    measured = measure_budget(TPAConfig(16), 1024, seq_len=5)
    assert measured.attention_flops_per_token_per_layer == 2 * (2 * 16 * 64) * 3 + 2 * (6 + 2 + 2) * 16 * 64


def test_an_odd_head_size_is_compared_too():
    assert measure_budget(TPAConfig(8, 9, rope_fraction=0.5), 72).cache_over_mha == 4 * (8 + 9) / (2 * 72)


def test_static_factors_multiply_no_token():
    config = TPAConfig(34, static_a=True)
    assert config.projection_flops_per_token(768) == 2 * (config.num_parameters(768) - (6 + 2 + 2) * 34)
