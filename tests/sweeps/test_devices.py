import pytest

from lit_t6.sweeps.devices import share_out, visible_gpus


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def places(*arguments):
    return [variables.get("CUDA_VISIBLE_DEVICES") for variables in share_out(*arguments)]


def test_gpus_are_those_that_may_be_seen():
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,3"}) == ["2", "3"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-1f"}) == ["MIG-1f"]


def test_one_worker_a_gpu():
    assert places(["0", "1"], 1, 1, None) == ["0", "1"]
    assert places(["0", "1"], 1, 1, 1) == ["0"]


def test_several_workers_share_a_gpu_and_all_gpus_are_used_first():
    assert places(["0", "1"], 1, 2, None) == ["0", "1", "0", "1"]
    assert places(["0", "1"], 1, 2, 3) == ["0", "1", "0"]


def test_trials_of_several_gpus():
    assert places(list("01234"), 2, 1, None) == ["0,1", "2,3"]


def test_workers_on_a_cpu():
    assert places([], 1, 1, None) == [None]
    assert places([], 1, 1, 3) == [None, None, None]


def test_workers_on_a_cpu_share_its_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8))
    assert share_out([], 1, 1, 3) == 3 * [{"OMP_NUM_THREADS": "2"}]
    assert share_out([], 1, 1, 30)[0] == {"OMP_NUM_THREADS": "1"}


def test_processes_of_a_trial_share_its_cores(monkeypatch):
    """One a GPU, and one a device on a CPU."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8))
    assert [each["OMP_NUM_THREADS"] for each in share_out(list("0123"), 2, 1, None)] == ["2", "2"]
    assert share_out([], 2, 1, 2) == 2 * [{"OMP_NUM_THREADS": "2"}]
    assert share_out([], 16, 1, 1) == [{"OMP_NUM_THREADS": "1"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["0"], 1, 1, 0), "--workers must be at least 1, got 0"),
        ((["0"], 1, 0, None), "--workers_per_gpu must be at least 1, got 0"),
        ((["0"], 2, 1, None), "gpus_per_trial: 2 is more than the GPUs of this machine, 1"),
        ((["0", "1"], 2, 2, None), "do not share them"),
        ((["0"], 1, 1, 2), "--workers 2 is more than this machine has GPUs for, 1; --workers_per_gpu 2"),
    ],
)
def test_numbers_that_do_not_fit_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        share_out(*arguments)
