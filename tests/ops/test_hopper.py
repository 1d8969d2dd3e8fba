"""Our attention: what stands beside it on a CPU, the kernels themselves on a Hopper GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lit_t6.ops import fused
from lit_t6.ops.dense import hopper
from lit_t6.testing import assert_as_exact_as

from .query_tiles import in_tiles, place
from .seeds import INTERPRETED, QUIET, poison_new_memory

pytestmark = QUIET
CUDA = torch.device("cuda", 0)
needs_hopper = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs a Hopper GPU"
)


def test_a_tile_has_a_place_for_every_number():
    rows, columns = torch.arange(64)[:, None], torch.arange(64)
    assert sorted(place(rows, columns).flatten().tolist()) == list(range(4096))


@INTERPRETED
@pytest.mark.parametrize(("batch", "length", "heads"), [(2, 1, 3), (1, 64, 1), (3, 100, 5), (1, 128, 4), (2, 200, 9)])
def test_sums_beforehand(batch, length, heads, monkeypatch):
    poison_new_memory(monkeypatch)
    out, grad = torch.randn(2, batch, length, heads, 64)
    lse = torch.randn(batch, heads, length)
    lines, stored = hopper.sums(grad, out, lse)
    assert stored.tolist() == [0] * (batch * heads)
    assert lines.shape == (batch, heads, -(-length // 128) * 2, 2, 64)
    lse2, delta = (x.flatten(2) for x in lines.unbind(3))
    exact = (out.double() * grad.double()).sum(-1).transpose(1, 2)
    assert_as_exact_as(delta[..., :length], (out * grad).sum(-1).transpose(1, 2), exact, "sums")
    torch.testing.assert_close(lse2[..., :length], lse * 1.4426950408889634)
    assert (lse2[..., length:] == float("inf")).all(), "weights behind the last position are zero"
    assert not delta[..., length:].any()


@INTERPRETED
@pytest.mark.parametrize(("batch", "length", "heads"), [(2, 1, 3), (1, 64, 1), (3, 100, 5), (1, 200, 2)])
def test_rows_of_tiles(batch, length, heads):
    rows = torch.randn(batch, length, heads, 64)
    found = in_tiles(rows, 0.25).rows(torch.float32)
    assert found.is_contiguous()
    assert torch.equal(found, rows)


@pytest.fixture
def gpu(monkeypatch):
    """A Hopper GPU that is not there."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(hopper, "_import_problem", lambda: None)


@pytest.mark.usefixtures("gpu")
def test_what_it_takes_and_why_not_the_rest(monkeypatch):
    half = torch.bfloat16
    assert hopper.why_not(half, CUDA) is None
    assert hopper.why_not(torch.float16, CUDA, (20, 1024, 47, 64)) is None
    assert "tensors on cpu, expected an NVIDIA GPU" in hopper.why_not(half, torch.device("cpu"))
    assert "heads of torch.float32, expected" in hopper.why_not(torch.float32, CUDA)
    assert "heads of 128, expected 64" in hopper.why_not(half, CUDA, (1, 8, 2, 128))
    assert "more than it can count" in hopper.why_not(half, CUDA, (2**16, 2**16, 8, 64))
    assert "more than it can count" in hopper.why_not(half, CUDA, (1, 1, 2**19, 64))
    monkeypatch.setattr(hopper, "_import_problem", lambda: "no such Gluon")
    assert hopper.why_not(half, CUDA) == "no such Gluon"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (10, 0))
    assert "compute capability (10, 0), expected (9, 0)" in hopper.why_not(half, CUDA)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "expected an NVIDIA GPU" in hopper.why_not(half, CUDA)


def test_what_it_does_not_take_is_refused_as_others_refuse():
    x = torch.zeros(1, 2, 3, 64, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="tensors on cpu"):
        hopper.attention_backward(x, x, x, x, x, torch.zeros(1, 3, 2), 0.1)
    with pytest.raises(RuntimeError, match="tensors on cpu"):
        hopper.attention(x, x, x, 0.1)


def test_whether_the_kernel_can_be_imported_is_asked_while_a_whole_graph_is_captured(monkeypatch):
    monkeypatch.setattr(hopper, "_import_problem", lambda: "no such Gluon")
    torch._dynamo.reset()

    @torch.compile(backend="eager", fullgraph=True)
    def add(x):
        return x + (1 if hopper._missing() is None else 2)

    assert add(torch.zeros(())).item() == 2


