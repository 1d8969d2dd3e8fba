"""Attention by packed factors beside that by six: float32 under Triton's interpreter on a CPU, every type on a GPU."""

import pytest
import torch

from lit_t6.ops import apply_rope, dense_attention, fused, materialise, rope_angles
from lit_t6.ops.tpa.factor_attention import factor_attention
from lit_t6.ops.tpa.packed_attention import _packed_attention, packed_attention
from lit_t6.ops.tpa.packed_rows import cut, cut_factors, num_packed_columns, pack
from lit_t6.testing import assert_as_exact_as

from .query_tiles import give_tiles
from .seeds import INTERPRETED, QUIET, poison_new_memory

pytestmark = QUIET
CASES = {
    "trained": dict(batch=1, length=9, num_heads=47, head_dim=64, ranks=(6, 2, 2)),
    "odd": dict(batch=2, length=7, num_heads=7, head_dim=10, ranks=(5, 1, 3)),
    "one token": dict(batch=3, length=1, num_heads=4, head_dim=16, ranks=(2, 2, 2)),
}
DENSE = {
    "trained": dict(batch=1, length=9, num_heads=29, head_dim=64, ranks=(0, 2, 2)),
    "rows of 16 bytes": dict(batch=2, length=5, num_heads=22, head_dim=64, ranks=(0, 2, 2)),
    "odd": dict(batch=2, length=5, num_heads=3, head_dim=16, ranks=(0, 1, 3)),
    "odd, of 64": dict(batch=2, length=5, num_heads=3, head_dim=64, ranks=(0, 2, 1)),
    "two tokens": dict(batch=3, length=2, num_heads=4, head_dim=24, ranks=(0, 2, 2)),
}
"""Of dense queries."""


def draw(batch, length, num_heads, head_dim, ranks, dtype=torch.float32, device="cpu"):
    """Rows whose places behind the heads are as a product leaves them, zeros; those behind all are not to be read."""
    sizes = ranks, num_heads, head_dim
    rows = torch.randn(batch, length, num_packed_columns(*sizes), dtype=dtype, device=device)
    pairs, rest = cut(rows, *sizes)
    rest.fill_(float("nan"))
    for a, _ in pairs:
        if a is not None:
            a[..., num_heads:] = 0
    return rows, sizes


def factors_of(rows, ranks, num_heads, head_dim):
    """a and b of queries, keys and values, of the heads alone."""
    return [factor for pair in cut_factors(rows, ranks, num_heads, head_dim) for factor in pair]


def check(case, dtype, device):
    """Results and gradients are those of six factors, to the last bit: it is the same arithmetic."""
    torch.manual_seed(0)
    rows, sizes = draw(**CASES[case], dtype=dtype, device=device)
    rope = rope_angles(torch.arange(rows.shape[1], device=device), sizes[2])
    packed, apart = (rows.clone().requires_grad_() for _ in range(2))
    out = packed_attention(packed, *sizes, rope)
    expected = factor_attention(*factors_of(apart, *sizes), rope)
    assert torch.equal(out, expected)
    towards = torch.randn_like(out)
    out.backward(towards)
    expected.backward(towards)
    assert torch.equal(packed.grad, apart.grad)  # of the zeros too
    assert packed.grad.is_contiguous()


@pytest.mark.parametrize("ranks", [(5, 1, 3), (0, 2, 1)])
def test_weights_are_packed_as_rows_are_cut(ranks):
    """Each part is the product with its own rows of the weight; places behind the heads are 0."""
    num_heads, head_dim = 13, 10
    shapes = [(num_heads, head_dim)] if not ranks[0] else []
    shapes += [(rank, size) for size in (num_heads, head_dim) for rank in ranks if rank]
    parts = [torch.randn(rank * size, 6) for rank, size in shapes]
    x = torch.randn(2, 3, 6)
    packed = pack(torch.cat(parts), ranks, num_heads, head_dim)
    assert packed.shape[0] == num_packed_columns(ranks, num_heads, head_dim)
    found = factors_of(x @ packed.T, ranks, num_heads, head_dim)
    order = [1, 2, 4, 3, 5] if not ranks[0] else [0, 2, 4, 1, 3, 5]  # queries, a, then b
    for at, shape, part in zip(order, shapes, parts, strict=True):
        torch.testing.assert_close(found[at], (x @ part.T).unflatten(-1, shape))
    pairs, rest = cut(x @ packed.T, ranks, num_heads, head_dim)
    assert not rest.any()
    for a, _ in pairs:
        if a is not None:
            assert a.shape[-1] == 16
            assert not a[..., num_heads:].any()


