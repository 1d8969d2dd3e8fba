"""Studies without a training: their ledgers, and a command in the place of `fit`."""

import json
import sys
import time
from pathlib import Path

from lit_t6.sweeps import load_study
from lit_t6.sweeps.jobs import jobs_of, outcome_of
from lit_t6.sweeps.ledger import Ledger
from lit_t6.sweeps.presence import Presence
from lit_t6.sweeps.storage import Flag, open_storage
from lit_t6.sweeps.worker import Plan, Worker

CELLS = {"a": {"x.y": 1}, "b": {"x.y": 2}, "c": {"x.y": 3}}
ONE = {"cells": {"a": {"x.y": 1}}, "seeds": [0]}
JOB = "a/seed-0"
"""Of that study."""
FAKE = Path(__file__).with_name("fake_fit.py")


def write_study(folder, name="study", **settings):
    settings = {"cells": CELLS, "seeds": [0, 1], **settings}
    path = Path(folder) / f"{name}.yaml"
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return path


def make_study(folder, **settings):
    return load_study([write_study(folder, **settings)])


def make_ledger(study, folder, grace=60.0, storage=None):
    """A ledger as another process has it, with a storage of its own on the same journal."""
    folder = Path(folder)
    presence = Presence(folder / "workers")
    storage = storage or open_storage(None, folder)
    ledger = Ledger(study, jobs_of(study), storage, folder, grace, presence.identity)
    ledger.presence = presence  # kept open as long as the ledger is
    return ledger


def claim_in_turn(first, second):
    """The six trials of a study, claimed once each by two ledgers in turn; the second of them completes."""
    first.make_due()
    assert second.make_due() == 0
    claims = [ledger.claim() for _ in range(3) for ledger in (first, second)]
    assert len({claim.job.key for claim in claims}) == 6
    assert first.claim() is second.claim() is None
    assert second.finish(claims[1], "completed", 1.5, {"metrics": {"val/loss": 2.0}})
    return claims


def statuses(ledger):
    return {key: stands.status for key, stands in ledger.standings().items()}


def attempts_of(ledger, key=JOB):
    return [trial for trial in ledger.trials() if trial.user_attrs["job"] == key]


def ends(ledger, key=JOB):
    return [outcome_of(trial) for trial in attempts_of(ledger, key)]


def fake_worker(monkeypatch, study, folder, behaviour, heartbeat=5.0, say=None, pause=0.0):
    """A worker in this process whose trainings are `fake_fit.py`.

    Args:
        monkeypatch: of the test.
        study: to work on.
        folder: of the study.
        behaviour: of the trainings, by the key of the job; see `fake_fit.py`.
        heartbeat: in seconds.
        say: takes what the worker says.
        pause: seconds before its first trial.
    """

    def command(study, cell, seed, trial_folder):
        key = str(trial_folder.relative_to(folder))
        chosen = behaviour.get(key, behaviour.get("", {}))
        return [sys.executable, "-I", "-S", str(FAKE), str(trial_folder), json.dumps(chosen)]

    monkeypatch.setattr("lit_t6.sweeps.worker.fit_command", command)
    if say is not None:
        monkeypatch.setattr(Worker, "say", lambda self, text: say(text))
    cells = tuple(plain_cells(study)) if study.search is None else ()
    return Worker(Plan(study, cells, None, Path(folder), heartbeat, pause=pause), Flag())


def plain_cells(study):
    from lit_t6.sweeps.cells import plain_cells as cells

    return cells(study)


def wait_until(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)