def test_a_triton_of_another_gluon_is_named(monkeypatch):
    name = "lit_t6.ops.dense.kernels.attention_backward"
    monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    assert "no such Gluon: " in hopper._import_problem.__wrapped__()


def test_the_kernels_compile_for_a_hopper_gpu():
    """Without one, but for what the driver does: Gluon is an experiment of Triton's, and changes."""
    settings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, Path(__file__).with_name("compile_hopper.py")]
    run = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["back", "forward", "long"]


def draw(batch, length, heads, dtype=torch.float64):
    """Queries, keys, values and the gradient of the result, as a projection leaves them: columns of one matrix."""
    return torch.randn(batch, length, 4, heads, 64, dtype=dtype, device="cuda").unbind(2)


def gradients(heads, dtype, scale):
    """By PyTorch."""
    *leaves, grad = (x.to(dtype) for x in heads)
    leaves = [x.detach().requires_grad_() for x in leaves]
    q, k, v = (x.transpose(1, 2) for x in leaves)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)
    return torch.autograd.grad(out, leaves, grad)


def check(heads, dtype, scale, found):
    exact, reference = gradients(heads, torch.float64, scale), gradients(heads, dtype, scale)
    for name, value, near, true in zip("qkv", found, reference, exact, strict=True):
        assert value.is_contiguous(), name
        assert_as_exact_as(value, near, true, name)


SHAPES = [(1, 2, 3), (1, 64, 1), (3, 100, 5), (2, 128, 1), (1, 129, 7), (2, 333, 3), (1, 1000, 2), (2, 1024, 7)]
SHAPES += [(1, 2048, 3), (40, 130, 47), (8, 1024, 47), (3, 333, 100), (1, 2048, 272)]
"""Of the last four a head's first row stores the gradient of queries."""
FORWARD_SHAPES = [*SHAPES, (3, 1, 5), (2, 1536, 3), (2, 1537, 30), (3, 1601, 47), (1, 4097, 2)]


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("batch", "length", "heads"), FORWARD_SHAPES)
def test_on_a_gpu_the_result_is_as_exact_as_pytorchs(batch, length, heads, dtype, monkeypatch):
    torch.manual_seed(0)
    scale = 0.2
    given = draw(batch, length, heads)[:3]
    near = [x.to(dtype) for x in given]
    poison_new_memory(monkeypatch)
    out, lse = hopper.attention(*near, scale)
    monkeypatch.undo()
    assert out.is_contiguous()
    assert lse.is_contiguous()
    exact, reference = (
        F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in heads), is_causal=True, scale=scale).transpose(1, 2)
        for heads in (given, near)
    )
    assert_as_exact_as(out, reference, exact, "result")
    hidden = torch.ones(length, length, dtype=torch.bool, device="cuda").triu(1)
    for head in range(0, heads, 7):
        q, k = (x[:, :, head].double() for x in near[:2])
        logarithms = (q @ k.transpose(1, 2) * scale).masked_fill(hidden, float("-inf")).logsumexp(-1)
        torch.testing.assert_close(lse[:, head], logarithms.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@needs_hopper
def test_on_a_gpu_a_scale_may_be_negative():
    torch.manual_seed(0)
    q, k, v, grad = draw(2, 200, 3, torch.bfloat16)
    turned, plain = hopper.attention(q, k, v, -0.1), hopper.attention(-q, k, v, 0.1)
    assert all(torch.equal(one, other) for one, other in zip(turned, plain, strict=True))
    of_turned = hopper.attention_backward(grad, q, k, v, *turned, -0.1)
    of_plain = hopper.attention_backward(grad, -q, k, v, *plain, 0.1)
    torch.testing.assert_close(of_turned[0].rows(torch.float32), -of_plain[0].rows(torch.float32))
    assert all(torch.equal(one, other) for one, other in zip(of_turned[1:], of_plain[1:], strict=True))


@pytest.mark.gpu
@needs_hopper
def test_on_a_gpu_a_scale_of_zero_gives_means():
    torch.manual_seed(0)
    q, k, v, grad = draw(2, 200, 3, torch.float32)
    halves = [x.bfloat16() for x in (q, k, v, grad)]
    out, lse = hopper.attention(*halves[:3], 0.0)
    seen = torch.arange(1, 201, device="cuda")
    means = halves[2].float().cumsum(1) / seen[:, None, None]
    torch.testing.assert_close(out.float(), means, rtol=0.01, atol=0.01)
    torch.testing.assert_close(lse, seen.log().expand(2, 3, -1))
    of_q, of_k, of_v = hopper.attention_backward(halves[3], *halves[:3], out, lse, 0.0)
    assert not of_q.rows(torch.float32).any()
    assert not of_k.any()
    shares = (halves[3].float() / seen[:, None, None]).flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(of_v.float(), shares, rtol=0.02, atol=0.02)


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("batch", "length", "heads"), SHAPES)
def test_on_a_gpu_gradients_are_as_exact_as_pytorchs(batch, length, heads, dtype, monkeypatch):
    torch.manual_seed(0)
    given, scale = draw(batch, length, heads), 0.2
    q, k, v, grad = (x.to(dtype) for x in given)
    out, lse = fused.attend(q, k, v, scale, "flash")  # which takes any length
    poison_new_memory(monkeypatch)
    of_q, of_k, of_v = hopper.attention_backward(grad, q, k, v, out, lse, scale)
    monkeypatch.undo()
    check(given, dtype, scale, (of_q.rows(dtype), of_k, of_v))


