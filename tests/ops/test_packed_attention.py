"""Attention by packed factors beside that by six: float32 under Triton's interpreter on a CPU, every type on a GPU."""

import pytest
import torch

from lit_t6.ops import fused, rope_angles
from lit_t6.ops.tpa.factor_attention import factor_attention
from lit_t6.ops.tpa.packed_attention import _packed_attention, cut, packed_attention

from .seeds import INTERPRETED, QUIET

pytestmark = QUIET
CASES = {
    "trained": dict(batch=1, length=9, num_heads=47, head_dim=64, ranks=(6, 2, 2), fill=42),
    "odd": dict(batch=2, length=7, num_heads=7, head_dim=10, ranks=(5, 1, 3), fill=3),
    "nothing behind": dict(batch=3, length=1, num_heads=4, head_dim=16, ranks=(2, 2, 2), fill=0),
}


def draw(batch, length, num_heads, head_dim, ranks, fill, dtype=torch.float32, device="cpu"):
    columns = sum(ranks) * (num_heads + head_dim) + fill
    rows = torch.randn(batch, length, columns, dtype=dtype, device=device)
    return rows, (ranks, num_heads, head_dim)


def check(case, dtype, device):
    """Results and gradients are those of six factors, to the last bit: it is the same arithmetic."""
    torch.manual_seed(0)
    rows, sizes = draw(**CASES[case], dtype=dtype, device=device)
    fill = CASES[case]["fill"]
    rows[..., rows.shape[-1] - fill :] = float("nan")  # not read
    rope = rope_angles(torch.arange(rows.shape[1], device=device), sizes[2])
    packed, apart = (rows.clone().requires_grad_() for _ in range(2))
    out = packed_attention(packed, *sizes, rope)
    pairs, _ = cut(apart, *sizes)
    expected = factor_attention(*(factor for pair in pairs for factor in pair), rope)
    assert torch.equal(out, expected)
    towards = torch.randn_like(out)
    out.backward(towards)
    expected.backward(towards)
    assert torch.equal(packed.grad, apart.grad)
    assert packed.grad.is_contiguous()
    assert not packed.grad[..., rows.shape[-1] - fill :].any()


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


@INTERPRETED
def test_every_gradient_is_written(monkeypatch):
    """What lay in memory before does not show."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **how: empty(*size, **how).fill_(float("nan")))
    rows, sizes = draw(**CASES["odd"])
    rows.requires_grad_()
    packed_attention(rows, *sizes).sum().backward()
    assert rows.grad.isfinite().all()


@INTERPRETED
def test_the_operator_is_registered_rightly():
    rows, (ranks, num_heads, head_dim) = draw(2, 5, 3, 8, (2, 1, 1), 5)
    angles = rope_angles(torch.arange(5), 8)
    torch.library.opcheck(_packed_attention, (rows.requires_grad_(), [*ranks], num_heads, head_dim, *angles, 0.3))


@INTERPRETED
def test_a_compiler_takes_it_whole_and_adds_no_copies():
    rows, sizes = draw(2, 5, 3, 8, (2, 1, 1), 5)
    compiled = torch.compile(packed_attention, fullgraph=True, backend="aot_eager")
    found = []
    for function in (packed_attention, compiled):
        leaf = rows.clone().requires_grad_()
        function(leaf, *sizes).square().sum().backward()
        found.append(leaf.grad)
    assert torch.equal(*found)
