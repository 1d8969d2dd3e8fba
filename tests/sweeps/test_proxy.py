"""A ledger over a gRPC proxy, for which Optuna has no heartbeat."""

import time

import pytest

from lit_t6.sweeps import ledger as ledger_module
from lit_t6.sweeps.storage import open_storage

from .ledgers import claim_in_turn, make_ledger, make_study, statuses
from .servers import proxy


@pytest.fixture
def address(tmp_path):
    with proxy(tmp_path) as address:
        yield address


def test_trials_are_claimed_once_and_taken_from_silent_workers(address, tmp_path, monkeypatch):
    study = make_study(tmp_path)
    first, second = (
        make_ledger(study, tmp_path / name, storage=open_storage(address, tmp_path / name)) for name in "ab"
    )
    claims = claim_in_turn(first, second)
    assert first.reap() == []
    now = time.monotonic()
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now + 50)
    assert first.beat(claims[0], 1, 2, 1.0)
    assert first.reap() == []
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now + 70)
    assert len(first.reap()) == 4
    assert sorted(statuses(first).values()) == ["completed", "running", *4 * ["waiting"]]
    assert second.finish(claims[3], "completed", 0.5, {}) is False
