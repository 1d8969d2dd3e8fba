"""Studies in a real PostgreSQL; the folders of two coordinators stand for two machines."""

import signal
import time

import pytest

from lit_t6.sweeps.jobs import VOID, outcome_of
from lit_t6.sweeps.storage import open_storage
from lit_t6.sweeps.study import load_study

from .ledgers import claim_in_turn, make_ledger, make_study, statuses, wait_until
from .running import Sweep, kill, losses, records, study_file, sweep
from .servers import postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server():
    with postgresql() as server:
        yield server


@pytest.fixture
def ledger(server):
    """Makes ledgers on the server, whose connections are closed at the end."""
    opened = []

    def make(study, folder):
        opened.append(open_storage(server.address, folder, 1.0))
        return make_ledger(study, folder, storage=opened[-1])

    yield make
    for storage in opened:
        storage.remove_session()
        storage.engine.dispose()


def test_a_ledger_in_a_database(ledger, tmp_path):
    study = make_study(tmp_path, name="ledger")
    first = ledger(study, tmp_path / "a")
    second = ledger(study, tmp_path / "b")
    claims = claim_in_turn(first, second)
    until = time.monotonic() + 6.5
    while time.monotonic() < until:  # the heartbeat is that of the database; five give none
        assert first.beat(claims[0], 1, 2, 1.0)
        time.sleep(0.3)
    first.reap()
    assert sorted(statuses(first).values()) == [*["completed", "running"], *4 * ["waiting"]]
    assert not second.finish(claims[3], "completed", 0.5, {})
    assert second.beat(claims[5], 1, 2, 1.0) is False


def test_a_stopped_worker_is_replaced_and_its_late_result_not_counted(server, ledger, prepared, tmp_path):
    options = {"trainer.max_steps": 200, "trainer.val_check_interval": 100}
    path = study_file(tmp_path, prepared, "several", options, cells={"a": {}, "b": {}})
    words = [path, "--storage", server.address, "--heartbeat", 1]
    with Sweep([*words, "--logs", tmp_path / "one"], tmp_path) as one:
        wait_until(lambda: one.trainings(), 60)
        with Sweep([*words, "--logs", tmp_path / "two"], tmp_path) as two:
            wait_until(lambda: list((tmp_path / "one").glob("**/events*")), 60)
            (worker,) = one.workers()
            kill(worker, signal.SIGSTOP)
            (trial,) = [path.parent for path in (tmp_path / "one").glob("**/output.log")]
            wait_until(lambda: (trial / "finished").exists(), 120)  # its training goes on all the same, to the end
            assert two.status() == 0, two.said()
            kill(worker, signal.SIGCONT)
            assert one.status(60) == 0, one.said()
        assert "was given to another worker while this one" in one.said() or "is not counted" in one.said()
    job = str(trial.relative_to(tmp_path / "one" / "sweeps" / "several"))
    assert f"{job}: lost: its worker" in one.said()
    assert f"{job}: begins (attempt 2)" in one.said()
    study = load_study([path])
    look = ledger(study, tmp_path / "look")
    ended = {key: [outcome_of(t) for t in look.trials() if t.user_attrs["job"] == key] for key in look.jobs}
    # Both coordinators may have made a trial in the lost one's place; one of the two is void then.
    assert ended.pop(job) in (["lost", "completed"], ["lost", "completed", VOID], ["lost", VOID, "completed"])
    assert ended == {key: ["completed"] for key in look.jobs if key != job}
    found = {**records(tmp_path / "one"), **records(tmp_path / "two")}
    assert len(found) == 2


def test_a_server_that_goes_away_is_waited_for(server, ledger, prepared, tmp_path):
    options = {"trainer.max_steps": 300, "trainer.val_check_interval": 100}
    path = study_file(tmp_path, prepared, "away", options, cells={"a": {}, "b": {}})
    with Sweep([path, "--storage", server.address, "--heartbeat", 1, "--logs", tmp_path], tmp_path) as running:
        wait_until(lambda: list(tmp_path.glob("**/events*")), 60)
        server.stop()
        try:
            wait_until(lambda: "is out of reach" in running.said(), 60)
            wait_until(lambda: list(tmp_path.glob("**/finished")), 60)
            time.sleep(3.0)
        finally:
            server.start()
        assert running.status() == 0, running.said()
        assert "possible again" in running.said() or "there again" in running.said()
    assert {outcome for outcome, *_ in losses(tmp_path).values()} == {"completed"}
    assert len(ledger(load_study([path]), tmp_path / "look").trials()) == 2
    status, said = sweep([path, "--storage", server.address, "--logs", tmp_path], tmp_path)
    assert status == 0, said
    assert "begins" not in said
