"""Where a study is kept: a journal file in its run, or a database that several machines share.

A `Store` is Optuna's storage with three things more: a section that only one process of the study is in at a time,
trials that changed since the last look, and signs of life that let others take over a dead process's trials.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial

from trainctl.errors import ResourceError, UsageError
from trainctl.run.files import shown
from trainctl.tuning.journal import WAIT_S, Journal, lock

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

JOURNAL = "journal.log"
CONNECT_S = 10
GRACE_BEATS = 6  # heartbeats that a machine may miss
_FAR_GRACE_S = 120.0  # for a journal's other hosts: network file systems show new times late
_DATABASES = ("postgresql", "mysql", "mariadb", "sqlite")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs", "9p", "ceph", "lustre", "beegfs", "gpfs")
_EXAMPLE = "postgresql://user@host/database"

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


class Store:
    """A study's storage; what every kind has in common."""

    storage: BaseStorage
    shared = False  # whether others than this machine may be at it

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """A section that one process of the study is in at a time; not to be nested."""
        raise NotImplementedError

    def changed(self, study_id: int) -> list[FrozenTrial]:
        """The study's trials that changed since the last call, oldest first."""
        raise NotImplementedError

    def beat(self, trial_ids: list[int]) -> None:
        """Show that this process and its running trials live."""
        raise NotImplementedError

    def together(self) -> contextlib.AbstractContextManager[None]:
        """What is written in this block is written in one piece where that saves time."""
        return contextlib.nullcontext()

    def asleep(self, study_id: int, running: Mapping[int, str]) -> set[int]:
        """Ids of those `running` trials (each with its process's token) whose process shows no sign of life."""
        raise NotImplementedError

    def answering(self) -> contextlib.AbstractContextManager[None]:
        """Errors of the storage become sentences."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Give back files and connections."""


class JournalStore(Store):
    """A journal file; `token` names this process's file of signs of life, in a folder beside the journal."""

    def __init__(self, path: Path, token: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(path)
        self.storage = JournalStorage(self.journal)
        self._signs = path.with_suffix(".alive")
        self._mine = self._signs / token
        self._forgotten = weakref.finalize(self, _forget, self._mine, os.getpid())

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return self.journal.batch()

    def changed(self, study_id: int) -> list[FrozenTrial]:
        self.storage.get_study_user_attrs(study_id)  # reads what is new
        return [self.storage.get_trial(trial_id) for trial_id in self.journal.changed(study_id)]

    def beat(self, trial_ids: list[int]) -> None:
        with contextlib.suppress(OSError):
            try:
                os.utime(self._mine)
            except FileNotFoundError:
                self._signs.mkdir(exist_ok=True)
                self._mine.touch()

    def together(self) -> contextlib.AbstractContextManager[None]:
        return self.journal.batch()

    def asleep(self, study_id: int, running: Mapping[int, str]) -> set[int]:
        self.beat([])
        return {trial_id for trial_id, token in running.items() if not self._awake(token)}

    def _awake(self, token: str) -> bool:
        """By the file system's clock: those of the machines may differ."""
        try:
            return self._mine.stat().st_mtime - (self._signs / token).stat().st_mtime < _FAR_GRACE_S
        except OSError:
            return False

    def close(self) -> None:
        self._forgotten()
        self.journal.close()


def _forget(sign: Path, pid: int) -> None:
    """Remove a sign of life when its process ends; one that is killed leaves it."""
    with contextlib.suppress(OSError):
        if os.getpid() == pid:
            sign.unlink()
            sign.parent.rmdir()


class DatabaseStore(Store):
    """A database behind a URL; `heartbeat` is the seconds between two signs of life."""

    shared = True

    def __init__(self, url: URL, heartbeat: float) -> None:
        self._url, self._name = url, f"{url.host}:{url.port or _PORTS[url.get_backend_name()]}" if url.host else ""
        self._interval = max(1, round(heartbeat))
        self._seen: dict[int, FrozenTrial] = {}
        if url.get_backend_name() == "sqlite":
            self._file = _sqlite_file(url)
            limits: dict[str, Any] = {"connect_args": {"timeout": WAIT_S}}
        else:
            limits = {"connect_args": {"connect_timeout": CONNECT_S}, "pool_pre_ping": True}
        self._engine = self._connected(limits)
        with self.answering(), self.exclusive(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._database = RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=limits,
                heartbeat_interval=self._interval,
                grace_period=GRACE_BEATS * self._interval,
            )
        self.storage = get_storage(self._database)

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        kind = self._url.get_backend_name()
        if kind == "sqlite":
            return self._file_lock()
        return self._advisory_lock() if kind == "postgresql" else self._named_lock()

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
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, StorageInternalError) as error:
            raise ResourceError(f"storage {self._shown()} does not answer: {_reason(error)}") from error

    def close(self) -> None:
        self._engine.dispose()
        self._database.engine.dispose()

    # Inside

    def _connected(self, limits: dict[str, Any]) -> Engine:
        import sqlalchemy
        from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

        try:
            engine = sqlalchemy.create_engine(self._url, poolclass=sqlalchemy.NullPool, **_without_pool(limits))
        except (ImportError, NoSuchModuleError) as error:
            raise UsageError(_driver_missing(self._url, error)) from error
        try:
            engine.connect().close()
        except SQLAlchemyError as error:
            why = _reason(error)
            raise ResourceError(
                f"storage {self._shown()} does not answer: {why}; start it or check `tune.storage`"
            ) from error
        return engine

    def _shown(self) -> str:
        """Where the storage is; never its password."""
        return f"{self._url.get_backend_name()} at {self._name}" if self._name else f"`{shown(self._file)}`"

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        path = self._file.with_name(f"{self._file.name}.lock")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            lock(file, path, "study")
            yield
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _advisory_lock(self) -> Iterator[None]:
        """PostgreSQL's; it goes with its transaction, also behind a connection pooler."""
        from sqlalchemy import text

        with self._engine.begin() as connection:
            wait = f"{WAIT_S:.0f}s"
            connection.execute(text(f"SET LOCAL lock_timeout = '{wait}'"))
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{wait}'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _key(self._url)})
            yield

    @contextlib.contextmanager
    def _named_lock(self) -> Iterator[None]:
        """MySQL's; it goes with its connection."""
        from sqlalchemy import text

        name = {"name": f"trainctl-{_key(self._url)}"}
        with self._engine.connect() as connection:
            if not connection.execute(text(f"SELECT GET_LOCK(:name, {WAIT_S:.0f})"), name).scalar():
                raise ResourceError(f"study in {self._shown()} is locked by another process")
            try:
                yield
            finally:
                connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)


