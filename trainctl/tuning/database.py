"""A database that several machines share a study in: PostgreSQL, MySQL, or SQLite on one machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, get_storage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from trainctl.errors import ResourceError, UsageError
from trainctl.run.files import shown
from trainctl.tuning.journal import WAIT_S, lock
from trainctl.tuning.storage import Store

CONNECT_S = 10
GRACE_BEATS = 6  # heartbeats that a machine may miss
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_DATABASES = (*_PORTS, "sqlite")
_PACKAGES = {"psycopg2": "trainctl[postgres]", "MySQLdb": "mysqlclient"}
_TIMED = ("psycopg2", "psycopg", "mysqldb", "pymysql")  # drivers that take connect_timeout
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs", "9p", "ceph", "lustre", "beegfs", "gpfs")
MOUNTS = Path("/proc/mounts")
_EXAMPLE = "postgresql://user@host/database"


def parsed(storage: str) -> URL:
    """The URL of a database that a study can be kept in; UsageError for anything else."""
    try:
        url = make_url(storage)
        kind = "postgresql" if storage.startswith("postgres://") else url.get_backend_name()
    except (ArgumentError, ValueError):
        raise UsageError(f"`tune.storage` must be null or a URL such as {_EXAMPLE}") from None
    if storage.startswith(("postgresql://", "postgres://")):
        url = url.set(drivername="postgresql+psycopg2")  # what the extra `postgres` installs
    if kind not in _DATABASES:
        have = ", ".join(f"{name}://" for name in ("journal", *_DATABASES))
        raise UsageError(f"`tune.storage` begins with `{kind}://`, which is no storage; have: {have}")
    if not url.database or url.database == ":memory:":
        raise UsageError(f"`tune.storage` names no database; give one, as in {_EXAMPLE}")
    return url


class Server:
    """The database that a URL names, before anything is asked of it."""

    def __init__(self, url: URL) -> None:
        self.url, self.kind = url, url.get_backend_name()
        self.limits: dict[str, Any] = {"pool_pre_ping": True}
        self._name = f"{url.host}:{url.port or _PORTS[self.kind]}" if url.host else ""
        if self.kind == "sqlite":
            self.file = _sqlite_file(url)
            self.limits["connect_args"] = {"timeout": WAIT_S}
        elif url.get_driver_name() in _TIMED:
            self.limits["connect_args"] = {"connect_timeout": CONNECT_S}

    def connected(self) -> Engine:
        """An engine of a database that answers; UsageError without its driver, ResourceError when it does not."""
        try:
            engine = sqlalchemy.create_engine(
                self.url, poolclass=sqlalchemy.NullPool, connect_args=self.limits.get("connect_args", {})
            )
        except (ImportError, NoSuchModuleError) as error:
            raise UsageError(_driver_missing(self.url, error)) from error
        try:
            engine.connect().close()
        except SQLAlchemyError as error:
            what = "check" if "FATAL" in str(error) else "start it or check"
            raise ResourceError(f"{self.trouble(error)}; {what} `tune.storage`") from error
        return engine

    def trouble(self, error: Exception) -> str:
        """What an error of it means, as a sentence."""
        said = _reason(error)
        verb = "refuses" if "FATAL" in said else "does not answer"
        return f"storage {self.shown()} {verb}: {said.rpartition('FATAL:')[2].rpartition(' failed: ')[2].strip()}"

    def shown(self) -> str:
        """Where it is; never its password."""
        return f"{self.kind} at {self._name}" if self._name else f"`{shown(self.file)}`"


def refuse_silent(url: URL) -> None:
    """ResourceError when a server does not answer; nothing is made there. SQLite has none to ask."""
    server = Server(url)
    if server.kind != "sqlite":
        server.connected().dispose()


class DatabaseStore(Store):
    """A database behind a URL; `heartbeat` is the seconds between two signs of life."""

    shared = True

    def __init__(self, url: URL, heartbeat: float) -> None:
        self._server = Server(url)
        self._kind = self._server.kind
        self._interval = max(1, round(heartbeat))
        self._seen: dict[int, FrozenTrial] = {}
        self._engine = self._server.connected()
        with self.answering(), self.exclusive(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._database = RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=self._server.limits,
                heartbeat_interval=self._interval,
                grace_period=GRACE_BEATS * self._interval,
            )
        self.storage = get_storage(self._database)

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        if self._kind == "sqlite":
            return self._file_lock()
        return self._advisory_lock() if self._kind == "postgresql" else self._named_lock()

    def changed(self, study_id: int) -> list[FrozenTrial]:
        found = []
        for trial in self.storage.get_all_trials(study_id, deepcopy=False):
            if self._seen.get(trial._trial_id) is not trial:
                self._seen[trial._trial_id] = trial
                found.append(trial)
        return found

    def beat(self, trial_ids: list[int]) -> None:
        for trial_id in trial_ids:
            self._database.record_heartbeat(trial_id)

    def asleep(self, study_id: int, running: Mapping[int, str]) -> set[int]:
        return set(self._database._get_stale_trial_ids(study_id)) & set(running)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, StorageInternalError) as error:
            raise ResourceError(self._server.trouble(error)) from error

    def close(self) -> None:
        self._engine.dispose()
        self._database.engine.dispose()

    # Inside

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        path = self._server.file.with_name(f"{self._server.file.name}.lock")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            lock(file, path, "study")
            yield
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _advisory_lock(self) -> Iterator[None]:
        """PostgreSQL's; it goes with its transaction, also behind a connection pooler."""
        with self._engine.begin() as connection:
            wait = f"{WAIT_S:.0f}s"
            connection.execute(sqlalchemy.text(f"SET LOCAL lock_timeout = '{wait}'"))
            connection.execute(sqlalchemy.text(f"SET LOCAL idle_in_transaction_session_timeout = '{wait}'"))
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _key(self._server.url)})
            yield

    @contextlib.contextmanager
    def _named_lock(self) -> Iterator[None]:
        """MySQL's; it goes with its connection."""
        name = {"name": f"trainctl-{_key(self._server.url)}"}
        with self._engine.connect() as connection:
            if not connection.execute(sqlalchemy.text(f"SELECT GET_LOCK(:name, {WAIT_S:.0f})"), name).scalar():
                raise ResourceError(f"study in {self._server.shown()} is locked by another process")
            try:
                yield
            finally:
                connection.execute(sqlalchemy.text("SELECT RELEASE_LOCK(:name)"), name)


