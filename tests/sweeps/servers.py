"""Servers of the test's own: PostgreSQL, and a proxy that Optuna has."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..ports import free_port, listens
from .ledgers import wait_until


def programs():
    """The folder of initdb and postgres; None if they are not installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def why_not():
    """Why there can be no server here; empty if there can."""
    if programs() is None:
        return "PostgreSQL is not installed: neither initdb on the PATH nor /usr/lib/postgresql/*/bin"
    if find_spec("psycopg") is None:
        return "the package psycopg is not installed"
    return ""


class Server:
    """Listens on a port of 127.0.0.1; `stop` and `start` make it unreachable and reachable.

    Args:
        folder: of the database.
        user: to run as, a number; None for that of the test.
    """

    def __init__(self, folder, user):
        self.folder, self.options = folder, {} if user is None else {"user": user, "cwd": folder}
        self.port = free_port()
        self.address = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        words = [programs() / "initdb", "-D", folder / "data", "-U", "tester", "--auth=trust", "--no-sync"]
        subprocess.run(words, check=True, capture_output=True, **self.options)
        self.start()

    def start(self):
        words = [programs() / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "-h", "127.0.0.1", "-c", "fsync=off"], stdout=log, stderr=log, **self.options
            )
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            if listens(self.port) and self._answers():
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def _answers(self):
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "tester"]
        words = [programs() / "psql", *place, "-c", "", "postgres"]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def stop(self):
        self.process.send_signal(2)  # fast: it ends its connections
        self.process.wait(60)


@contextlib.contextmanager
def postgresql():
    """A server; the test is skipped, with the reason, where there is none, but not in continuous integration."""
    if reason := why_not():
        assert os.environ.get("CI") != "true", f"{reason}; .ci/run installs it"
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="lit_t6_postgresql_"))
    user = None
    if os.getuid() == 0:  # the server refuses to run as root
        name = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})
        user = pwd.getpwnam(name).pw_uid
        os.chown(folder, user, -1)
    server = Server(folder, user)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


_PROXY = """
import sys
from pathlib import Path
from optuna.storages import run_grpc_proxy_server
from lit_t6.sweeps.storage import open_storage
run_grpc_proxy_server(open_storage(None, Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]))
"""


@contextlib.contextmanager
def proxy(folder):
    """The address of a proxy to the journal in a folder."""
    port = free_port()
    words = [sys.executable, "-W", "ignore", "-c", _PROXY, str(folder), str(port)]
    with subprocess.Popen(words) as process:
        try:
            wait_until(lambda: listens(port))
            yield f"grpc://127.0.0.1:{port}"
        finally:
            process.kill()
