import pytest
import torch

from lit_t6.training.planning import speed
from lit_t6.training.planning.fit_reader import FitReader
from lit_t6.training.planning.speed import measured_speed


@pytest.fixture(scope="module")
def reader():
    return FitReader()


def test_a_few_steps_are_measured(reader):
    settings = reader.read(["--config=configs/quickstart.yaml"])
    threads = torch.get_num_threads()
    measured = measured_speed(settings, workers=64)
    assert 1e8 < measured.flops_per_second < 1e14
    assert "FLOP/s in 3 training steps measured here (16 × 128 tokens; 1 CPU thread)" in measured.origin
    assert torch.get_num_threads() == threads


def test_steps_are_measured_on_the_cores_that_may_be_used(reader, monkeypatch):
    """Of a machine that has more."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    measured = measured_speed(reader.read(["--config=configs/quickstart.yaml"]))
    assert "; 2 CPU threads)" in measured.origin


def test_of_a_large_model_a_part_is_measured(reader, monkeypatch):
    monkeypatch.setitem(speed._FLOPS_AT_ONCE, "cpu", 1e9)
    of_few = measured_speed(reader.read(["--config=configs/quickstart.yaml"]))
    assert "(1 × 128 tokens; " in of_few.origin
    monkeypatch.setitem(speed._FLOPS_AT_ONCE, "cpu", 5e8)
    of_half = measured_speed(reader.read(["--config=configs/quickstart.yaml", "--model.max_seq_len=512"]))
    assert "(1 of 4 layers, 1 × 256 tokens; " in of_half.origin


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_measured(reader):
    assert measured_speed(reader.read(["--config=configs/paper/small-mha.yaml"])) is None
