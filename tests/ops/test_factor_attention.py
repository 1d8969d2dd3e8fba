"""Attention that keeps factors: float32 under Triton's interpreter on a CPU, every type on a GPU."""

import pytest
import torch

from lit_t6.ops import apply_rope, dense_attention, fused, materialise, rope_angles, tpa_attention
from lit_t6.ops.tpa.factor_attention import _factor_attention, factor_attention, why_not
from lit_t6.ops.tpa.factors import TPAFactors
from lit_t6.testing import assert_as_exact_as

from .query_tiles import give_tiles
from .seeds import INTERPRETED, QUIET

pytestmark = QUIET
NAMES = ("a_q", "b_q", "a_k", "b_k", "a_v", "b_v")


def draw(batch, length, heads, size, ranks, dense="", static="", device="cpu"):
    """Factors in float64: of dense letters, None and the heads; of static ones, an A that is expanded."""
    factors = []
    for letter, rank in zip("qkv", ranks, strict=True):
        if letter in dense:
            factors += [None, torch.randn(batch, length, heads, size, dtype=torch.float64, device=device)]
            continue
        tokens = 1 if letter in static else length
        factors.append(torch.randn(1 if letter in static else batch, tokens, rank, heads, dtype=torch.float64))
        factors.append(torch.randn(batch, length, rank, size, dtype=torch.float64))
    return [None if x is None else x.to(device) for x in factors]


def plain(a_q, b_q, a_k, b_k, a_v, b_v, rope):
    """By products and PyTorch's attention, in whatever type."""
    turned = [x if x is None or a is None else apply_rope(x, *rope) for a, x in ((a_q, b_q), (a_k, b_k))]
    pairs = ((a_q, turned[0]), (a_k, turned[1]), (a_v, b_v))
    return dense_attention(*(b if a is None else materialise(a, b) for a, b in pairs))


def run(function, factors, dtype, rope):
    """Result and gradients of all factors, the static ones as they are expanded from."""
    batch, length = factors[1].shape[:2]
    leaves = [None if x is None else x.to(dtype).requires_grad_() for x in factors]
    whole = [x if x is None or len(x) == batch else x.expand(batch, length, -1, -1) for x in leaves]
    out = function(*whole, rope=rope)
    towards = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out).to(dtype)
    there = [x for x in leaves if x is not None]
    names = [name for name, x in zip(NAMES, leaves, strict=True) if x is not None]
    return {"out": out.detach()} | dict(zip(names, torch.autograd.grad(out, there, towards), strict=True))


def check(factors, dtype, rope):
    exact = run(plain, factors, torch.float64, tuple(x.double() for x in rope))
    reference = run(plain, factors, dtype, rope)
    for name, actual in run(factor_attention, factors, dtype, rope).items():
        assert_as_exact_as(actual, reference[name], exact[name], name)


CASES = {
    "trained": dict(batch=1, length=9, heads=47, size=64, ranks=(6, 2, 2)),
    "odd": dict(batch=2, length=7, heads=7, size=10, ranks=(5, 1, 3)),
    "one token": dict(batch=3, length=1, heads=4, size=16, ranks=(2, 2, 2)),
    "one head": dict(batch=1, length=33, heads=1, size=8, ranks=(1, 1, 1)),
    "dense queries": dict(batch=2, length=6, heads=5, size=16, ranks=(1, 2, 2), dense="q"),
    "dense keys and values": dict(batch=2, length=6, heads=5, size=16, ranks=(3, 1, 1), dense="kv"),
    "static": dict(batch=2, length=6, heads=5, size=16, ranks=(3, 2, 2), static="qkv"),
}


@INTERPRETED
@pytest.mark.parametrize("rotated", ["alike", "row by row"])
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_are_as_exact_as_plain_products(case, rotated):
    torch.manual_seed(0)
    factors = draw(**CASES[case])
    batch, length, _, size = factors[1].shape
    positions = torch.arange(length)
    if rotated == "row by row":
        positions = positions + torch.arange(batch)[:, None] * 5
    check(factors, torch.float32, rope_angles(positions, size))


@INTERPRETED
def test_factors_may_be_cut_out_of_wider_rows_and_gradients_may_lie_anyhow():
    torch.manual_seed(0)
    whole = torch.randn(2, 5, 3 * 7 + 3 * 8 + 2 * 7 + 2 * 8 + 7 + 8)
    parts = whole.split([21, 24, 14, 16, 7, 8], -1)
    factors = [x.unflatten(-1, (-1, n)) for x, n in zip(parts, (7, 8, 7, 8, 7, 8), strict=True)]
    leaves = [x.clone().requires_grad_() for x in factors]
    cut = [x.requires_grad_() for x in factors]
    for each in (leaves, cut):
        factor_attention(*each).transpose(1, 2).reshape(2, 7, -1).sin().sum().backward()
    for one, other in zip(leaves, cut, strict=True):
        assert torch.equal(one.grad, other.grad)


