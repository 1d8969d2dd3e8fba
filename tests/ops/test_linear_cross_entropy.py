"""Cross-entropy in chunks: in plain PyTorch, and by the kernel under Triton's interpreter or on a GPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lit_t6.ops import linear_cross_entropy
from lit_t6.ops.linear_cross_entropy import chunks
from lit_t6.ops.linear_cross_entropy.chunks import chunk_size, over_chunks
from lit_t6.ops.linear_cross_entropy.operators import (
    _cross_entropy_each_backward,
    cross_entropy_each,
    cross_entropy_sum,
)
from lit_t6.testing import assert_as_exact_as

from .seeds import INTERPRETED, NAN, QUIET

pytestmark = QUIET
REDUCTIONS = ("mean", "sum", "none")
WAYS = ("auto", pytest.param("triton", marks=INTERPRETED))
"""With chunks this small, "auto" on a CPU is chunks in plain PyTorch."""


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "MAX_BYTES", 0)
    monkeypatch.setattr(chunks, "MIN_TOKENS", 128)


def draw(shape, width, vocabulary, ignored=0.2, spread=3.0, device="cpu"):
    """Hidden states and weight in float64, and targets; logits have a standard deviation of `spread`."""
    hidden = torch.randn(*shape, width, dtype=torch.float64, device=device)
    weight = torch.randn(vocabulary, width, dtype=torch.float64, device=device) * (spread * width**-0.5)
    targets = torch.randint(vocabulary, shape, device=device)
    targets[torch.rand(shape, device=device) < ignored] = -100
    return hidden, weight, targets


def run(hidden, weight, targets, dtype, reduction="mean", autocast=None, upstream=1.0, **options):
    """Loss, and gradients of its product with something in the place of what comes behind it.

    `dtype` is of hidden states and weight, or a pair of them.
    """
    dtypes = dtype if isinstance(dtype, tuple) else (dtype, dtype)
    leaves = [x.detach().to(kind).requires_grad_() for x, kind in zip((hidden, weight), dtypes, strict=True)]
    with torch.autocast(hidden.device.type, dtype=autocast, enabled=autocast is not None):
        loss = linear_cross_entropy(*leaves, targets, reduction=reduction, **options)
    towards = torch.linspace(-1, 2, loss.numel(), dtype=torch.float64) if loss.ndim else torch.tensor(0.7).double()
    towards = (towards * upstream).view(loss.shape).to(loss)
    grads = torch.autograd.grad(loss, leaves, towards)
    return {"loss": loss.detach(), "hidden": grads[0], "weight": grads[1]}


def check(problem, dtype, reduction, impl, **options):
    exact = run(*problem, torch.float64, reduction, **options | {"autocast": None}, impl="reference")
    reference = run(*problem, dtype, reduction, **options, impl="reference")
    actual = run(*problem, dtype, reduction, **options, impl=impl)
    for name in exact:
        assert_as_exact_as(actual[name], reference[name], exact[name], name)
    ignored = problem[2] == -100
    assert not actual["hidden"][ignored].any()
    assert reduction != "none" or not actual["loss"][ignored].any()


CASES = {
    "odd": dict(shape=(3, 11), width=13, vocabulary=97),
    "one token": dict(shape=(1, 1), width=8, vocabulary=33, ignored=0),
    "one word": dict(shape=(5,), width=4, vocabulary=1),
    "chunk and a token": dict(shape=(129,), width=8, vocabulary=48),
    "three chunks": dict(shape=(2, 150), width=8, vocabulary=10, ignored=0.5),
    "several blocks": dict(shape=(4,), width=8, vocabulary=50257),
    "certain": dict(shape=(20,), width=8, vocabulary=64, spread=60.0),
}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("impl", WAYS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_as_exact_as_the_reference(case, reduction, impl):
    check(draw(**CASES[case]), torch.float32, reduction, impl)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_float64_goes_through(reduction):
    problem = draw((2, 70), 8, 33)
    reference, actual = (run(*problem, torch.float64, reduction, impl=impl) for impl in ("reference", "auto"))
    torch.testing.assert_close(actual, reference, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("impl", WAYS)
def test_where_all_are_ignored_the_mean_is_nan_and_gradients_are_zero(impl):
    hidden, weight, targets = draw((2, 3), 8, 33, ignored=1.1)
    for way in ("reference", impl):
        found = run(hidden, weight, targets, torch.float32, impl=way)
        assert found["loss"].isnan()
        assert not found["hidden"].any()
        assert not found["weight"].any()
    assert run(hidden, weight, targets, torch.float32, "sum", impl=impl)["loss"] == 0


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("impl", WAYS)
def test_hidden_states_and_targets_may_lie_anyhow(impl):
    hidden, weight, targets = draw((7, 40), 8, 33)
    for reduction in REDUCTIONS:
        expected = run(hidden, weight, targets, torch.float32, reduction, impl=impl)
        turned = [x.mT.contiguous().mT for x in (hidden, weight, targets)]
        found = run(*turned, torch.float32, reduction, impl=impl)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("impl", WAYS)
def test_another_target_may_be_the_ignored_one(impl):
    hidden, weight, targets = draw((50,), 8, 33)
    for reduction in REDUCTIONS:
        expected = run(hidden, weight, targets, torch.float32, reduction, impl=impl)
        theirs = torch.where(targets == -100, -1, targets)
        found = run(hidden, weight, theirs, torch.float32, reduction, impl=impl, ignore_index=-1)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("half", [False, True])
def test_under_autocast_it_is_as_exact_as_the_reference(half, reduction, dtype):
    """Gradients in the types of what they are of."""
    hidden, weight, targets = draw((2, 150), 24, 97)
    kind = dtype if half else torch.float32
    check((hidden.to(kind).double(), weight, targets), (kind, torch.float32), reduction, "auto", autocast=dtype)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("upstream", [2.0**-40, 1.0, 2.0**16])
def test_in_float16_gradients_survive_whatever_they_are_scaled_by(upstream, reduction):
    problem = draw((150,), 24, 997, spread=6.0)
    exact = run(*problem, torch.float64, reduction, upstream=upstream, impl="reference")
    reference = run(*problem, torch.float32, reduction, upstream=2.0**14, autocast=torch.float16, impl="reference")
    actual = run(*problem, torch.float32, reduction, upstream=upstream, autocast=torch.float16)
    for name in ("hidden", "weight"):
        assert_as_exact_as(actual[name], reference[name] * (upstream / 2.0**14), exact[name], name)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("upstream", [2.0**-40, 1.0, 2.0**16])
def test_in_float16_gradients_of_unlikely_words_do_not_vanish(upstream, reduction):
    hidden, weight, targets = draw((150,), 24, 997, ignored=0, spread=6.0)
    hidden, targets = hidden.abs(), targets % 100  # the gradient of another word is a sum of positive numbers
    found = []
    for dtype, impl in ((torch.float32, "auto"), (torch.float64, "reference")):
        leaf = weight.to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = linear_cross_entropy(hidden.to(dtype), leaf, targets, reduction=reduction, impl=impl)
        (loss * upstream).sum().backward()
        found.append(leaf.grad[100:] / upstream * (150 if reduction == "mean" else 1))
    actual, exact = found
    unlikely = (exact < 2**-25).all(1)  # a half of the least number of float16
    assert unlikely.any()
    torch.testing.assert_close(actual[unlikely].double(), exact[unlikely], rtol=0.1, atol=2.0**-38)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("impl", WAYS)
def test_no_result_depends_on_uninitialised_memory(impl):
    hidden, weight, targets = draw((150,), 8, 33)
    for reduction in REDUCTIONS:
        expected = run(hidden, weight, targets, torch.float32, reduction, impl=impl)
        torch.use_deterministic_algorithms(True)  # fills it with NaN
        try:
            assert torch.empty(1).isnan()
            found = run(hidden, weight, targets, torch.float32, reduction, impl=impl)
        finally:
            torch.use_deterministic_algorithms(False)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("impl", WAYS)
def test_an_ignored_token_may_be_nan(impl):
    hidden, weight, targets = draw((9,), 8, 33, ignored=0)
    hidden[4], targets[4] = NAN, -100
    loss = linear_cross_entropy(hidden.float(), weight.float(), targets, impl=impl)
    rest = torch.arange(9) != 4
    torch.testing.assert_close(loss, linear_cross_entropy(hidden[rest].float(), weight.float(), targets[rest]))
    hidden[5] = NAN
    assert linear_cross_entropy(hidden.float(), weight.float(), targets, impl=impl).isnan()


@INTERPRETED
@pytest.mark.parametrize("target", [33, 40, 10**9, -1])
def test_by_the_kernel_a_target_out_of_range_gives_nan(target):
    hidden, weight, targets = draw((9,), 8, 33, ignored=0)
    targets[3] = target
    losses = linear_cross_entropy(hidden.float(), weight.float(), targets, reduction="none", impl="triton")
    assert losses.isnan().tolist() == [number == 3 for number in range(9)]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("impl", WAYS)
def test_weights_may_be_those_of_the_embedding(impl):
    _, weight, targets = draw((3, 60), 8, 33)
    tokens = torch.randint(33, targets.shape)
    found = []
    for way in ("reference", impl):
        leaf = weight.float().requires_grad_()
        linear_cross_entropy(leaf[tokens] * 2, leaf, targets, impl=way).backward()
        found.append(leaf.grad)
    torch.testing.assert_close(*found)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("needed", [0, 1])
def test_one_gradient_alone(needed, reduction):
    hidden, weight, targets = draw((150,), 8, 33)
    both = run(hidden, weight, targets, torch.float64, reduction)
    leaves = [hidden.clone(), weight.clone()]
    leaves[needed].requires_grad_()
    loss = linear_cross_entropy(*leaves, targets, reduction=reduction)
    towards = torch.linspace(-1, 2, 150, dtype=torch.float64) if reduction == "none" else torch.tensor(0.7).double()
    loss.backward(towards)
    torch.testing.assert_close(leaves[needed].grad, both[("hidden", "weight")[needed]])
    assert leaves[1 - needed].grad is None


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_way_back_can_be_gone_twice_but_not_be_differentiated(reduction):
    hidden, weight, targets = draw((150,), 8, 33)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    loss = linear_cross_entropy(*leaves, targets, reduction=reduction).sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(3 * loss, leaves, retain_graph=True)
    torch.testing.assert_close([3 * x for x in first], list(second))
    with pytest.raises(RuntimeError, match="has no second derivatives .* use impl='reference'"):
        torch.autograd.grad(loss, leaves, create_graph=True)


@pytest.mark.usefixtures("small_chunks")
def test_without_gradients_none_are_formed():
    hidden, weight, targets = draw((150,), 8, 33)
    hidden.requires_grad_()
    with torch.no_grad():
        for reduction in REDUCTIONS:
            assert not linear_cross_entropy(hidden, weight, targets, reduction=reduction).requires_grad
    _, *grads = cross_entropy_sum(hidden, weight, targets, -100, torch.float64, False, False, False)
    assert [x.numel() for x in grads] == [0, 0]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kernel", [False, pytest.param(True, marks=INTERPRETED)])
def test_the_logits_of_all_tokens_are_never_there(kernel):
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.numbers = max(self.numbers, out.numel())
            return out

    hidden, weight, targets = draw((1000,), 8, 97)
    with Largest() as largest:
        over_chunks(hidden.float(), weight.float(), targets, -100, torch.float32, kernel, True, True)
    assert largest.numbers < hidden.shape[0] * weight.shape[0]


@pytest.mark.parametrize("num_tokens", [1, 127, 128, 1024, 1025, 5000, 16384, 10**6])
@pytest.mark.parametrize("vocabulary", [2, 50304, 128256, 10**6])
def test_chunks_keep_to_the_memory_and_are_even(num_tokens, vocabulary):
    size = chunk_size(num_tokens, 2 * vocabulary)
    assert size == num_tokens or size % 128 == 0
    assert size <= max(1024, chunks.MAX_BYTES // (2 * vocabulary))
    number = -(-num_tokens // size)
    assert num_tokens - (number - 1) * size > size - 128 * number


def test_what_is_small_is_computed_as_ever_on_a_cpu():
    problem = draw((3, 11), 13, 97)
    for reduction in REDUCTIONS:
        for autocast in (None, torch.bfloat16):
            auto, reference = (
                run(*problem, torch.float32, reduction, autocast=autocast, impl=impl) for impl in ("auto", "reference")
            )
            assert all(torch.equal(auto[name], reference[name]) for name in auto)


def test_of_no_tokens():
    hidden, weight, targets = torch.randn(0, 8), torch.randn(33, 8), torch.empty(0, dtype=torch.int64)
    for impl in ("reference", "auto", "triton"):
        if impl != "triton" or not torch.cuda.is_available():
            assert linear_cross_entropy(hidden, weight, targets, impl=impl).isnan()
            assert linear_cross_entropy(hidden, weight, targets, reduction="sum", impl=impl) == 0
            assert linear_cross_entropy(hidden, weight, targets, reduction="none", impl=impl).shape == (0,)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kernel", [False, pytest.param(True, marks=INTERPRETED)])
def test_the_operators_are_registered_rightly(kernel):
    hidden, weight, targets = draw((140,), 8, 33)
    leaves = [hidden.float().requires_grad_(), weight.float().requires_grad_()]
    settings = (-100, torch.float32, kernel)
    torch.library.opcheck(cross_entropy_sum, (*leaves, targets, *settings, True, True))
    torch.library.opcheck(cross_entropy_sum, (leaves[0], weight.float(), targets, *settings, True, False))
    torch.library.opcheck(cross_entropy_each, (*leaves, targets, *settings))
    plain = (torch.randn(140), hidden.float(), weight.float(), targets, *settings)
    torch.library.opcheck(_cross_entropy_each_backward, (*plain, True, True))
    torch.library.opcheck(_cross_entropy_each_backward, (*plain, False, True))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_compiler_takes_it_whole(reduction, autocast):
    problem = draw((140,), 8, 33)
    leaves = [x.float().requires_grad_() for x in problem[:2]]

    def loss_and_more(hidden, weight, targets):
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            return linear_cross_entropy(hidden * 2, weight, targets, reduction=reduction).square().sum()

    found = []
    for function in (loss_and_more, torch.compile(loss_and_more, fullgraph=True, backend="aot_eager")):
        loss = function(*leaves, problem[2])
        found.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(reduction="max"), "reduction='max', expected one of mean, sum, none"),
        (dict(weight=torch.zeros(33, 7)), r"weight: shape \(33, 7\), expected \(V, C\) with the C of hidden, \(4, 8\)"),
        (dict(targets=torch.zeros(5).long()), r"targets: shape \(5,\), expected \(4,\)"),
        (dict(targets=torch.zeros(4)), "targets: torch.float32, expected integers"),
        (dict(weight=torch.zeros(33, 8).double()), "weight: torch.float64, expected torch.float32 as hidden is"),
        (dict(impl="cuda"), "impl='cuda' is not an implementation"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = dict(hidden=torch.zeros(4, 8), weight=torch.zeros(33, 8), targets=torch.zeros(4).long()) | change
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**arguments)


def test_what_the_kernel_cannot_is_said(monkeypatch):
    arguments = torch.zeros(4, 8).double(), torch.zeros(33, 8).double(), torch.zeros(4).long()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match=r"cannot take the cross-entropy of this: logits of torch.float64, expected"):
        linear_cross_entropy(*arguments, impl="triton")
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="tensors on cpu, expected a GPU"):
        linear_cross_entropy(*arguments, impl="triton")


GPU_TYPES = {  # of the arguments, and autocast's
    "bfloat16": (torch.bfloat16, None),
    "float16": (torch.float16, None),
    "float32": (torch.float32, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "16-mixed": (torch.float32, torch.float16),
}


@pytest.mark.gpu
@pytest.mark.parametrize("kind", GPU_TYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("vocabulary", [50304, 50257, 97])
def test_on_a_gpu_losses_and_gradients_are_as_exact_as_the_reference(vocabulary, reduction, kind, monkeypatch):
    monkeypatch.setattr(chunks, "MAX_BYTES", 0)  # chunks of 1024
    dtype, autocast = GPU_TYPES[kind]
    problem = draw((3, 700), 256, vocabulary, device="cuda")
    rounded = [x.to(dtype).double() for x in problem[:2]]
    check((*rounded, problem[2]), dtype, reduction, "triton", autocast=autocast)


@pytest.mark.gpu
@pytest.mark.usefixtures("small_chunks")
def test_on_a_gpu_float64_and_hard_logits_go_through():
    for spread in (0.0, 60.0):
        problem = draw((300,), 64, 5000, spread=spread, device="cuda")
        check(problem, torch.float32, "mean", "auto")
        reference, actual = (run(*problem, torch.float64, impl=impl) for impl in ("reference", "auto"))
        torch.testing.assert_close(actual, reference, rtol=1e-12, atol=1e-14)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", GPU_TYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_on_a_gpu_memory_stays_below_that_of_all_logits(reduction, kind):
    dtype, autocast = GPU_TYPES[kind]
    num_tokens, vocabulary = 16384, 50304
    hidden = torch.randn(num_tokens, 256, device="cuda", dtype=dtype, requires_grad=True)
    weight = (torch.randn(vocabulary, 256, device="cuda") * 0.05).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (num_tokens,), device="cuda")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.autocast("cuda", dtype=autocast, enabled=autocast is not None):
        loss = linear_cross_entropy(hidden, weight, targets, reduction=reduction).sum()
    loss.backward()
    peak = torch.cuda.max_memory_allocated() - before
    logits = num_tokens * vocabulary * (autocast or dtype).itemsize
    assert peak < 0.6 * logits, f"{peak / 2**20:.0f} MiB, all logits alone would be {logits / 2**20:.0f} MiB"


@pytest.mark.gpu
def test_on_a_gpu_the_host_does_not_wait():
    hidden, weight, targets = (x.to("cuda") for x in draw((3, 700), 64, 5000))
    leaves = [x.float().requires_grad_() for x in (hidden, weight)]
    for mode in ("default", "error"):  # what is compiled at first may wait
        torch.cuda.set_sync_debug_mode(mode)
        try:
            for reduction in REDUCTIONS:
                linear_cross_entropy(*leaves, targets, reduction=reduction).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
