"""PyTorch's fused attention with its way back apart, and which of its backends is taken."""

import multiprocessing

import pytest
import torch

from lit_t6.ops import fused
from lit_t6.ops.dense import hopper
from lit_t6.testing import assert_as_exact_as

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
SHAPE = (2, 256, 8, 64)


def by_hand(q, k, v, scale):
    """Result (B, T, H, D) and logarithms of the sums of exponentials (B, H, T)."""
    logits = torch.einsum("bthd,bshd->bhts", q, k) * scale
    hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
    logits = logits.masked_fill(hidden, float("-inf"))
    return torch.einsum("bhts,bshd->bthd", logits.softmax(-1), v), logits.logsumexp(-1)


def computed(attend, heads, grad, dtype):
    """Result, logarithms and the gradients of queries, keys and values."""
    q, k, v = (x.to(dtype).detach().requires_grad_() for x in heads)
    out, lse = attend(q, k, v, 0.3)
    return dict(zip(("q", "k", "v"), torch.autograd.grad(out, (q, k, v), grad.to(dtype)), strict=True)) | {
        "out": out.detach(),
        "lse": lse.detach(),
    }


@pytest.mark.parametrize(("batch", "length", "heads", "size"), [(2, 33, 3, 16), (1, 2, 47, 64), (3, 70, 1, 8)])
def test_forward_and_back_are_as_exact_as_plain_products(batch, length, heads, size):
    *given, grad = torch.randn(4, batch, length, heads, size, dtype=torch.float64)
    exact, reference = (computed(by_hand, given, grad, dtype) for dtype in (torch.float64, torch.float32))
    q, k, v = (x.float() for x in given)
    out, lse = fused.attend(q, k, v, 0.3, "cpu")
    assert out.is_contiguous()
    assert lse.is_contiguous()
    grads = fused.attend_backward(grad.float(), q, k, v, out, lse, 0.3, "cpu")
    found = {"out": out, "lse": lse} | dict(zip("qkv", grads, strict=True))
    for name, value in found.items():
        assert value.shape == exact[name].shape
        assert_as_exact_as(value, reference[name], exact[name], name)


def test_heads_and_gradients_may_lie_anyhow():
    q, k, v = torch.randn(2, 9, 3 * 4 * 16).unflatten(-1, (3, 4, 16)).unbind(2)
    grad = torch.randn(2, 4, 9, 16).transpose(1, 2)
    out, lse = fused.attend(q, k, v, 0.25, "cpu")
    packed = [x.contiguous() for x in (q, k, v)]
    assert torch.equal(out, fused.attend(*packed, 0.25, "cpu")[0])
    found = fused.attend_backward(grad, q, k, v, out, lse, 0.25, "cpu")
    expected = fused.attend_backward(grad.contiguous(), *packed, out, lse, 0.25, "cpu")
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is not there: sets its capability, and what PyTorch is told not to take."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(hopper, "_import_problem", lambda: None)

    def set_to(capability, switched_off=()):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        for name in ("cudnn", "flash", "mem_efficient"):
            monkeypatch.setattr(torch.backends.cuda, f"{name}_sdp_enabled", lambda n=name: n not in switched_off)

    set_to((9, 0))
    return set_to


@pytest.mark.parametrize(
    ("capability", "dtype", "expected"),
    [
        ((9, 0), torch.bfloat16, ["cudnn", "hopper", "flash", "efficient"]),
        ((10, 0), torch.float16, ["cudnn", "flash", "efficient"]),
        ((8, 0), torch.bfloat16, ["flash", "efficient"]),
        ((9, 0), torch.float32, ["efficient"]),
        ((9, 0), torch.float64, []),
        ((7, 5), torch.float16, []),
    ],
)
def test_what_a_gpu_takes(gpu, capability, dtype, expected):
    gpu(capability)
    assert fused.usable(dtype, CUDA) == expected


def test_what_is_switched_off_is_not_taken(gpu):
    gpu((9, 0), switched_off=("cudnn", "mem_efficient"))
    assert fused.usable(torch.bfloat16, CUDA) == ["flash"]


def test_ours_has_cudnns_switch(gpu, monkeypatch):
    gpu((9, 0), switched_off=("cudnn",))
    assert fused.usable(torch.bfloat16, CUDA) == ["flash", "efficient"]
    gpu((9, 0))
    monkeypatch.setattr(hopper, "_import_problem", lambda: "no such Gluon")
    assert fused.usable(torch.bfloat16, CUDA) == ["cudnn", "flash", "efficient"]


def test_our_way_back_gives_rows_or_tiles(monkeypatch):
    x, lse = torch.zeros(1, 70, 2, 64), torch.zeros(1, 2, 70)
    tiles = hopper.QueryGradient(torch.zeros(1, 2, 2, 4096), (1, 70, 2, 64), 0.3)
    monkeypatch.setattr(hopper.QueryGradient, "rows", lambda _, dtype: torch.ones(1, 70, 2, 64, dtype=dtype))
    monkeypatch.setattr(hopper, "attention_backward", lambda *_: (tiles, x + 2, x + 3))
    given = (x, x, x, x, x, lse, 0.3)
    assert [g.unique().item() for g in fused.attend_backward(*given, "hopper")] == [1, 2, 3]
    assert fused.attend_backward_in_tiles(*given, "hopper")[0] is tiles
    of_others = [f(*given, "cpu") for f in (fused.attend_backward, fused.attend_backward_in_tiles)]
    assert all(torch.equal(one, other) for one, other in zip(*of_others, strict=True))


