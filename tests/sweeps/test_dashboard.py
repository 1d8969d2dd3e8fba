"""optuna-dashboard, an extra, on the storage of a study."""

import io
import json
from wsgiref.util import setup_testing_defaults

import pytest

from lit_t6.sweeps.storage import open_storage

from .reported import VALUES, begun


def test_it_shows_every_trial(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard", reason="an extra: pip install 'lit-t6[dashboard]'")
    _, _, folder = begun(tmp_path)
    app = dashboard.wsgi(open_storage(None, folder))

    def get(path):
        environ = {"PATH_INFO": path, "QUERY_STRING": "after=0", "wsgi.input": io.BytesIO()}
        setup_testing_defaults(environ)
        status = []
        body = b"".join(app(environ, lambda said, headers, exc_info=None: status.append(said)))
        assert status == ["200 OK"]
        return json.loads(body)

    (study,) = get("/api/studies")["study_summaries"]
    assert study["study_name"] == "made_up"
    trials = get(f"/api/studies/{study['study_id']}")["trials"]
    assert len(trials) == sum(map(len, VALUES.values()))
    assert {trial["state"] for trial in trials} == {"Complete", "Pruned", "Fail"}
