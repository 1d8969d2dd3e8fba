import json

import pytest

from lit_t6.sweeps.rates import START_SECONDS, measured_rate, rate_of_finished, stated_rate
from lit_t6.training.planning.speed import Speed


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


@pytest.mark.parametrize("speed", [Speed(2e9, "2e+09 FLOP/s measured"), None])
def test_a_measured_rate(monkeypatch, speed):
    monkeypatch.setattr("lit_t6.sweeps.rates.measured_speed", lambda settings, workers: speed)
    rate = measured_rate(None, workers=2)
    if speed is None:
        assert rate is None
    else:
        assert rate.estimate("a", 4e9) == START_SECONDS + 2
        assert rate.origin == "2e+09 FLOP/s measured, and 6 s for the start of a process"
