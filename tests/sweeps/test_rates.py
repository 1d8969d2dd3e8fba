import json

import pytest
import torch

from lit_t6.sweeps import rates
from lit_t6.sweeps.fit_reader import FitReader
from lit_t6.sweeps.rates import START_SECONDS, measured_rate, rate_of_finished, stated_rate


@pytest.fixture(scope="module")
def reader():
    return FitReader()


def finish(folder, cell, seed, seconds, outcome="completed"):
    path = folder / cell / f"seed-{seed}" / "trial.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cell": cell, "seed": seed, "outcome": outcome, "seconds": seconds}))


def test_a_stated_rate():
    rate = stated_rate(2e12)
    assert rate.estimate("a", 4e12) == START_SECONDS + 2
    assert "2e+12 FLOP/s as stated" in rate.origin
    with pytest.raises(ValueError, match="rate: expected FLOP/s above 0, such as 2.5e14, got 0"):
        stated_rate(0)


def test_finished_trials_say_how_long_one_takes(tmp_path):
    for seed, seconds in enumerate((30, 34, 90)):
        finish(tmp_path, "a", seed, seconds)
    finish(tmp_path, "b", 0, 1000, "failed")
    rate = rate_of_finished(tmp_path, {"a": 280.0, "b": 560.0})
    assert rate.origin == "3 finished trials of this study"
    assert rate.estimate("a", 280.0) == 34
    assert rate.estimate("b", 560.0) == START_SECONDS + 56


def test_trials_of_a_search_stand_for_each_other(tmp_path):
    finish(tmp_path, "trial-000", 0, 26)
    rate = rate_of_finished(tmp_path, {"m=TPA": 100.0, "m=MHA": 200.0, "m=GQA": 300.0})
    assert rate.estimate("m=TPA", 100.0) == START_SECONDS + 10
    assert rate.origin == "1 finished trial of this study"


def test_there_may_be_none(tmp_path):
    assert rate_of_finished(tmp_path, {"a": 1.0}) is None
    broken = tmp_path / "a" / "seed-0" / "trial.json"
    broken.parent.mkdir(parents=True)
    for text in ("{", "[]", "{}"):
        broken.write_text(text)
        assert rate_of_finished(tmp_path, {"a": 1.0}) is None


def test_a_few_steps_are_measured(reader):
    settings = reader.read(["--config=configs/quickstart.yaml"])
    threads = torch.get_num_threads()
    rate = measured_rate(settings, workers=64)
    assert 1e8 < rate.flops_per_second < 1e14
    assert "FLOP/s in 3 training steps measured here (16 × 128 tokens; 1 CPU thread), and 6 s" in rate.origin
    assert torch.get_num_threads() == threads


def test_steps_are_measured_on_the_cores_that_may_be_used(reader, monkeypatch):
    """Of a machine that has more."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    rate = measured_rate(reader.read(["--config=configs/quickstart.yaml"]))
    assert "; 2 CPU threads)" in rate.origin


def test_of_a_large_model_a_part_is_measured(reader, monkeypatch):
    monkeypatch.setitem(rates._FLOPS_AT_ONCE, "cpu", 1e9)
    of_few = measured_rate(reader.read(["--config=configs/quickstart.yaml"]))
    assert "(1 × 128 tokens; " in of_few.origin
    monkeypatch.setitem(rates._FLOPS_AT_ONCE, "cpu", 5e8)
    of_half = measured_rate(reader.read(["--config=configs/quickstart.yaml", "--model.max_seq_len=512"]))
    assert "(1 of 4 layers, 1 × 256 tokens; " in of_half.origin


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_measured(reader):
    assert measured_rate(reader.read(["--config=configs/paper/small-mha.yaml"])) is None
