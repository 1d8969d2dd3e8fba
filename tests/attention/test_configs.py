import pytest

from lit_t6.attention import MultiHeadConfig, TPAConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TPAConfig(head_dim=63), "TPAConfig: head_dim=63 is odd, but RoPE rotates pairs of features; take 64"),
        (lambda: TPAConfig(rank_k=0), "TPAConfig: rank_k must be at least 1, got 0"),
        (lambda: TPAConfig(num_heads=-1), "num_heads must be at least 1, got -1"),
        (lambda: TPAConfig(impl="triton"), "impl='triton' is not an implementation"),
        (lambda: TPAConfig().build(64), "num_heads is null: give a number, or let .*solve_num_heads choose"),
        (lambda: MultiHeadConfig(num_heads=5, num_kv_heads=2), "num_heads=5 is not a multiple of num_kv_heads=2"),
        (lambda: MultiHeadConfig(head_dim=7), "MultiHeadConfig: head_dim=7 is odd"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels():
    assert TPAConfig(rank_q=4).label == "TPA (4, 2, 2)"
    assert MultiHeadConfig().label == "MHA"
    assert MultiHeadConfig(4, 4).label == "MHA"
    assert MultiHeadConfig(4, 1).label == "MQA"
    assert MultiHeadConfig(4, 2).label == "GQA (2 KV heads)"
