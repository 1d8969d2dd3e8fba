import json
import math
from types import SimpleNamespace

import pytest
import torch

from lit_t6.training import DocumentLossWriter


class Strategy:
    def reduce(self, tensor, reduce_op):
        return tensor


def test_losses_of_a_document_are_summed_over_batches(tmp_path):
    writer = DocumentLossWriter(str(tmp_path / "deep" / "losses.jsonl"))
    trainer = SimpleNamespace(is_global_zero=True, strategy=Strategy())
    module = SimpleNamespace(device=torch.device("cpu"))
    writer.on_predict_start(trainer, module)
    batches = [
        ([[1.0, 2.0]], [[0, 0]], [[True, True]], [[3, 4]]),
        ([[4.0, 8.0]], [[0, 2]], [[True, True]], [[1, 0]]),
        ([[9.0, 9.0]], [[5, 5]], [[False, False]], [[0, 0]]),
    ]
    for n, batch in enumerate(batches):
        names = ("nats", "documents", "counted", "target_bytes")
        outputs = {name: torch.tensor(value) for name, value in zip(names, batch, strict=True)}
        writer.on_predict_batch_end(trainer, module, outputs, None, n)
    writer.on_predict_end(trainer, module)
    lines = [json.loads(line) for line in (tmp_path / "deep" / "losses.jsonl").read_text().splitlines()]
    first = {"document": 0, "tokens": 3, "bytes": 8, "loss": pytest.approx(7 / 3)}
    assert lines[0] == {**first, "bits_per_byte": pytest.approx(7 / 8 / math.log(2))}
    assert lines[1] == {"document": 2, "tokens": 1, "bytes": 0, "loss": 8.0, "bits_per_byte": None}
    assert len(lines) == 2
