"""A ledger over a gRPC proxy, for which Optuna has no heartbeat."""

import socket
import subprocess
import sys
import time

import pytest

from lit_t6.sweeps import ledger as ledger_module
from lit_t6.sweeps.storage import open_storage

from .ledgers import make_ledger, make_study, statuses, wait_until

PROGRAM = """
import sys
from pathlib import Path
from optuna.storages import run_grpc_proxy_server
from lit_t6.sweeps.storage import open_storage
run_grpc_proxy_server(open_storage(None, Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]))
"""


@pytest.fixture
def address(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), str(port)]) as process:

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens)
        yield f"grpc://127.0.0.1:{port}"
        process.kill()


def test_trials_are_claimed_once_and_taken_from_silent_workers(address, tmp_path, monkeypatch):
    study = make_study(tmp_path)
    first, second = (
        make_ledger(study, tmp_path / name, storage=open_storage(address, tmp_path / name)) for name in "ab"
    )
    first.make_due()
    assert second.make_due() == 0
    claims = [ledger.claim() for _ in range(3) for ledger in (first, second)]
    assert len({claim.job.key for claim in claims}) == 6
    assert first.claim() is second.claim() is None
    assert second.finish(claims[1], "completed", 1.5, {"metrics": {"val/loss": 2.0}})
    assert first.reap() == []
    now = time.monotonic()
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now + 50)
    assert first.beat(claims[0], 1, 2, 1.0)
    assert first.reap() == []
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now + 70)
    assert len(first.reap()) == 4
    assert sorted(statuses(first).values()) == ["completed", "running", *4 * ["waiting"]]
    assert second.finish(claims[3], "completed", 0.5, {}) is False
