import pytest

from lit_t6.attention import MultiHeadConfig, TPAConfig, attention_budget, solve_num_heads

WIDTHS = {"small": 768, "medium": 1024, "large": 1280, "xl": 1600}
# Paper Table 10. Its small TPA has 34 heads, where 33 is nearer to the budget.
PAPER = {
    "mha": (MultiHeadConfig(), (12, 16, 20, 25)),
    "mqa": (MultiHeadConfig(num_kv_heads=1), (23, 31, 39, 49)),
    "gqa": (MultiHeadConfig(num_kv_heads=2), (22, 30, 38, 48)),
    "tpa": (TPAConfig(), (33, 47, 61, 78)),
}


@pytest.mark.parametrize("mechanism", PAPER)
def test_head_counts_of_the_paper(mechanism):
    config, expected = PAPER[mechanism]
    assert tuple(solve_num_heads(config, d_model).num_heads for d_model in WIDTHS.values()) == expected


@pytest.mark.parametrize("d_model", WIDTHS.values())
@pytest.mark.parametrize("mechanism", PAPER)
def test_no_other_head_count_is_nearer(mechanism, d_model):
    solved = solve_num_heads(PAPER[mechanism][0], d_model)
    heads, step = solved.num_heads, solved.num_heads_multiple

    def distance(n):
        return abs(solved.with_num_heads(n).num_parameters(d_model) - attention_budget(d_model))

    assert distance(heads) <= min(distance(heads + step), distance(heads - step))


def test_table_1():
    c, h, d = 768, 34, 64
    assert TPAConfig(h, d, 6, 2, 2).num_parameters(c) == c * 10 * (h + d) + c * h * d
    assert TPAConfig(h, d, 6, 2, 3).cache_numbers_per_token() == 5 * (h + d)
    assert MultiHeadConfig(12).num_parameters(c) == 4 * c * 12 * d
    assert MultiHeadConfig(12).cache_numbers_per_token() == 2 * 12 * d
    assert MultiHeadConfig(23, 1).num_parameters(c) == 2 * c * d * 24
    assert MultiHeadConfig(23, 1).cache_numbers_per_token() == 2 * d
    assert MultiHeadConfig(22, 2).num_parameters(c) == 2 * c * d * 24
    assert MultiHeadConfig(22, 2).cache_numbers_per_token() == 2 * 2 * d


def test_a_budget_that_no_head_count_meets():
    with pytest.raises(
        ValueError, match=r"TPA \(6, 2, 2\): no head count meets the budget of 4,096 parameters .* d_model=32"
    ):
        solve_num_heads(TPAConfig(), 32)