def test_other_devices(gpu, monkeypatch):
    assert fused.usable(torch.float64, CPU) == ["cpu"]
    assert fused.usable(torch.float32, torch.device("mps")) == []
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert fused.usable(torch.bfloat16, CUDA) == []


def test_switches_are_read_while_a_whole_graph_is_captured(gpu):
    gpu((9, 0), switched_off=("flash",))
    torch._dynamo.reset()

    @torch.compile(backend="eager", fullgraph=True)
    def first(x):
        cudnn, flash, efficient = fused._switched_on()
        return x + (1 if cudnn else 0) + (10 if flash else 0) + (100 if efficient else 0)

    assert first(torch.zeros(())).item() == 101


@pytest.fixture
def timed(gpu, monkeypatch):
    """Backends take what the test says; those it leaves out refuse. What was asked is kept."""
    times, asked = {"cudnn": 3.0, "hopper": 2.5, "flash": 1.0, "efficient": 2.0}, []

    def time(shape, dtype, device, backend):
        asked.append((shape, backend))
        if backend not in times:
            raise RuntimeError(f"{backend} does not like heads of {shape[3]}\nand more")
        return times[backend]

    monkeypatch.setattr(fused, "_time", time)
    monkeypatch.setattr(fused, "_measured", {})
    monkeypatch.setattr(fused, "_agreed", {})
    monkeypatch.setattr(fused, "_asked_for", set())
    return times, asked


def test_the_fastest_is_measured_once_for_a_shape_and_told(timed, caplog):
    with caplog.at_level("INFO", "lit_t6"):
        assert fused.fastest(SHAPE, torch.bfloat16, CUDA) == "flash"
    assert fused.fastest(SHAPE, torch.bfloat16, CUDA) == "flash"
    assert len(timed[1]) == 4
    (choice,) = fused.choices()
    assert str(choice) == (
        "2 × 256 × 8 × 64 (B, T, H, D) of bfloat16, forward and back: cudnn 3.000 ms, hopper 2.500 ms, flash 1.000 "
        "ms, efficient 2.000 ms; taken: flash"
    )
    assert str(choice) in caplog.text


def test_lengths_are_measured_by_powers_of_two(timed, monkeypatch):
    monkeypatch.setattr(fused, "fastest", lambda shape, dtype, device: shape)
    lengths = [fused.backend_for(torch.empty(3, length, 5, 16))[1] for length in (1, 2, 3, 64, 65)]
    assert lengths == [1, 2, 4, 64, 128]


def test_where_one_is_left_nothing_is_measured(timed):
    assert fused.fastest(SHAPE, torch.float32, CUDA) == "efficient"
    assert fused.fastest(SHAPE, torch.float32, CPU) == "cpu"
    assert timed[1] == []
    assert fused.choices() == []


def test_a_switch_is_heard_after_a_choice_too(timed, monkeypatch):
    assert fused.fastest(SHAPE, torch.bfloat16, CUDA) == "flash"
    fused._agreed[SHAPE[2:], torch.float16] = fused.Choice(SHAPE, torch.float16, "flash", {"flash": 1.0})
    assert len(fused.choices()) == 1, "what nobody asked for is not told"
    assert fused.fastest(SHAPE, torch.float16, CUDA) == "flash"
    assert len(fused.choices()) == 2
    monkeypatch.setattr(fused, "_switched_on", lambda: (True, False, True))
    assert {fused.fastest(SHAPE, dtype, CUDA) for dtype in (torch.bfloat16, torch.float16)} == {"efficient"}


def test_what_refuses_is_left_out_and_named_where_all_do(timed):
    times, _ = timed
    del times["flash"]
    assert fused.fastest(SHAPE, torch.bfloat16, CUDA) == "efficient"
    times.clear()
    with pytest.raises(RuntimeError, match=r"for torch.float16 .*flash does not like heads of 64; efficient"):
        fused.fastest(SHAPE, torch.float16, CUDA)


def _rank(rank, folder, times, queue):
    """Agree with the other; what is taken then, for this and for another batch."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=len(times))
    fused.usable = lambda dtype, device: list(times[rank])
    fused._time = lambda shape, dtype, device, backend: times[rank][backend]
    alone = fused.fastest((1, *SHAPE[1:]), torch.bfloat16, CPU)
    fused.agree(SHAPE, torch.bfloat16, CPU)
    taken = {fused.fastest((batch, *SHAPE[1:]), torch.bfloat16, CPU) for batch in (1, 2, 7)}
    queue.put((rank, alone, taken, [choice.times for choice in fused.choices()]))
    torch.distributed.destroy_process_group()


def test_ranks_that_measure_otherwise_take_the_same(tmp_path):
    """flash is the fastest over all; what one rank does not take, none does."""
    times = [{"cudnn": 1.0, "flash": 2.0, "efficient": 0.1}, {"cudnn": 4.0, "flash": 2.0}]
    times[1]["efficient"] = float("inf")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    ranks = [context.Process(target=_rank, args=(rank, tmp_path, times, queue)) for rank in range(2)]
    for process in ranks:
        process.start()
    found = sorted(queue.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join()
    assert [alone for _, alone, _, _ in found] == ["efficient", "flash"]
    assert all(taken == {"flash"} for _, _, taken, _ in found)
    assert all(told == [{"cudnn": 2.5, "flash": 2.0}] for *_, told in found)