@INTERPRETED
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_are_those_of_six_factors(case):
    check(case, torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_on_a_gpu_results_and_gradients_are_those_of_six_factors(dtype):
    check("trained", dtype, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("length", [9, 100, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_tiles_of_gradients_go_into_rows_too(dtype, length, monkeypatch):
    """Up to 128 tokens every gradient is the sum of one row of tiles: nothing is added in another order."""
    if "hopper" not in fused.usable(dtype, torch.device("cuda", 0)):
        pytest.skip("not for this GPU")
    monkeypatch.setattr(fused, "fastest", lambda *_: "hopper")
    monkeypatch.setitem(CASES, "trained", CASES["trained"] | {"length": length})
    check("trained", dtype, "cuda")


def plain(rows, ranks, num_heads, head_dim, rope):
    """Of dense queries, by products and PyTorch's attention, in whatever type."""
    _, q, a_k, b_k, a_v, b_v = factors_of(rows, ranks, num_heads, head_dim)
    return dense_attention(apply_rope(q, *rope), materialise(a_k, apply_rope(b_k, *rope)), materialise(a_v, b_v))


def run(function, rows, sizes, dtype, rope):
    """The result, and the gradient of each part of the rows."""
    leaf = rows.to(dtype).requires_grad_()
    out = function(leaf, *sizes, rope)
    towards = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out).to(dtype)
    grad = torch.autograd.grad(out, leaf, towards)[0]
    assert grad.is_contiguous()
    pairs, rest = cut(grad, *sizes)
    assert not rest.any()
    for a, _ in pairs:
        assert a is None or not a[..., sizes[1] :].any()
    names = ["q", "a_k", "b_k", "a_v", "b_v"]
    return {"out": out.detach()} | dict(zip(names, factors_of(grad, *sizes)[1:], strict=True))


def check_dense(case, dtype, device, each=False, **change):
    """Results and gradients are as exact as by products."""
    torch.manual_seed(0)
    rows, sizes = draw(**DENSE[case] | change, dtype=torch.float64, device=device)
    batch, length = rows.shape[:2]
    places = torch.arange(length, device=device) + 3
    if each:
        places = places + 11 * torch.arange(batch, device=device)[:, None]
    rope = rope_angles(places, sizes[2])
    exact = run(plain, rows, sizes, torch.float64, tuple(x.double() for x in rope))
    reference = run(plain, rows, sizes, dtype, rope)
    for name, actual in run(packed_attention, rows, sizes, dtype, rope).items():
        assert_as_exact_as(actual, reference[name], exact[name], name)


@INTERPRETED
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("case", DENSE)
def test_dense_queries_are_as_exact_as_plain_products(case, each):
    check_dense(case, torch.float32, "cpu", each)


@INTERPRETED
@pytest.mark.parametrize("case", ["trained", "odd, of 64"])
def test_gradients_of_dense_queries_are_read_in_tiles(case, monkeypatch):
    calls = give_tiles(monkeypatch)
    check_dense(case, torch.float32, "cpu", each=True)
    assert calls == ["tiles"]


@INTERPRETED
def test_dense_queries_need_not_turn():
    torch.manual_seed(0)
    rows, sizes = draw(**DENSE["odd"])
    packed, apart = (rows.clone().requires_grad_() for _ in range(2))
    out = packed_attention(packed, *sizes)
    expected = factor_attention(*factors_of(apart, *sizes))
    assert torch.equal(out, expected)
    out.sum().backward()
    expected.sum().backward()
    assert torch.equal(packed.grad, apart.grad)


@pytest.mark.gpu
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("case", DENSE)
def test_on_a_gpu_dense_queries_are_as_exact_as_plain_products(case, dtype, each):
    check_dense(case, dtype, "cuda", each, length=130)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["cudnn", "hopper", "flash", "efficient"])
def test_on_a_gpu_all_backends_take_dense_queries(backend, dtype, monkeypatch):
    if backend not in fused.usable(dtype, torch.device("cuda", 0)):
        pytest.skip(f"{backend} is not for this GPU")
    monkeypatch.setattr(fused, "fastest", lambda *_: backend)
    for case in ("trained", "rows of 16 bytes"):
        check_dense(case, dtype, "cuda", batch=2, length=200)


BOTH = pytest.mark.parametrize("case", [CASES["odd"], DENSE["odd"]], ids=["factors", "dense queries"])


@INTERPRETED
@BOTH
def test_every_gradient_is_written(case, monkeypatch):
    """What lay in memory before does not show."""
    poison_new_memory(monkeypatch)
    rows, sizes = draw(**case)
    rows.requires_grad_()
    packed_attention(rows, *sizes).sum().backward()
    assert rows.grad.isfinite().all()


@INTERPRETED
@BOTH
def test_the_operator_is_registered_rightly(case):
    rows, (ranks, num_heads, head_dim) = draw(**case)
    angles = rope_angles(torch.arange(rows.shape[1]), head_dim)
    torch.library.opcheck(_packed_attention, (rows.requires_grad_(), [*ranks], num_heads, head_dim, *angles, 0.3))


@INTERPRETED
@BOTH
def test_a_compiler_takes_it_whole_and_adds_no_copies(case):
    rows, sizes = draw(**case)
    compiled = torch.compile(packed_attention, fullgraph=True, backend="aot_eager")
    found = []
    for function in (packed_attention, compiled):
        leaf = rows.clone().requires_grad_()
        function(leaf, *sizes).square().sum().backward()
        found.append(leaf.grad)
    assert torch.equal(*found)
