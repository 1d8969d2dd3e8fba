import itertools

import pytest
import torch
from torch import nn

from lit_t6.training import OptimizerConfig


def test_schedule_warms_up_and_falls_to_the_minimum():
    config = OptimizerConfig(lr=1.0, min_lr=0.1, warmup_steps=10)
    rates = [config.rate(step, 110) for step in range(120)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[109] == pytest.approx(0.1, abs=1e-3)
    assert rates[110:] == [pytest.approx(0.1)] * 10
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_scheduler_sets_the_rate_of_every_step():
    config = OptimizerConfig(lr=0.5, min_lr=0.05, warmup_steps=3)
    optimizer = config.build([nn.Parameter(torch.zeros(2, 2))])
    scheduler = config.schedule(optimizer, 8)
    for step in range(8):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(config.rate(step, 8))
        optimizer.step()
        scheduler.step()


def test_decay_on_matrices_only():
    matrix, vector, frozen = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    frozen.requires_grad_(False)
    optimizer = OptimizerConfig(lr=0.1, weight_decay=0.5).build([matrix, vector, frozen])
    for parameter in (matrix, vector):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(matrix.data, torch.full((2, 2), 0.95))
    assert torch.equal(vector.data, torch.ones(2))
    assert len(optimizer.param_groups) == 2


def test_fused_gives_what_the_plain_loop_gives():
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(4, 4))
        optimizer = OptimizerConfig(lr=0.1, min_lr=0.0).build([weight], fused=fused)
        for _ in range(5):
            weight.grad = weight.detach() ** 2
            optimizer.step()
        results.append(weight.detach())
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 1e-5}, "expected 0 <= min_lr <= lr, got min_lr=3e-05 and lr=1e-05"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"decay_steps": 0}, "decay_steps must be at least 1 or null, got 0"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**options)
