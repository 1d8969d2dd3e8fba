import math

import pytest
import torch

from lit_t6.training import LanguageModelMetrics


def test_weighted_by_token_not_by_batch():
    metrics = LanguageModelMetrics()
    nats = torch.tensor([1.0, 2.0, 3.0, 0.0])
    counted = torch.tensor([True, True, True, False])
    num_bytes = torch.tensor([2, 3, 4, 0])
    metrics.update(nats[:1], counted[:1], num_bytes[:1])
    metrics.update(nats[1:], counted[1:], num_bytes[1:])
    values = metrics.compute()
    assert values["loss"].item() == 2.0
    assert values["perplexity"].item() == pytest.approx(math.exp(2))
    assert values["bits_per_byte"].item() == pytest.approx(6 / 9 / math.log(2))


def test_sums_in_float64_whatever_the_module_is_cast_to():
    metrics = LanguageModelMetrics().half()
    for _ in range(100):
        metrics.update(torch.full((4096,), 10.1).half(), torch.ones(4096, dtype=torch.bool), torch.full((4096,), 3))
    assert metrics.nats.dtype == torch.float64
    assert metrics.compute()["loss"].item() == pytest.approx(float(torch.tensor(10.1).half()), rel=1e-12)
