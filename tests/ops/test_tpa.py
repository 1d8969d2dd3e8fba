import pytest
import torch

from lit_t6.ops import TPAFactors, dense_attention, materialise, tpa_attention
from lit_t6.testing import assert_as_exact_as


def random_factors(batch, length, heads, dim, ranks, value_dim=None, dtype=torch.float64):
    sizes = [dim, dim, value_dim or dim]
    pairs = [
        (torch.randn(batch, length, rank, heads, dtype=dtype), torch.randn(batch, length, rank, size, dtype=dtype))
        for rank, size in zip(ranks, sizes, strict=True)
    ]
    return TPAFactors(*(x.requires_grad_() for pair in pairs for x in pair))


def outputs_and_gradients(factors, dtype, impl, **options):
    leaves = [x.detach().to(dtype).requires_grad_() for x in factors]
    out = tpa_attention(TPAFactors(*leaves), impl=impl, **options)
    weights = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
    return {
        "out": out,
        **dict(zip(TPAFactors._fields, torch.autograd.grad((out * weights).sum(), leaves), strict=True)),
    }


CASES = {
    "trained": dict(batch=2, length=17, heads=8, dim=16, ranks=(6, 2, 2)),
    "odd heads": dict(batch=2, length=9, heads=7, dim=16, ranks=(3, 2, 1)),
    "47 heads": dict(batch=1, length=5, heads=47, dim=64, ranks=(6, 2, 2)),
    "rank one": dict(batch=2, length=9, heads=4, dim=8, ranks=(1, 1, 1)),
    "odd ranks": dict(batch=2, length=6, heads=3, dim=10, ranks=(5, 3, 7)),
    "one token": dict(batch=3, length=1, heads=4, dim=8, ranks=(2, 2, 2)),
    "one row": dict(batch=1, length=33, heads=2, dim=8, ranks=(2, 1, 2)),
    "other value size": dict(batch=2, length=7, heads=4, dim=8, ranks=(2, 2, 2), value_dim=12),
}


@pytest.mark.parametrize(
    "options", [{}, {"causal": False}, {"lengths": True}, {"documents": True}, {"scale": 0.2}], ids=str
)
@pytest.mark.parametrize("case", CASES)
def test_materialised_path_is_as_exact_as_the_reference(case, options):
    factors = random_factors(**CASES[case])
    batch, length = factors.a_q.shape[:2]
    if options.pop("lengths", False):
        options = {"lengths": torch.arange(batch) * length // batch}  # 0 among them
    if options.pop("documents", False):
        options = {"document_ids": (torch.arange(length) * 3 // length).expand(batch, -1)}
    exact = outputs_and_gradients(factors, torch.float64, "reference", **options)
    reference = outputs_and_gradients(factors, torch.float32, "reference", **options)
    # What a logit's gradient is a difference of is as large as gradients of values; of one key nothing is left of it.
    terms = max(exact[name].square().mean().sqrt().item() for name in ("a_v", "b_v"))
    for name, actual in outputs_and_gradients(factors, torch.float32, "auto", **options).items():
        differs = name in ("a_q", "b_q", "a_k", "b_k")
        assert_as_exact_as(actual, reference[name], exact[name], name, terms=terms if differs else 0.0)


def test_reference_is_the_definition():
    """Against queries, keys and values formed by loops over heads and ranks."""
    f = random_factors(2, 6, 3, 4, (3, 2, 2))

    def dense(a, b):
        return sum(torch.einsum("bth,btd->bthd", a[:, :, r], b[:, :, r]) for r in range(a.shape[2])) / a.shape[2]

    q, k, v = dense(f.a_q, f.b_q), dense(f.a_k, f.b_k), dense(f.a_v, f.b_v)
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / 4**0.5
    logits = logits.masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf"))
    expected = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)
    torch.testing.assert_close(tpa_attention(f, impl="reference"), expected)
    torch.testing.assert_close(materialise(f.a_k, f.b_k), k)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_mha_mqa_and_gqa_are_tpa_with_fixed_head_factors(kv_heads):
    """Paper section 4: a_i = H·e_i for queries; a_j = G·mask_j for the keys and values of G groups."""
    batch, length, heads, dim = 2, 7, 6, 4
    q = torch.randn(batch, length, heads, dim, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(batch, length, kv_heads, dim, dtype=torch.float64, requires_grad=True) for _ in range(2))
    a_q = heads * torch.eye(heads, dtype=torch.float64)
    a_kv = kv_heads * torch.eye(kv_heads, dtype=torch.float64).repeat_interleave(heads // kv_heads, dim=1)
    a_q, a_kv = (a.expand(batch, length, *a.shape) for a in (a_q, a_kv))
    expected = dense_attention(q, k, v)
    gradients = torch.autograd.grad(expected.square().sum(), (q, k, v))
    for impl in ("auto", "reference"):
        actual = tpa_attention(TPAFactors(a_q, q, a_kv, k, a_kv, v), impl=impl)
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
        for ours, theirs in zip(torch.autograd.grad(actual.square().sum(), (q, k, v)), gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_strides_are_honoured():
    f = random_factors(2, 5, 4, 8, (2, 2, 2))
    parameter = torch.randn(2, 4, dtype=torch.float64)
    static = f._replace(a_k=parameter.expand(2, 5, 2, 4), b_v=f.b_v.transpose(-1, -2).contiguous().transpose(-1, -2))
    packed = TPAFactors(*(x.contiguous() for x in static))
    for impl in ("auto", "reference"):
        torch.testing.assert_close(tpa_attention(static, impl=impl), tpa_attention(packed, impl="reference"))


def test_empty_row_gives_zeros_and_finite_gradients():
    f = random_factors(2, 4, 3, 8, (2, 2, 2))
    for impl in ("auto", "reference"):
        results = outputs_and_gradients(f, torch.float64, impl, lengths=torch.tensor([0, 4]))
        assert not results["out"][0].any()
        assert all(x.isfinite().all() for x in results.values())


def test_refuses_factors_that_do_not_fit():
    f = random_factors(1, 4, 3, 8, (2, 2, 2))
    with pytest.raises(ValueError, match=r"b_k has shape \(1, 4, 2, 6\), expected \(1, 4, 2, 8\)"):
        tpa_attention(f._replace(b_k=torch.randn(1, 4, 2, 6)))
    with pytest.raises(ValueError, match=r"a_v has shape \(1, 4, 2, 5\), expected \(1, 4, 2, 3\)"):
        tpa_attention(f._replace(a_v=torch.randn(1, 4, 2, 5)))
    with pytest.raises(ValueError, match=r"b_q has shape \(4, 2, 8\), expected 4 dimensions"):
        tpa_attention(f._replace(b_q=f.b_q[0]))
    with pytest.raises(ValueError, match=r"lengths has shape \(1, 4\), expected \(1,\)"):
        tpa_attention(f, lengths=torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"document_ids has shape \(4,\), expected \(1, 4\)"):
        tpa_attention(f, document_ids=torch.ones(4))
    with pytest.raises(ValueError, match="impl='cuda' is not an implementation; expected one of auto, reference"):
        tpa_attention(f, impl="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_on_a_gpu(dtype):
    factors = TPAFactors(*(x.detach().cuda() for x in random_factors(2, 130, 47, 64, (6, 2, 2))))
    exact = tpa_attention(factors, impl="reference")
    low = TPAFactors(*(x.to(dtype) for x in factors))
    assert_as_exact_as(tpa_attention(low), tpa_attention(low, impl="reference"), exact)
