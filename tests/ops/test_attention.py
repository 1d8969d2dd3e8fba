import pytest
import torch

from lit_t6.ops import cache_visibility, cached_attention, dense_attention, visibility
from lit_t6.ops.alignment import aligned

from .seeds import INTERPRETED


def by_hand(q, k, v, visible, scale):
    """Softmax attention, one query at a time, over the keys that it sees."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    group = q.shape[2] // k.shape[2]
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            seen = [m for m in range(k.shape[1]) if visible(b, t, m)]
            for h in range(q.shape[2]):
                if seen:
                    weights = (k[b, seen, h // group] @ q[b, t, h] * scale).softmax(0)
                    out[b, t, h] = weights @ v[b, seen, h // group]
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_equals_softmax_by_hand(kv_heads):
    q = torch.randn(2, 5, 6, 4, dtype=torch.float64)
    k, v = torch.randn(2, 5, kv_heads, 4, dtype=torch.float64), torch.randn(2, 5, kv_heads, 3, dtype=torch.float64)
    expected = by_hand(q, k, v, lambda b, t, m: m <= t, 0.5)
    torch.testing.assert_close(dense_attention(q, k, v), expected)
    torch.testing.assert_close(
        dense_attention(q, k, v, causal=False, scale=0.3), by_hand(q, k, v, lambda b, t, m: True, 0.3)
    )


def test_lengths_and_documents():
    q, k, v = torch.randn(3, 3, 5, 2, 4, dtype=torch.float64)
    lengths = torch.tensor([5, 3, 0])
    ids = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    expected = by_hand(q, k, v, lambda b, t, m: m <= t and m < lengths[b] and ids[b, t] == ids[b, m], 0.5)
    torch.testing.assert_close(dense_attention(q, k, v, lengths=lengths, document_ids=ids), expected)


def test_a_query_that_sees_nothing_gives_zeros_and_no_nan_gradient():
    q, k, v = (torch.randn(2, 3, 2, 4, requires_grad=True) for _ in range(3))
    out = dense_attention(q, k, v, lengths=torch.tensor([0, 2]))
    assert not out[0].any()
    out.square().sum().backward()
    for x in (q, k, v):
        assert x.grad.isfinite().all()
        assert not x.grad[0].any()


def test_no_mask_where_all_is_visible():
    assert visibility(3, 3, torch.device("cpu"), causal=False) is None


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("num_queries", [1, 3, 40])
def test_cached_attention_is_softmax_by_hand(kv_heads, num_queries):
    held = num_queries + 4
    q = torch.randn(3, num_queries, 6, 4, dtype=torch.float64)
    k = torch.randn(3, held, kv_heads, 4, dtype=torch.float64)
    v = torch.randn(3, held, kv_heads, 3, dtype=torch.float64)
    lengths = torch.tensor([held, 4, 0])  # the last row sees nothing
    expected = by_hand(q, k, v, lambda b, n, m: m < lengths[b] - num_queries + n + 1, 0.5)
    torch.testing.assert_close(cached_attention(q, k, v, lengths=lengths), expected)
    full = cached_attention(q, k, v, lengths=torch.full((3,), held), scale=0.3)
    torch.testing.assert_close(cached_attention(q, k, v, scale=0.3), full)


def test_the_newest_tokens_see_the_cache_and_those_before_them():
    seen = cache_visibility(2, 4, torch.tensor([4, 2]))[:, 0]
    assert seen.int().tolist() == [[[1, 1, 1, 0], [1, 1, 1, 1]], [[1, 0, 0, 0], [1, 1, 0, 0]]]


def test_a_cache_of_another_type_decides_the_precision_but_not_the_result():
    q, k, v = torch.randn(1, 1, 2, 8).bfloat16(), torch.randn(1, 5, 2, 8), torch.randn(1, 5, 2, 8)
    out = cached_attention(q, k, v)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, cached_attention(q.float(), k, v).bfloat16())


def test_cached_attention_refuses_lengths_of_another_shape():
    q = torch.randn(2, 1, 2, 8)
    with pytest.raises(ValueError, match=r"lengths has shape \(1,\), expected \(2,\)"):
        cached_attention(q, q, q, lengths=torch.ones(1))


def test_rows_that_are_not_aligned_are_packed():
    wide = torch.randn(2, 5, 196, dtype=torch.bfloat16)  # rows of 392 bytes
    assert aligned(wide[..., :32].unflatten(-1, (2, 16))).is_contiguous()
    assert aligned(torch.randn(2, 5, 33)[..., 1:]).is_contiguous()
    kept = torch.randn(2, 5, 160, dtype=torch.bfloat16)[..., 96:128].unflatten(-1, (2, 16))
    assert aligned(kept) is kept


@pytest.mark.gpu
@pytest.mark.parametrize("columns", [192, 196, 193])
@pytest.mark.parametrize("kv_heads", [2, 6])
def test_slices_of_wide_rows_on_a_gpu(columns, kv_heads):
    q = torch.randn(2, 40, 6, 16, device="cuda", dtype=torch.bfloat16)
    wide = torch.randn(2, 40, columns, device="cuda", dtype=torch.bfloat16)
    k, v = (part.unflatten(-1, (kv_heads, 16)) for part in wide[..., : 2 * kv_heads * 16].chunk(2, dim=-1))
    packed = dense_attention(q, k.contiguous(), v.contiguous())
    assert torch.equal(dense_attention(q, k, v), packed)


def test_compiled_for_any_sizes():
    """Head counts that are symbols: whether heads share keys is then no plain bool."""
    attend = torch.compile(dense_attention, fullgraph=True, backend="aot_eager", dynamic=True)
    for heads, groups in ((3, 3), (5, 5), (4, 2)):
        q, k, v = torch.randn(2, 9, heads, 8), torch.randn(2, 9, groups, 8), torch.randn(2, 9, groups, 8)
        torch.testing.assert_close(attend(q, k, v), dense_attention(q, k, v))


@pytest.mark.parametrize("impl", ["auto", "reference", pytest.param("triton", marks=INTERPRETED)])
def test_a_cache_that_does_not_fit_its_queries_is_refused(impl):
    q, k, v = torch.randn(2, 1, 4, 16), torch.randn(2, 12, 2, 16), torch.randn(2, 12, 2, 16)
    cached_attention(q, k, v, impl=impl)
    for given, message in (
        ((q[:, :, :3], k, v), "q has 3 heads, expected a multiple of the 2 of k"),
        ((q[:1], k, v), r"q has shape \(1, 1, 4, 16\), expected \(2, N, H, 16\)"),
        ((q[..., :8], k, v), r"q has shape \(2, 1, 4, 8\), expected \(2, N, H, 16\)"),
        ((q[0], k, v), r"q has shape \(1, 4, 16\), expected 4 dimensions: \(B, N, H, D\)"),
        ((q, k, v[:, :3]), r"v has shape \(2, 3, 2, 16\), expected \(2, 12, 2, E\), as k has"),
        ((q, k, 20), "v is 20, expected 1 to 16"),
    ):
        with pytest.raises(ValueError, match=message):
            cached_attention(*given, impl=impl)
    with pytest.raises(ValueError, match="lengths are torch.float32, expected whole numbers"):
        cached_attention(q, k, v, lengths=torch.tensor([3.7, 2.0]), impl=impl)
