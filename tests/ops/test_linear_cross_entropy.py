"""Cross-entropy in chunks: in plain PyTorch, and by the kernel under Triton's interpreter or on a GPU."""

import pytest
import torch

from lit_t6.ops import linear_cross_entropy
from lit_t6.ops.linear_cross_entropy import chunks
from lit_t6.testing import assert_as_exact_as

from .cross_entropy_problems import REDUCTIONS, WAYS, check, draw, run
from .seeds import INTERPRETED, NAN, QUIET

pytestmark = QUIET

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
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
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