@pytest.mark.gpu
@needs_hopper
def test_on_a_gpu_one_position_looks_at_itself_only():
    """Its gradients of logits are zero but for the rounding of sums in float32, whatever is compared with them."""
    torch.manual_seed(0)
    q, k, v, grad = draw(3, 1, 5, torch.bfloat16)
    out, lse = fused.attend(q, k, v, 0.2, "flash")
    of_q, of_k, of_v = hopper.attention_backward(grad, q, k, v, out, lse, 0.2)
    assert torch.equal(of_v, grad)
    assert of_q.rows(torch.float32).abs().max() < 1e-4
    assert of_k.abs().max() < 1e-4


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("length", [1024, 2048])
def test_on_a_gpu_again_and_again_it_finds_the_same(length):
    """But for the order of sums: a race would show."""
    torch.manual_seed(0)
    q, k, v, grad = draw(8, length, 47, torch.bfloat16)  # so many that rows wait for each other
    out, lse = hopper.attention(q, k, v, 0.125)
    assert all(torch.equal(hopper.attention(q, k, v, 0.125)[0], out) for _ in range(20))
    first, *others = (hopper.attention_backward(grad, q, k, v, out, lse, 0.125) for _ in range(20))
    for other in others:
        assert torch.equal(other[1], first[1])
        assert torch.equal(other[2], first[2])
        torch.testing.assert_close(other[0].tiles, first[0].tiles, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@needs_hopper
def test_on_a_gpu_heads_may_lie_anywhere():
    torch.manual_seed(0)
    given = draw(2, 70, 3)
    flat = [torch.cat([x.new_zeros(1), x.flatten()]).bfloat16() for x in given]
    q, k, v, grad = (x[1:].view(2, 70, 3, 64) for x in flat)  # begin at odd places
    out, lse = hopper.attention(q, k, v, 0.2)
    assert torch.equal(out, hopper.attention(*(x.clone() for x in (q, k, v)), 0.2)[0])
    of_q, of_k, of_v = hopper.attention_backward(grad, q, k, v, out, lse, 0.2)
    check(given, torch.bfloat16, 0.2, (of_q.rows(torch.bfloat16), of_k, of_v))


@pytest.mark.gpu
@needs_hopper
def test_on_a_gpu_it_is_measured_and_other_sizes_are_refused(monkeypatch):
    monkeypatch.setattr(fused, "_measured", {})
    assert fused.usable(torch.bfloat16, CUDA)[:2] == ["cudnn", "hopper"]
    times, _ = fused._measure((2, 256, 8, 64), torch.bfloat16, CUDA, ["cudnn", "hopper"])
    assert list(times) == ["cudnn", "hopper"]
    times, refused = fused._measure((2, 256, 8, 32), torch.bfloat16, CUDA, ["hopper", "flash"])
    assert list(times) == ["flash"]
    assert refused == ["hopper: heads of 32, expected 64"]
