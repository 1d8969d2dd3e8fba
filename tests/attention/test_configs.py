import pytest

from lit_t6.attention import MultiHeadConfig, TPAConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TPAConfig(third_order_dim=3), "third_order_dim=3 must be even.* divide head_dim=64 and value_dim=64"),
        (lambda: TPAConfig(third_order_dim=6), "third_order_dim=6 must be even.* divide head_dim=64"),
        (lambda: TPAConfig(third_order_dim=8, rope_on="heads"), "third_order_dim with rope_on=heads .*theorem C.1"),
        (lambda: TPAConfig(static_a=True, static_b=True), "static_a and static_b together leave nothing"),
        (lambda: TPAConfig(num_kv_heads=2), "num_kv_heads=2 counts dense key/value heads, but factorized=qkv has none"),
        (lambda: TPAConfig(5, factorized="q", num_kv_heads=2), "num_heads=5 is not a multiple of num_kv_heads=2"),
        (lambda: TPAConfig(shared_b=True, rank_k=3), "shared_b needs rank_k = rank_v .* got ranks 3 and 2"),
        (lambda: TPAConfig(shared_b=True, value_dim=32), "shared_b needs .* sizes 64 and 32"),
        (lambda: TPAConfig(shared_b=True, factorized="q"), "factorized=q has none"),
        (lambda: TPAConfig(factorized="vk"), "factorized='vk'; expected one of qkv, kv, q"),
        (lambda: TPAConfig(head_activation="relu"), "head_activation='relu'; expected one of none, sigmoid, softmax"),
        (lambda: TPAConfig(rope_fraction=0.0), r"rope_fraction must be in \(0, 1\], got 0.0"),
        (
            lambda: TPAConfig(rope_fraction=0.02),
            "rope_fraction=0.02 of 64 features leaves no pair to rotate; .* 0.0312",
        ),
        (lambda: TPAConfig(rope_decay=1.5), r"rope_decay must be in \(0, 1\], or null for none, got 1.5"),
        (lambda: TPAConfig(head_dim=63), "TPAConfig: head_dim=63 is odd, but RoPE rotates pairs of features; take 64"),
        (lambda: TPAConfig(rank_k=0), "TPAConfig: rank_k must be at least 1, got 0"),
        (lambda: TPAConfig(num_heads=-1), "num_heads must be at least 1, got -1"),
        (lambda: TPAConfig(impl="cuda"), "impl='cuda' is not an implementation"),
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
    assert TPAConfig(factorized="kv").label == "TPA-KVonly (2, 2)"
    assert TPAConfig(factorized="q", num_kv_heads=1).label == "TPA-Qonly (6), 1 KV head"
    assert TPAConfig(static_a=True, rope_fraction=0.5).label == "TPA (6, 2, 2), non-contextual A, 0.5 of RoPE"
    assert TPAConfig(third_order_dim=8, value_dim=16).label == "TPA (6, 2, 2), third order (8), values of 16"


def test_third_order_does_not_concern_dense_values():
    TPAConfig(factorized="q", third_order_dim=8, value_dim=12)


def test_numbers_of_dense_parts_are_their_own():
    assert TPAConfig(8, factorized="kv").numbers()["rank_q"] == 0
    assert (
        TPAConfig(8, factorized="q").numbers() | {"rank_k": 0, "rank_v": 0, "num_kv_heads": 8}
        == TPAConfig(8, factorized="q").numbers()
    )


def test_other_labels():
    assert MultiHeadConfig().label == "MHA"
    assert MultiHeadConfig(4, 4).label == "MHA"
    assert MultiHeadConfig(4, 1).label == "MQA"
    assert MultiHeadConfig(4, 2).label == "GQA (2 KV heads)"
