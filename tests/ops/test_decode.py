import pytest
import torch

from lit_t6.ops import TPAFactors, cached_attention, head_groups, materialise, outer_features, tpa_decode
from lit_t6.testing import assert_as_exact_as

CASES = {
    "trained": dict(new=1, held=40, heads=8, dim=16, ranks=(6, 2, 2)),
    "several": dict(new=5, held=23, heads=7, dim=16, ranks=(3, 2, 1)),
    "47 heads": dict(new=1, held=9, heads=47, dim=64, ranks=(16, 1, 1)),
    "odd ranks": dict(new=2, held=6, heads=3, dim=10, ranks=(5, 3, 7)),
    "one row, one entry": dict(new=1, held=1, heads=4, dim=8, ranks=(2, 2, 2), batch=1),
    "other value size": dict(new=2, held=7, heads=4, dim=8, ranks=(2, 2, 2), value_dim=12),
}


def random_cache(new, held, heads, dim, ranks, value_dim=None, batch=3):
    lengths = (new, held, held)
    sizes = (dim, dim, value_dim or dim)
    return TPAFactors(
        *(
            torch.randn(batch, length, rank, size, dtype=torch.float64)
            for length, rank, last in zip(lengths, ranks, sizes, strict=True)
            for size in (heads, last)
        )
    )


def row_lengths(factors):
    """Full, half full, and with no valid entry."""
    held = factors.a_k.shape[1]
    return torch.tensor([held, (held + 1) // 2, 0])[: factors.a_k.shape[0]]


@pytest.mark.parametrize("case", CASES)
def test_reference_is_attention_over_formed_keys_and_values(case):
    f = random_cache(**CASES[case])
    q, k, v = materialise(f.a_q, f.b_q), materialise(f.a_k, f.b_k), materialise(f.a_v, f.b_v)
    for options in ({}, {"lengths": row_lengths(f)}, {"scale": 0.2}):
        torch.testing.assert_close(tpa_decode(*f, impl="reference", **options), cached_attention(q, k, v, **options))


@pytest.mark.parametrize("case", CASES)
def test_matrix_products_are_as_exact_as_the_reference(case):
    exact_factors = random_cache(**CASES[case])
    lengths = row_lengths(exact_factors)
    exact = tpa_decode(*exact_factors, lengths=lengths, impl="reference")
    factors = TPAFactors(*(x.float() for x in exact_factors))
    actual = tpa_decode(*factors, lengths=lengths)
    assert_as_exact_as(actual, tpa_decode(*factors, lengths=lengths, impl="reference"), exact)
    assert not actual[lengths == 0].any()


def test_strides_are_honoured():
    f = random_cache(**CASES["trained"])
    static = f._replace(
        a_k=f.a_k[:1, :1].expand_as(f.a_k), b_v=f.b_v.mT.contiguous().mT, b_k=f.b_k[:1].expand_as(f.b_k)
    )
    packed = (x.contiguous() for x in static)
    torch.testing.assert_close(tpa_decode(*static), tpa_decode(*packed, impl="reference"))


def test_dense_heads_are_factors_with_a_fixed_a():
    k = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    a = head_groups(3, 6, dtype=k.dtype).expand(2, 5, -1, -1)
    torch.testing.assert_close(materialise(a, k), k.repeat_interleave(2, dim=2))
    assert head_groups(1, 4).tolist() == [[1, 1, 1, 1]]


def test_features_of_third_order():
    b, c = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0, 30.0])
    assert outer_features(b, c).tolist() == [10, 20, 20, 40, 30, 60]  # blocks of b, one for each entry of c


@pytest.mark.parametrize("new", [1, 20])
def test_dense_queries_need_no_factors(new):
    f = random_cache(new, 23, 6, 16, (6, 2, 3))
    lengths = torch.tensor([23, 21, 20])
    a_q = head_groups(6, 6, dtype=f.b_q.dtype).expand(3, new, -1, -1)
    expected = tpa_decode(a_q, *f[1:], lengths=lengths, impl="reference")
    for impl in ("auto", "reference"):
        torch.testing.assert_close(tpa_decode(None, *f[1:], lengths=lengths, impl=impl), expected)


def test_many_queries_take_another_way_to_the_same_result():
    f = random_cache(new=40, held=50, heads=7, dim=16, ranks=(3, 2, 1))
    lengths = torch.tensor([50, 45, 40])
    reference = tpa_decode(*f, lengths=lengths, impl="reference")
    torch.testing.assert_close(tpa_decode(*f, lengths=lengths), reference)


def test_logits_keep_their_precision_under_autocast():
    exact_factors = random_cache(**CASES["trained"])
    exact = tpa_decode(*exact_factors, impl="reference")
    factors = [x.bfloat16() for x in exact_factors]
    plain = tpa_decode(*factors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tpa_decode(*factors), plain)
    assert_as_exact_as(plain, tpa_decode(*factors, impl="reference"), exact)


def test_refuses_what_does_not_fit():
    f = random_cache(**CASES["several"])
    with pytest.raises(ValueError, match=r"b_v has shape \(3, 22, 1, 16\), expected \(3, 23, 1, 16\)"):
        tpa_decode(*f._replace(b_v=f.b_v[:, 1:]))
    with pytest.raises(ValueError, match=r"lengths has shape \(2,\), expected \(3,\)"):
        tpa_decode(*f, lengths=torch.ones(2))
    with pytest.raises(ValueError, match="impl=.cuda. is not an implementation; expected one of auto, "):
        tpa_decode(*f, impl="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_on_a_gpu(dtype):
    factors = TPAFactors(*(x.cuda() for x in random_cache(new=2, held=300, heads=47, dim=64, ranks=(6, 2, 2))))
    lengths = row_lengths(factors).cuda()
    exact = tpa_decode(*factors, lengths=lengths, impl="reference")
    low = TPAFactors(*(x.to(dtype) for x in factors))
    reference = tpa_decode(*low, lengths=lengths, impl="reference")
    assert_as_exact_as(tpa_decode(*low, lengths=lengths), reference, exact)
