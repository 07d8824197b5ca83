"""Where a study is kept: a journal file in its run, or a database that several machines share (see `database`).

A `Store` is Optuna's storage with three things more: a section that only one process of the study is in at a time,
trials that changed since the last look, and signs of life that let others take over a dead process's trials.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial

from trainctl.tuning.journal import Journal

JOURNAL = "journal.log"
_JOURNAL_URL = "journal://"
_FAR_GRACE_S = 120.0  # for a journal's other hosts: network file systems show new times late

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


class Store(ABC):
    """A study's storage; what every kind has in common."""

    storage: BaseStorage
    shared = False  # whether others than this machine may be at it

    @abstractmethod
    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """A section that one process of the study is in at a time; not to be nested."""

    @abstractmethod
    def changed(self, study_id: int) -> list[FrozenTrial]:
        """The study's trials that changed since the last call, oldest first."""

    @abstractmethod
    def beat(self, trial_ids: list[int]) -> None:
        """Show that this process and its running trials live."""

    def together(self) -> contextlib.AbstractContextManager[None]:
        """What is written in this block is written in one piece where that saves time."""
        return contextlib.nullcontext()

    @abstractmethod
    def asleep(self, study_id: int, running: Mapping[int, str]) -> set[int]:
        """Ids of those `running` trials (each with its process's token) whose process shows no sign of life."""

    def answering(self) -> contextlib.AbstractContextManager[None]:
        """Errors of the storage become sentences."""
        return contextlib.nullcontext()

    @abstractmethod
    def close(self) -> None:
        """Give back files and connections."""


class JournalStore(Store):
    """A journal file; `token` names this process's file of signs of life, in a folder beside the journal."""

    def __init__(self, path: Path, token: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(path)
        self.storage = JournalStorage(self.journal)
        self._kinds: dict[str, BaseDistribution] = {}
        self._signs = path.with_suffix(".alive")
        self._mine = self._signs / token
        self._forgotten = weakref.finalize(self, _forget, self._mine, os.getpid())

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return self.journal.batch()

    def changed(self, study_id: int) -> list[FrozenTrial]:
        self.storage.get_study_user_attrs(study_id)  # reads what is new
        found = [self.storage.get_trial(trial_id) for trial_id in self.journal.changed(study_id)]
        for trial in found:
            trial.distributions = {name: self._one(name, kind) for name, kind in trial.distributions.items()}
        return found

    def _one(self, name: str, kind: BaseDistribution) -> BaseDistribution:
        """The distribution that other trials have, too: a thousand trials of a thousand choices would fill memory."""
        known = self._kinds.setdefault(name, kind)
        if known is not kind and known != kind:
            known = self._kinds[name] = kind
        return known

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


def connect(storage: str | None, path: Path, token: str, heartbeat: float) -> Store:
    """The store that `tune.storage` names: null for the journal of the run at `path`, `journal:///file`, or a URL.

    Raises UsageError for a URL that means nothing, ResourceError for a storage that does not answer.
    """
    if storage is None:
        return JournalStore(path / JOURNAL, token)
    if storage.startswith(_JOURNAL_URL):
        return JournalStore(Path(storage.removeprefix(_JOURNAL_URL)), token)
    from trainctl.tuning.database import DatabaseStore, parsed

    return DatabaseStore(parsed(storage), heartbeat)


def refuse(storage: str | None) -> None:
    """UsageError for a URL that means nothing, ResourceError for a server that does not answer; nothing is made."""
    if storage is not None and not storage.startswith(_JOURNAL_URL):
        from trainctl.tuning.database import parsed, refuse_silent

        refuse_silent(parsed(storage))
