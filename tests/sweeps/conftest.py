import threading

import pytest

from .ledgers import fake_worker, make_ledger, make_study


@pytest.fixture
def work(monkeypatch, tmp_path):
    """Has a worker in this process work on a study, and returns the ledger."""

    def run(behaviour, said=None, during=None, pause=0.0, **settings):
        study = make_study(tmp_path, **settings)
        ledger = make_ledger(study, tmp_path)
        ledger.make_due()
        say = (said if said is not None else []).append
        worker = fake_worker(monkeypatch, study, tmp_path, behaviour, 0.2, say, pause)
        monkeypatch.setattr("lit_t6.sweeps.worker.IDLE_SECONDS", 0.05)
        monkeypatch.setattr("lit_t6.sweeps.watch._LISTEN_SECONDS", 0.05)
        helper = threading.Thread(target=during, args=(worker, ledger)) if during else None
        if helper:
            helper.start()
        worker.run()
        if helper:
            helper.join()
        return ledger

    return run
