"""How a process comes to a study: it makes it or finds it, checks that it is the same, and says who it is."""

from __future__ import annotations

import os
import uuid
import warnings
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection

from trainctl.errors import RunError, UsageError
from trainctl.run import machine
from trainctl.run.files import shown
from trainctl.tuning import identity, samplers, stoppers, storage
from trainctl.tuning.storage import JOURNAL, JournalStore, Store, connect

if TYPE_CHECKING:
    from trainctl.tuning.space import Space

_NAME = "study"  # of the one study of a run's journal


class Asked(Protocol):
    """What a study needs of a search's settings; `objectives` is empty when nothing is searched."""

    @property
    def objectives(self) -> tuple[str, ...]: ...
    @property
    def directions(self) -> tuple[str, ...]: ...
    @property
    def sampler(self) -> dict[str, Any]: ...
    @property
    def stopper(self) -> dict[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def trials(self) -> int | None: ...
    @property
    def storage(self) -> str | None: ...
    @property
    def study_name(self) -> str | None: ...
    @property
    def heartbeat(self) -> float: ...


class Process:
    """This process as one that runs trials; `owner` is what they are marked with."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        facts = machine.process()
        self.owner = {key: facts[key] for key in ("pid", "pid_start", "host", "boot_id")}
        self.owner |= {"pid_space": _pid_space(), "token": self.token}
        _LIVING.add(self)

    def end(self) -> None:
        """Its trials count as lost from now on."""
        _LIVING.discard(self)


_LIVING: weakref.WeakSet[Process] = weakref.WeakSet()


@dataclass(frozen=True)
class Joined:
    """A study in its store, and this process's part in it."""

    store: Store
    study: optuna.Study
    process: Process
    objectives: tuple[str, ...]


def refuse(settings: Asked, space: Space) -> None:
    """UsageError unless there are such a sampler, stopper and kind of storage, ResourceError when that is silent."""
    samplers.make(settings.sampler, settings.seed, len(settings.objectives), distributions(space))
    stoppers.make(settings.stopper, len(settings.objectives))
    storage.refuse(settings.storage)


def join(path: Path, settings: Asked, space: Space, trusted: bool) -> Joined:
    """Make the study that the settings ask for, or find it; all of several processes at once succeed.

    Raises UsageError when it is there with another identity, or keeps a pickle and is not trusted.
    """
    sampler = samplers.make(settings.sampler, settings.seed, len(settings.objectives), distributions(space))
    stopper = stoppers.make(settings.stopper, len(settings.objectives))
    wanted = identity.of(settings, space)
    process = Process()
    store = connect(settings.storage, path, process.token, settings.heartbeat)
    name = settings.study_name or (_NAME if settings.storage is None else identity.name(wanted))
    with store.answering(), store.exclusive():
        existed = name in {study.study_name for study in store.storage.get_all_studies()}
        if not existed:
            directions = [StudyDirection[direction.upper()] for direction in settings.directions]
            store.storage.create_new_study(directions or [StudyDirection.MINIMIZE], name)
        study = _loaded(name, store, sampler, stopper)
        stored = study.user_attrs.get(identity.ATTRIBUTE)
        if stored is not None:
            identity.refuse_difference(stored, wanted)
        elif store.storage.get_n_trials(study._study_id):
            raise UsageError(f"study `{name}` in this storage was not made by trainctl; give another `tune.study=`")
        else:
            study.set_user_attr(identity.ATTRIBUTE, wanted)
    kind = settings.sampler["name"]
    if existed and kind in samplers.PICKLED and not trusted:
        raise UsageError(
            f"`sampler={kind}` keeps its state as a pickle, which running could execute code; pass `--trust {kind}` "
            "for a study that you made"
        )
    return Joined(store, study, process, settings.objectives)


def look(path: Path) -> Joined:
    """The study in a run's journal, to read it; RunError when there is none."""
    process = Process()
    if not (path / JOURNAL).is_file():
        raise RunError(f"`{shown(path)}` holds no study: it has no {JOURNAL}")
    store = JournalStore(path / JOURNAL, process.token)
    names = [study.study_name for study in store.storage.get_all_studies()]
    if not names:
        raise RunError(f"`{shown(path)}` holds no study: its {JOURNAL} is empty")
    study = _loaded(names[0], store, optuna.samplers.RandomSampler(), optuna.pruners.NopPruner())
    stored = study.user_attrs.get(identity.ATTRIBUTE) or {}
    return Joined(store, study, process, tuple(stored.get("objectives", ())))


def distributions(space: Space | None) -> dict[str, BaseDistribution]:
    """Each dimension as Optuna's distribution."""
    found: dict[str, BaseDistribution] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a range does not end on a step
        for one in space.dimensions if space else ():
            if one.kind == "choice":
                found[one.name] = CategoricalDistribution(one.choices)
            elif one.kind == "int":
                found[one.name] = IntDistribution(int(one.low), int(one.high), one.log, int(one.step or 1))
            else:
                found[one.name] = FloatDistribution(one.low, one.high, one.log, one.step)
    return found


def alive(owner: dict[str, Any] | None) -> bool | None:
    """Whether the process that marked a trial still works on it; None when this machine cannot tell."""
    if owner is None:
        return False
    if owner.get("host") != machine.host() or owner.get("pid_space") != _pid_space():
        return None
    found = machine.alive(owner)
    if found and owner.get("pid") == os.getpid():
        return any(process.token == owner.get("token") for process in _LIVING)
    return found


def _pid_space() -> str:
    """Which numbering of processes this one is in: containers of one machine have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _loaded(name: str, store: Store, sampler: BaseSampler, stopper: BasePruner) -> optuna.Study:
    return optuna.Study(name, store.storage, sampler, stopper)
