import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.training import SampleWriter
from lit_t6.training.callbacks import samples

from ..runs import SMALL, fit


def texts(folder):
    events = EventAccumulator(str(folder / "run")).Reload()
    if "samples/continuation" not in events.Tags()["tensors"]:
        return []
    return [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors("samples/continuation")]


def test_a_sample_at_every_validation(tmp_path, prepared):
    fit(tmp_path, prepared, SMALL, callbacks=[SampleWriter("The ", 12, max_share=1.0)])
    written = texts(tmp_path)
    assert [step for step, _ in written] == [4, 6]
    assert all(text.startswith("    The ") for _, text in written)
    assert written[0][1] != written[1][1]  # it has learned in between


def test_samples_and_diagnostics_change_nothing_of_the_training(tmp_path, prepared):
    weights = []
    for tokens in (0, 12):
        module, _ = fit(tmp_path / str(tokens), prepared, SMALL, callbacks=[SampleWriter("", tokens, max_share=1.0)])
        weights.append(torch.cat([p.flatten() for p in module.parameters()]))
    assert torch.equal(*weights)
    assert texts(tmp_path / "0") == []


def test_a_sample_takes_its_share_of_the_time_at_most(tmp_path, prepared, monkeypatch):
    ticks = iter(range(10**6))  # every look at the clock is a second later
    monkeypatch.setattr(samples.time, "perf_counter", lambda: float(next(ticks)))
    fit(tmp_path, prepared, SMALL, callbacks=[SampleWriter("The ", 50, max_share=1e-9)])
    assert all(text.endswith(" …") and len(text) < 40 for _, text in texts(tmp_path))


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"max_share must be in \(0, 1\], got 0"):
        SampleWriter(max_share=0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 0, got -1"):
        SampleWriter(max_new_tokens=-1)
