"""Where a study's trials are kept: a journal file, a database, or a proxy before one."""

import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage

from lit_t6.sweeps.addresses import hidden
from lit_t6.sweeps.journal import LastingJournal, mend

JOURNAL = "journal.log"
"""Of a study whose storage is not named, in its folder."""
HEARTBEAT_SECONDS = 15.0
GRACE = 4
"""Heartbeats missed before a worker counts as gone."""
_DRIVERS = {"postgresql": ("psycopg", "psycopg2"), "mysql": ("pymysql", "MySQLdb"), "mariadb": ("pymysql", "mariadb")}
_PACKAGES = {"psycopg": "psycopg[binary]", "pymysql": "pymysql"}
_CONNECT_SECONDS = 10
_LIBRARIES = ("sqlalchemy", "psycopg", "psycopg2", "pymysql", "grpc")
T = TypeVar("T")


def open_storage(
    address: str | None, folder: Path, heartbeat: float = HEARTBEAT_SECONDS, say: Callable[[str], None] = print
) -> BaseStorage:
    """Open the storage of a study.

    Args:
        address: postgresql://USER:PASSWORD@HOST/DATABASE or mysql://…; grpc://HOST:PORT of a running `optuna` proxy; or
            the path of a journal file. None is a journal in `folder`.
        folder: of the study.
        heartbeat: seconds between two signs of life, for databases.
        say: takes a line about a journal that had to be mended.

    Raises:
        ValueError: an address that cannot be used, or a storage that cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats
    kind, separator, _ = (address or "").partition("://")
    if not separator:
        return _journal(Path(os.path.expanduser(address)) if address else folder / JOURNAL, say)
    assert address is not None
    if kind.startswith("sqlite"):
        raise ValueError(
            f"--storage {address}: SQLite is not for several processes. Leave --storage out for a journal file, or "
            f"name a server: postgresql://USER:PASSWORD@HOST/DATABASE."
        )
    try:
        return _proxy(address) if kind == "grpc" else _database(address, heartbeat)
    except ValueError:
        raise
    except Exception as error:  # of whichever library the address asked for
        if not is_out_of_reach(error):
            raise
        raise ValueError(
            f"--storage {hidden(address)}: cannot be reached: {reason(error)} Is the server there, and are user, "
            f"password and database right?"
        ) from error


def _journal(path: Path, say: Callable[[str], None]) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in mend(path):
            say(line)
        return JournalStorage(LastingJournal(path))
    except OSError as error:
        raise ValueError(f"{path}: the journal cannot be opened: {error.strerror or error}.") from error


def _database(address: str, heartbeat: float) -> BaseStorage:
    from optuna.storages import RDBStorage

    kind, _, rest = address.partition("://")
    if kind not in (*_DRIVERS, "postgres") and "+" not in kind:
        raise ValueError(
            f"--storage {hidden(address)}: {kind!r} is not known. Expected postgresql://…, mysql://…, "
            f"grpc://HOST:PORT, or the path of a journal file."
        )
    seconds = max(1, round(heartbeat))
    for patience in range(5, -1, -1):
        try:
            return RDBStorage(
                f"{_with_driver(kind)}://{rest}",
                engine_kwargs={"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_SECONDS}},
                heartbeat_interval=seconds,
                grace_period=GRACE * seconds,
            )
        except Exception as error:
            # Two who come first both make the tables.
            if not patience or ("already exists" not in str(error) and "duplicate key" not in str(error)):
                raise
            time.sleep(0.5)
    raise AssertionError("unreachable")


def _with_driver(kind: str) -> str:
    """A database's name with a driver that is installed, unless it has one."""
    if "+" in kind:
        return kind
    kind = "postgresql" if kind == "postgres" else kind
    drivers = _DRIVERS[kind]
    found = next((driver for driver in drivers if importlib.util.find_spec(driver)), None)
    if found is None:
        package = _PACKAGES[drivers[0]]
        extra = "'lit-t6[postgresql]'" if kind == "postgresql" else f"'{package}'"
        raise ValueError(f"--storage {kind}://… needs the package {drivers[0]}: pip install {extra}.")
    return f"{kind}+{found.lower()}"


def _proxy(address: str) -> BaseStorage:
    if importlib.util.find_spec("grpc") is None:
        raise ValueError("--storage grpc://… needs the package grpcio: pip install grpcio.")
    from optuna.storages import GrpcStorageProxy

    place = urlsplit(address)
    if not place.hostname:
        raise ValueError(f"--storage {address}: expected grpc://HOST:PORT, such as grpc://10.0.0.5:13000.")
    proxy = GrpcStorageProxy(host=place.hostname, port=place.port or 13000)
    proxy.get_all_studies()  # it connects at the first question
    return proxy


def is_out_of_reach(error: BaseException) -> bool:
    """Whether an error says that a storage cannot be reached, or has no space, now: later it may."""
    if isinstance(error, OSError | optuna.exceptions.StorageInternalError):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    of_a_library = type(error).__module__.partition(".")[0] in _LIBRARIES
    return of_a_library and bool(names & {"OperationalError", "InterfaceError", "TimeoutError", "RpcError"})


def reason(error: BaseException) -> str:
    """Why, in a line."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ else error
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.filename}: {cause.strerror}." if cause.filename else f"{cause.strerror}."
    details = getattr(cause, "details", None)  # gRPC's
    said = str(details()) if callable(details) else str(cause).partition("\n")[0]
    return f"{said.rstrip('.')}."


class Flag:
    """Something to wait for that a handler of signals may set; `threading.Event` may hang there."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """It has come."""
        self._set = True

    def is_set(self) -> bool:
        """Whether it has come."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Whether it comes within so many seconds."""
        until = time.monotonic() + seconds
        while not self._set and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self._set


class Patience:
    """Waits for a storage that cannot be reached, or a disk without space, instead of giving up what was computed.

    Args:
        say: takes a line when the waiting begins, and when it is over.
        stopped: ends the waiting.
        seconds: first pause; each is twice as long as the one before, up to `longest`.
        longest: pause, in seconds.
    """

    def __init__(self, say: Callable[[str], None], stopped: Flag, seconds: float = 0.5, longest: float = 15.0) -> None:
        self._say, self._stopped, self._first, self._longest = say, stopped, seconds, longest
        self.failed_at = float("-inf")
        """When something last did not work, by `time.monotonic()`."""

    def __call__(self, what: str, action: Callable[..., T], *arguments: Any) -> T:
        """Do something as often as it takes.

        Args:
            what: is done, in words, for the message.
            action: may be done twice, since it may have worked though it raised.
            *arguments: of `action`.

        Raises:
            Exception: that of `action`, where it is none that passes, or the waiting was ended.
        """
        pause, waits = self._first, False
        while True:
            try:
                result = action(*arguments)
            except Exception as error:
                self.failed_at = time.monotonic()
                if not is_out_of_reach(error):
                    raise
                if not waits:
                    self._say(f"{what} is not possible now: {reason(error)} Trying again until it is.")
                waits = True
                if self._stopped.wait(pause):
                    raise
                pause = min(2 * pause, self._longest)
            else:
                if waits:
                    self._say(f"{what} is possible again.")
                return result