@INTERPRETED
def test_tpa_attention_takes_it_by_name_and_says_what_it_cannot():
    torch.manual_seed(0)
    f = TPAFactors(*(x.float() for x in draw(2, 6, 5, 16, (3, 2, 2))))
    torch.testing.assert_close(tpa_attention(f, impl="triton"), tpa_attention(f, impl="reference"))
    with pytest.raises(ValueError, match=r"cannot attend to this: lengths, document_ids or causal=False"):
        tpa_attention(f, impl="triton", causal=False)
    with pytest.raises(ValueError, match=r"factors of torch.float64, expected one of float32, float16, bfloat16"):
        tpa_attention(TPAFactors(*(x.double() for x in f)), impl="triton")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(heads=129), "129 heads of 16, at most 128 of 128"),
        (dict(size=130), "4 heads of 130, at most"),
        (dict(ranks=(33, 1, 1)), "rank 33, at most 32"),
    ],
)
@INTERPRETED
def test_what_the_kernels_cannot_is_said(change, reason):
    case = dict(batch=1, length=2, heads=4, size=16, ranks=(1, 1, 1)) | change
    assert reason in why_not(*(x.float() for x in draw(**case)))


@INTERPRETED
def test_values_of_another_size_and_other_types_are_refused():
    a, b = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 1, 16)
    assert "of sizes {'q': 16, 'k': 16, 'v': 8}" in why_not(a, b, a, b, a, b[..., :8])
    assert "torch.bfloat16, torch.float32, expected one type" in why_not(a, b, a, b, a, b.bfloat16())


@INTERPRETED
def test_the_operator_is_registered_rightly():
    torch.manual_seed(0)
    factors = [x.float().requires_grad_() for x in draw(2, 5, 3, 8, (2, 1, 1))]
    torch.library.opcheck(_factor_attention, (*factors, *rope_angles(torch.arange(5), 8), 0.3))


@INTERPRETED
def test_a_compiler_takes_it_whole():
    torch.manual_seed(0)
    rope = rope_angles(torch.arange(5), 8)
    factors = [x.float() for x in draw(2, 5, 3, 8, (2, 1, 1))]
    compiled = torch.compile(factor_attention, fullgraph=True, backend="aot_eager")
    expected, found = (run(f, factors, torch.float32, rope) for f in (factor_attention, compiled))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


@INTERPRETED
def test_neither_queries_nor_keys_nor_values_are_kept():
    torch.manual_seed(0)
    kept = []
    factors = [x.float().requires_grad_() for x in draw(1, 8, 40, 32, (2, 1, 1))]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        factor_attention(*factors)
    dense = [x for x in kept if x.numel() >= 8 * 40 * 32]
    assert len(dense) == 1  # the result
    assert sum(x.numel() for x in kept) < 2 * 8 * 40 * 32


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case["size"] % 8 == 0])
def test_on_a_gpu_results_and_gradients_are_as_exact_as_plain_products(case, dtype):
    torch.manual_seed(0)
    factors = draw(**CASES[case] | {"length": 130}, device="cuda")
    check(factors, dtype, rope_angles(torch.arange(130, device="cuda"), CASES[case]["size"]))


@pytest.mark.gpu
@pytest.mark.parametrize("dense", ["", "q"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["cudnn", "hopper", "flash", "efficient"])
def test_on_a_gpu_all_backends_agree(backend, dtype, dense, monkeypatch):
    if backend not in fused.usable(dtype, torch.device("cuda", 0)):
        pytest.skip(f"{backend} is not for this GPU")
    torch.manual_seed(0)
    monkeypatch.setattr(fused, "fastest", lambda *_: backend)
    factors = draw(2, 200, 7, 64, (6, 2, 2), dense, device="cuda")
    check(factors, dtype, rope_angles(torch.arange(200, device="cuda"), 64))


@INTERPRETED
@pytest.mark.parametrize("dense", ["", "q"])
def test_gradients_of_queries_are_read_in_tiles(dense, monkeypatch):
    """Where the way back leaves them there; dense queries have rows."""
    torch.manual_seed(0)
    calls = give_tiles(monkeypatch)
    factors = draw(2, 5, 5, 64, (3, 2, 2), dense)
    check(factors, torch.float32, rope_angles(torch.arange(5), 64))
    assert calls == ([] if dense else ["tiles"])


@pytest.mark.gpu
def test_on_a_gpu_the_backend_is_measured_and_told(caplog):
    fused._measured.clear()
    with caplog.at_level("INFO", "lit_t6"):
        best = fused.fastest((2, 256, 8, 64), torch.bfloat16, torch.device("cuda", 0))
    assert f"taken: {best}" in caplog.text
    assert all(backend in caplog.text for backend in fused.usable(torch.bfloat16, torch.device("cuda", 0)))
    assert fused.fastest((2, 256, 8, 64), torch.float32, torch.device("cuda", 0)) == "efficient"
