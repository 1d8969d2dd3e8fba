from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.bench.training.checks import Found, choose_spans, compute, counted, judge, reference_of
from lit_t6.model import IGNORED_TARGET, T6Config, T6Model

CONFIG = T6Config(50, 32, 32, 2, TPAConfig(3, 16, 3, 2, 2), multiple_of=1)


def test_the_last_row_counts_and_a_quarter_of_the_first():
    assert choose_spans(20, 1024, 1024) == {0: 256, 19: 1024}
    assert choose_spans(1, 32768, 1024) == {0: 1024}
    assert choose_spans(2, 3, 1024) == {0: 1, 1: 3}
    targets = torch.arange(6).view(2, 3)
    assert counted(targets, {0: 1, 1: 2}, -1).tolist() == [[0, -1, -1], [3, 4, -1]]
    assert targets.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_reference_is_asked_for_where_there_is_one():
    assert reference_of(CONFIG).attention == replace(CONFIG.attention, impl="reference")
    dense = replace(CONFIG, attention=MultiHeadConfig(2, None, 16))
    assert reference_of(dense) == dense


def test_what_counts_alone_gives_the_gradients_of_the_whole_batch():
    """The idea of the check: targets that do not count take no part, so that few rows are a batch's whole truth."""
    model = T6Model(CONFIG).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    tokens, targets = torch.randint(50, (2, 4, 16))
    spans = choose_spans(4, 16, 12)
    loss = model.loss(tokens, counted(targets, spans, IGNORED_TARGET))
    loss.backward()
    found = compute(CONFIG, model.state_dict(), tokens, targets, spans, torch.float64, nullcontext)
    assert found.loss == pytest.approx(loss.item(), rel=1e-9)
    assert set(found.gradients) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found.gradients[name], parameter.grad, rtol=1e-8, atol=1e-10)


EXACT = {"a": torch.randn(40, 50, dtype=torch.float64), "b": torch.randn(300, dtype=torch.float64)}


def noisy(scale, **others):
    generator = torch.Generator().manual_seed(1)
    noise = {name: torch.randn(x.shape, generator=generator, dtype=x.dtype) for name, x in EXACT.items()}
    return Found(7.0, {name: (x + scale * noise[name]).float() for name, x in EXACT.items()} | others)


def judged(found, scale=1e-2):
    return judge(found, noisy(scale), Found(7.0, EXACT), torch.bfloat16)


def test_twice_the_error_of_the_reference_and_a_unit_in_the_last_place_are_allowed():
    verdict = judged(noisy(0.02))
    assert verdict.problem is None
    assert verdict.error == pytest.approx(2 * verdict.reference_error, rel=1e-3)
    assert judged(noisy(0.007), 0).problem is None
    assert judged(noisy(0.01), 0).problem.startswith("gradient of a: error by mean 9.9")
    assert judged(noisy(0.04)).problem.endswith("(and 1 more)")


def test_wrong_numbers_are_named():
    good = noisy(1e-2)
    wrong = {"b": EXACT["b"].float().roll(1)}
    assert judged(Found(7.0, good.gradients | wrong)).problem.startswith("gradient of b: error by mean 1.")
    assert judged(Found(7.0, {"a": good.gradients["a"]})).problem == "gradient of b: there is none"
    wrong = {"a": torch.full((40, 50), float("nan"))}
    assert judged(Found(7.0, good.gradients | wrong)).problem == "gradient of a: not finite"
    assert judged(Found(7.1, good.gradients)).problem == "loss 7.1, exactly 7, ± 0.05 allowed"
    assert "loss nan" in judged(Found(float("nan"), good.gradients)).problem


def test_one_wrong_row_does_not_hide():
    wrong = noisy(1e-3)
    wrong.gradients["a"][5] *= 1.5
    assert judged(wrong).problem.startswith("gradient of a: error by ")
