"""Attention over rows of one projection, beside RoPE and attention apart: float32 on a CPU, half precision on a GPU."""

import pytest
import torch
import torch.nn.functional as F

from lit_t6.ops import apply_rope, rope_angles
from lit_t6.ops.dense import packed
from lit_t6.ops.dense.causal import causal_attention
from lit_t6.ops.dense.packed import packed_causal_attention
from lit_t6.testing import assert_as_exact_as

from .query_tiles import in_tiles
from .seeds import INTERPRETED, QUIET

pytestmark = QUIET
SHAPES = [(2, 5, 3, 16), (1, 17, 3, 64), (2, 1, 1, 24), (3, 4, 18, 8), (1, 3, 2, 128)]
"""B, T, H, D."""
NAN = float("nan")


def draw(batch, length, heads, size, each=False, **options):
    """Rows and angles; of `each` row's own positions, or the same for all."""
    rows = torch.randn(batch, length, 3 * heads * size, **options)
    places = torch.arange(length, device=rows.device) + 7
    if each:
        places = places + 11 * torch.arange(batch, device=rows.device)[:, None]
    return rows, rope_angles(places, size)


def apart(rows, num_heads, rope, attend=causal_attention):
    q, k, v = rows.unflatten(-1, (3, num_heads, -1)).unbind(2)
    return attend(apply_rope(q, *rope), apply_rope(k, *rope), v)


def by_pytorch(q, k, v):
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True).transpose(1, 2)


def run(function, rows, *arguments, dtype=torch.float32, **options):
    leaf = rows.detach().to(dtype).requires_grad_()
    out = function(leaf, *arguments, **options)
    towards = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out).to(dtype)
    return out.detach(), torch.autograd.grad(out, leaf, towards)[0]


