"""What the coordinator says, with processes in the place of workers that end by SIGKILL alone."""

import os
import re
import signal
import threading

import pytest

from lit_t6.sweeps import coordinator as coordinator_module
from lit_t6.sweeps.coordinator import Coordinator
from lit_t6.sweeps.worker import Plan

from .ledgers import ONE, make_ledger, make_study, wait_until


class Said:
    """In the place of a screen."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def show(self, stands):
        pass

    def wait_for(self, text, times=1):
        wait_until(lambda: sum(text in line for line in self.lines) >= times)


@pytest.fixture
def ended_by(monkeypatch, tmp_path):
    """What was said by a coordinator while something was done to it, which two Ctrl-C end."""

    def run(action):
        stubborn = ["sh", "-c", "trap '' TERM; echo up; exec sleep 60"]
        monkeypatch.setattr(coordinator_module.tether, "words", lambda words: stubborn)
        study, said = make_study(tmp_path, **ONE), Said()
        ledger = make_ledger(study, tmp_path)
        ledger.make_due()
        coordinator = Coordinator(Plan(study, (), None, tmp_path, 5.0), ledger, [{}], said)

        def act():
            said.wait_for("up")
            action(coordinator, said)
            os.kill(os.getpid(), signal.SIGINT)
            said.wait_for("Stopping: ")
            os.kill(os.getpid(), signal.SIGINT)

        helper = threading.Thread(target=act)
        helper.start()
        with pytest.raises(SystemExit) as end:
            coordinator.run()
        helper.join()
        for worker in coordinator._processes:
            assert worker.process.wait(10) == -signal.SIGKILL
            worker.process.stdout.close()
        assert end.value.code == 128 + signal.SIGINT
        return said.lines

    return run


def test_who_stops_it_at_once_is_told_that_it_can_go_on(ended_by):
    said = ended_by(lambda coordinator, said: None)
    assert said[1:] == [
        "Stopping: every training finishes its step and saves. A second Ctrl-C stops at once.",
        "Stopped at once; the same command goes on from what was saved.",
    ]


def test_the_death_of_a_worker_is_told_with_its_time(ended_by):
    def kill(coordinator, said):
        coordinator._processes[0].process.kill()
        said.wait_for("up", 2)

    said = ended_by(kill)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  worker 0 was killed by SIGKILL; another one takes its place\.", said[1]), said
