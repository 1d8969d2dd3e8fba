import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.training import SampleWriter

from ..runs import SMALL, fit


def texts(folder):
    events = EventAccumulator(str(folder / "run")).Reload()
    if "samples/continuation" not in events.Tags()["tensors"]:
        return []
    return [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors("samples/continuation")]


def test_a_sample_at_every_validation(tmp_path, prepared):
    fit(tmp_path, prepared, SMALL, callbacks=[SampleWriter("The ", 12)])
    written = texts(tmp_path)
    assert [step for step, _ in written] == [4, 6]
    assert all(text.startswith("    The ") for _, text in written)
    assert written[0][1] != written[1][1]  # it has learned in between


def test_samples_and_diagnostics_change_nothing_of_the_training(tmp_path, prepared):
    weights = []
    for tokens in (0, 12):
        module, _ = fit(tmp_path / str(tokens), prepared, SMALL, callbacks=[SampleWriter("", tokens)])
        weights.append(torch.cat([p.flatten() for p in module.parameters()]))
    assert torch.equal(*weights)
    assert texts(tmp_path / "0") == []


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="max_new_tokens must be at least 0, got -1"):
        SampleWriter(max_new_tokens=-1)
