import os
import signal
import subprocess
import sys
import time

import pytest
from torch.utils.data import DataLoader

from lit_t6.data.workers import leave_signals_to_the_parent

METHODS = ["fork", "forkserver", "spawn"]


class Numbers:
    """Numbers, each with the process that it comes from."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return index, os.getpid()


def loader(method):
    settings = dict(worker_init_fn=leave_signals_to_the_parent, multiprocessing_context=method)
    return DataLoader(Numbers(), batch_size=10, num_workers=2, persistent_workers=True, **settings)


@pytest.mark.parametrize("method", METHODS)
def test_workers_live_as_long_as_they_are_needed(method):
    data = loader(method)
    for _ in range(2):
        assert [number for numbers, _ in data for number in numbers.tolist()] == list(range(100))


PROGRAM = """
import sys, time
from tests.data.test_workers import loader
if __name__ == "__main__":
    batches = iter(loader(sys.argv[1]))
    print(*{int(pids[0]) for _, pids in (next(batches), next(batches))}, flush=True)
    time.sleep(300)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems leave workers behind until PyTorch sees it")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_training_that_is_killed(tmp_path, method, number):
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-W", "ignore", str(tmp_path / "program.py"), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as training:
        workers = [int(pid) for pid in training.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(alive, workers))
        if method == "fork":
            os.kill(workers[0], signal.SIGTERM)  # as a scheduler does; it is not theirs to obey
            time.sleep(0.5)
            assert all(map(alive, workers))
        training.send_signal(number)
        training.wait(10)
        deadline = time.monotonic() + 3  # PyTorch's own workers look every 5 seconds
        while any(map(alive, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