@INTERPRETED
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("copies", [False, True])
def test_results_and_gradients_are_those_of_rope_and_attention(shape, each, copies):
    rows, rope = draw(*shape, each=each)
    found = run(packed_causal_attention, rows, shape[2], rope, copies_values=copies)
    for actual, expected in zip(found, run(apart, rows, shape[2], rope), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    assert found[1].is_contiguous()


@INTERPRETED
def test_rows_that_are_columns_of_others_and_angles_of_one_row_for_all():
    rows, rope = draw(2, 5, 3, 16)
    wide = torch.cat((rows, rows), -1)[..., : rows.shape[-1]]
    one = tuple(x[None] for x in rope)
    found, expected = run(packed_causal_attention, wide, 3, one), run(packed_causal_attention, rows, 3, rope)
    assert all(map(torch.equal, found, expected))


@INTERPRETED
def test_every_number_is_written(monkeypatch):
    """What lay in memory before does not show."""
    new_empty = torch.Tensor.new_empty
    poisoned = []

    def new_nan(*arguments, **options):
        poisoned.append(new_empty(*arguments, **options).fill_(NAN))
        return poisoned[-1]

    monkeypatch.setattr(torch.Tensor, "new_empty", new_nan)
    rows, rope = draw(2, 5, 3, 24)
    for result in run(packed_causal_attention, rows, 3, rope, copies_values=True):
        assert result.isfinite().all()
    assert {tuple(x.shape) for x in poisoned} >= {(2, 5, 3, 24), (2, 5, 3 * 3 * 24)}


def check_way_back(length, dtype, device):
    """From strided gradients, and from tiles, as the transpose of RoPE."""
    from lit_t6.ops.dense.rope_rows import rope_rows_backward

    batch, heads, size, scale = 2, 3, 64, 0.125
    rows, rope = draw(batch, length, heads, size, each=True, dtype=dtype, device=device)
    rows.requires_grad_()
    q, k, v = rows.unflatten(-1, (3, heads, size)).unbind(2)
    of_q, of_k, of_v = torch.randn(3, batch, length, heads, size, device=device).to(dtype)
    turned = (apply_rope(q, *rope), apply_rope(k, *rope), v)
    (expected,) = torch.autograd.grad(turned, rows, (of_q, of_k, of_v))
    strided = of_q.transpose(1, 2).contiguous().transpose(1, 2)
    wide = torch.stack((of_k, of_v), 2).unbind(2)
    for found in (
        rope_rows_backward(of_q, of_k, of_v, *rope),
        rope_rows_backward(strided, *wide, *rope),
        rope_rows_backward(in_tiles(of_q, scale), of_k, of_v, *rope),
    ):
        eps = torch.finfo(dtype).eps  # two products of the kernel's may be one operation
        torch.testing.assert_close(found, expected, rtol=eps, atol=eps)


@INTERPRETED
@pytest.mark.parametrize("length", [1, 17, 130])
def test_the_way_back_takes_strides_and_tiles(length):
    check_way_back(length, torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("length", [1, 17, 130, 1024])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_on_a_gpu_the_way_back_takes_strides_and_tiles(length, dtype):
    check_way_back(length, dtype, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(2, 200, 7, 64), (1, 65, 16, 128), (3, 33, 2, 24), (2, 1, 1, 8)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("copies", [False, True])
def test_on_a_gpu_it_is_as_exact_as_rope_and_attention(shape, dtype, copies):
    rows, rope = draw(*shape, each=True, dtype=dtype, device="cuda")
    exact = run(apart, rows, shape[2], rope, by_pytorch, dtype=torch.float64)
    reference = run(apart, rows, shape[2], rope, by_pytorch, dtype=dtype)
    found = run(packed_causal_attention, rows, shape[2], rope, dtype=dtype, copies_values=copies)
    for name, *each in zip(("out", "rows"), found, reference, exact, strict=True):
        assert_as_exact_as(*each, name)


@INTERPRETED
def test_autocast_decides_the_type():
    rows, rope = draw(2, 5, 3, 16)
    rows.requires_grad_()
    with torch.autocast("cpu", torch.float16):
        assert packed_causal_attention(rows, 3, rope).dtype == torch.float16
    packed_causal_attention(rows, 3, rope).sum().backward()
    assert rows.grad.dtype == torch.float32


@INTERPRETED
@pytest.mark.parametrize("copies", [False, True])
def test_the_operators_are_registered_rightly(copies):
    rows, rope = draw(2, 5, 3, 16)
    torch.library.opcheck(packed._rope_rows, (rows, 3, *rope, copies))
    q, k, v = packed._rope_rows(rows, 3, *rope, copies)
    torch.library.opcheck(packed._packed, (rows.requires_grad_(), q, k, v if copies else None, *rope, 0.3))


@INTERPRETED
def test_a_compiler_takes_it_whole():
    rows, rope = draw(2, 5, 3, 16)
    compiled = torch.compile(packed_causal_attention, fullgraph=True, backend="aot_eager")
    found = [run(function, rows, 3, rope) for function in (packed_causal_attention, compiled)]
    assert all(map(torch.equal, *found))


@INTERPRETED
def test_no_more_is_kept_than_of_rope_and_attention_apart():
    rows, rope = draw(2, 5, 3, 16)
    found = []
    for function, options in ((apart, {}), *((packed_causal_attention, {"copies_values": x}) for x in (False, True))):
        kept = {}
        leaf = (rows.clone().requires_grad_() * 1.0).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: kept.update({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()}) or x,
            lambda x: x,
        ):
            out = function(leaf, 3, rope, **options)
        found.append(sum(kept.values()))
        del out
    tables = 2 * rope[0].nbytes
    of_heads, of_lse = rows.nbytes // 3, 2 * 5 * 3 * 4
    assert found == [6 * of_heads + of_lse + tables, 6 * of_heads + of_lse + tables, 4 * of_heads + of_lse + tables]


def test_a_cpu_is_left_to_pytorch():
    assert not packed.is_for(torch.randn(2, 5, 3 * 48, dtype=torch.bfloat16, requires_grad=True), 3)