_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "sqlite": 0}


def file_system(path: Path, mounts: Path | None = None) -> str:
    """The kind of the file system that a path is on, as the kernel calls it; empty where it does not tell."""
    target, best, kind = os.path.realpath(path), "", ""
    with contextlib.suppress(OSError):
        for line in (mounts or MOUNTS).read_text(encoding="utf-8", errors="replace").splitlines():
            _, point, found, *_ = line.split()
            point = point.replace("\\040", " ")
            if (target + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                best, kind = point, found
    return kind


def _sqlite_file(url: URL) -> Path:
    file = Path(str(url.database))
    kind = file_system(file.parent)
    if kind in _NETWORK:
        raise UsageError(
            f"SQLite loses data on a network file system, and `{shown(file)}` is on {kind}; use "
            f"`tune.storage=journal://{file.with_suffix('.log').absolute()}` or a database server"
        )
    return file


def _driver_missing(url: URL, error: Exception) -> str:
    module = str(getattr(error, "name", None) or url.drivername)
    how = _PACKAGES.get(module, module)
    return f"`tune.storage={url.get_backend_name()}://...` needs `{module}`; run `pip install '{how}'`"


def _reason(error: Exception) -> str:
    """The first line of what a database's driver said."""
    cause: BaseException = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    said = str(getattr(cause, "orig", None) or cause).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _key(url: URL) -> int:
    return int.from_bytes(hashlib.sha256(str(url.database).encode()).digest()[:7], "big")