_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "sqlite": 0}


def connect(storage: str | None, path: Path, token: str, heartbeat: float) -> Store:
    """The store that `tune.storage` names: null for the journal of the run at `path`, `journal:///file`, or a URL.

    Raises UsageError for a URL that means nothing, ResourceError for a storage that does not answer.
    """
    if storage is None:
        return JournalStore(path / JOURNAL, token)
    if storage.startswith("journal://"):
        return JournalStore(Path(storage.removeprefix("journal://")), token)
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage)
        kind = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise UsageError(f"`tune.storage` must be null or a URL such as {_EXAMPLE}") from None
    if kind not in _DATABASES:
        have = ", ".join(f"{name}://" for name in ("journal", *_DATABASES))
        raise UsageError(f"`tune.storage` begins with `{kind}://`, which is no storage; have: {have}")
    if not url.database:
        raise UsageError(f"`tune.storage` names no database; give one, as in {_EXAMPLE}")
    return DatabaseStore(url, heartbeat)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of the file system that a path is on, as the kernel calls it; empty where it does not tell."""
    target, best, kind = os.path.realpath(path), "", ""
    with contextlib.suppress(OSError):
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
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


def _driver_missing(url: URL, error: ImportError | Exception) -> str:
    module = getattr(error, "name", None) or url.drivername
    how = "trainctl[postgres]" if url.get_backend_name() == "postgresql" else "mysqlclient"
    return f"`tune.storage={url.drivername}://...` needs `{module}`; run `pip install '{how}'`"


def _without_pool(limits: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in limits.items() if key != "pool_pre_ping"}


def _reason(error: Exception) -> str:
    """The first line of what a database's driver said."""
    cause: BaseException = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    said = str(getattr(cause, "orig", None) or cause).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _key(url: URL) -> int:
    return int.from_bytes(hashlib.sha256(str(url.database).encode()).digest()[:7], "big")
