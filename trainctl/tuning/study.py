"""A study: which trials there are, what they try and how they ended; kept by Optuna, shared by any number of processes.

A trial is created, or taken from the queue, together with the name of the process that runs it, in a section that one
process is in at a time. So no trial runs twice, numbers have no gaps, and whoever sees a trial of a dead process may
put it back. Proposals are a function of the seed and the trial's number (see `samplers`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from trainctl.errors import UsageError
from trainctl.tuning import joining, lost, rows, samplers, stoppers
from trainctl.tuning.rows import ADVANCED, END, OWNER, WORDS, Value
from trainctl.tuning.samplers import NUMBER
from trainctl.tuning.view import View

if TYPE_CHECKING:
    from trainctl.tuning.joining import Asked, Joined
    from trainctl.tuning.space import Space

log = logging.getLogger("trainctl")

_LOOK_S = 1.0  # between two looks for trials of dead processes on this machine


@dataclass
class Trial:
    """A trial that this process runs: `words` are what `trainctl train` would be given for its `params`.

    `retry` says that it was begun before and may have left a run.
    """

    number: int
    params: dict[str, Value]
    words: list[str]
    retry: bool
    _optuna: Any = field(repr=False, default=None)

    @property
    def _id(self) -> int:
        return int(self._optuna._trial_id)


class Study(View):
    """The trials of one search. Not for several threads; a fork of the process must not use it."""

    def __init__(
        self, joined: Joined, settings: Asked | None, space: Space | None, points: list[dict[str, Value]] | None
    ) -> None:
        super().__init__(joined.store, joined.study, joined.objectives, settings.trials if settings else None)
        self._settings, self._space, self._points = settings, space, points
        self._process, self._storage = joined.process, joined.store.storage
        self._distributions = joining.distributions(space)
        self._mine: dict[int, Trial] = {}  # by Optuna's id
        self._looked = 0.0
        self._refresh()

    @classmethod
    def create(
        cls,
        path: Path,
        settings: Asked,
        space: Space,
        points: list[dict[str, Value]] | None = None,
        trusted: bool = False,
    ) -> Study:
        """A new study for the run at `path`, or the one of that name in a shared storage; `points`: a frozen grid.

        Raises UsageError for another study of that name, ResourceError for a storage that does not answer.
        """
        if points is None and settings.sampler["name"] == "grid":
            points = space.points()
        return cls(joining.join(path, settings, space, trusted), settings, space, points)

    @classmethod
    def open(
        cls, path: Path, settings: Asked | None = None, space: Space | None = None, trusted: bool = False
    ) -> Study:
        """The study of a run, to go on with it; without settings only to look at its journal.

        `trusted` allows a sampler whose state is a pickle. Raises RunError when there is nothing to look at.
        """
        if settings is None or space is None:
            return cls(joining.look(path), None, None, None)
        return cls.create(path, settings, space, None, trusted)

    def extend(self, points: list[dict[str, Value]] | None) -> None:
        """The whole grid, when it is not the space's; its beginning must be what was given out."""
        self._points = points

    def close(self) -> None:
        """Give back files and connections; trials that still run count as lost."""
        self._process.end()
        super().close()

    # Trials

    def next(self) -> Trial | None:
        """The next trial for this process; None when nothing is left to begin."""
        while True:
            with self._store.answering(), self._store.exclusive():
                trial_id = self._take()
            if trial_id is None:
                return None
            try:
                with self._store.answering():
                    return self._proposed(trial_id)
            except UsageError as error:
                trial = Trial(self._number(trial_id), {}, [], False, self._handle(trial_id))
                self.fail(trial, str(error), None, 0.0)
            except BaseException:
                with self._store.answering():
                    lost.requeue(self._storage, self._optuna._study_id, trial_id, given_back=True)
                raise

    def next_many(self, count: int) -> list[Trial]:
        """Up to `count` trials to be trained at once."""
        found: list[Trial] = []
        while len(found) < count and (trial := self.next()) is not None:
            found.append(trial)
        return found

    def report(self, trial: Trial, step: int, value: float | None) -> str | None:
        """Note the first objective after an epoch (from 1); the reason when the stopper ends the trial there."""
        handle = trial._optuna
        known = handle._cached_frozen_trial.intermediate_values
        if value is None or math.isnan(value) or step in known:
            return None
        with self._store.answering():
            try:
                self._storage.set_trial_intermediate_value(trial._id, step, float(value))
                known[step] = float(value)
                if self._settings is None or self._settings.stopper["name"] == "none" or not handle.should_prune():
                    return None
            except UpdateFinishedTrialError:
                return "another process took it over"
        return stoppers.verdict(self._settings.stopper, self.objectives[0], step, float(value))

    def complete(
        self, trial: Trial, values: Sequence[float | None], run: str | None, seconds: float, epochs: int | None = None
    ) -> None:
        """A trial ended well after so many epochs; it failed after all when an objective has no value."""
        for name, value in zip(self.objectives, values, strict=True):
            if value is None or math.isnan(value):
                return self.fail(trial, f"{name} is undefined", run, seconds)
        end = {"values": values, "run": run, "seconds": seconds, "epochs": epochs}
        self._end(trial, TrialState.COMPLETE, [float(value or 0.0) for value in values] or [0.0], end)

    def stop(
        self,
        trial: Trial,
        epoch: int,
        why: str,
        values: Sequence[float | None] | None,
        run: str | None,
        seconds: float,
        epochs: int | None = None,
    ) -> None:
        """The stopper ended a trial after an epoch; `values` are those of its best epoch."""
        end = {"values": rows.finite(values), "epoch": epoch, "why": why, "run": run, "seconds": seconds}
        self._end(trial, TrialState.PRUNED, None, {**end, "epochs": epochs})

    def fail(self, trial: Trial, why: str, run: str | None, seconds: float) -> None:
        """A trial failed for a reason of its own; it is not begun again."""
        self._end(trial, TrialState.FAIL, None, {"why": why, "run": run, "seconds": seconds})

    def give_back(self, trial: Trial) -> None:
        """Put a trial that did not end back into the queue, under its number."""
        with self._store.answering(), self._store.exclusive():
            lost.requeue(self._storage, self._optuna._study_id, trial._id, given_back=True)
        self._mine.pop(trial._id, None)

    # Dead processes

    def advanced(self, trial: Trial) -> None:
        """Note that a trial that was lost before has come further now: it is no trial that kills its process."""
        with self._store.answering(), contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial._id, ADVANCED, True)

    def recover(self) -> list[int]:
        """Put trials of dead processes back into the queue; returns their numbers. Safe for several at once."""
        self._refresh()
        with self._store.answering():
            if not self._dead():
                return []
            found = []
            with self._store.exclusive():
                self._ledger.take(self._store.changed(self._optuna._study_id))
                for trial in self._dead():
                    if lost.requeue(self._storage, self._optuna._study_id, trial._trial_id):
                        found.append(int(trial.user_attrs[NUMBER]))
        self._refresh()
        return [number for number in found if self._ledger.row(number).state == "waiting"]

    def heartbeat(self) -> None:
        """To be called about every second: show that this process's trials live, take back those of dead ones."""
        now = time.monotonic()
        period = self._settings.heartbeat if self._store.shared and self._settings else _LOOK_S
        if now - self._looked < period:
            return
        self._looked = now
        with self._store.answering():
            self._store.beat(list(self._mine))
        for number in self.recover():
            log.warning("trial %d was lost with its process; it is begun again", number)

    def _dead(self) -> list[FrozenTrial]:
        return lost.dead(self._ledger.open.values(), self._mine, self._store, self._optuna._study_id)

    # Proposals

    def _take(self) -> int | None:
        """Begin a queued trial or a new one, inside the exclusive section; its id in the storage."""
        self._ledger.take(self._store.changed(self._optuna._study_id))
        self._store.beat([])
        owner = self._process.owner
        for waiting in self._ledger.waiting():
            self._storage.set_trial_user_attr(waiting._trial_id, OWNER, owner)
            self._store.beat([waiting._trial_id])
            if self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                return waiting._trial_id
        number = len(self._ledger)
        points = self._points
        if (self._budget is not None and number >= self._budget) or (points is not None and number >= len(points)):
            return None
        attributes: dict[str, Any] = {NUMBER: number, OWNER: owner}
        point: dict[str, Value] = {}
        if points is not None:
            point = points[number]
            attributes[WORDS] = self._known_space().words(point)
        first = TrialState.WAITING if self._store.shared else TrialState.RUNNING  # a database needs a heartbeat first
        trial_id = self._storage.create_new_trial(
            self._optuna._study_id,
            create_trial(
                state=first,
                params=point,
                distributions={name: self._distributions[name] for name in point},
                user_attrs=attributes,
            ),
        )
        if self._store.shared:
            self._store.beat([trial_id])
            self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        return trial_id

    def _proposed(self, trial_id: int) -> Trial:
        handle = self._handle(trial_id)
        frozen = handle._cached_frozen_trial
        if WORDS in frozen.user_attrs:
            params = {name: frozen.params[name] for name in self._distributions if name in frozen.params}
            words = list(frozen.user_attrs[WORDS])
        else:
            space = self._known_space()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                params = space.point(lambda dimension: samplers.suggested(handle, dimension))
            words = space.words(params)
            self._storage.set_trial_user_attr(trial_id, WORDS, words)
        retry = "retry_history" in frozen.system_attrs
        trial = Trial(self._number(trial_id), params, words, retry, handle)
        self._mine[trial_id] = trial
        return trial

    def _handle(self, trial_id: int) -> optuna.Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.Trial(self._optuna, trial_id)

    def _number(self, trial_id: int) -> int:
        return int(self._storage.get_trial(trial_id).user_attrs[NUMBER])

    def _known_space(self) -> Space:
        if self._space is None:
            raise RuntimeError("a study that was opened to look at it begins no trials")
        return self._space

    def _end(self, trial: Trial, state: TrialState, values: list[float] | None, end: dict[str, Any]) -> None:
        try:
            with self._store.answering(), self._store.together():
                frozen = self._storage.get_trial(trial._id)
                if frozen.state.is_finished():
                    raise UpdateFinishedTrialError(str(trial.number))
                self._storage.set_trial_user_attr(trial._id, END, {"state": rows.NAMES[state], **end})
                self._optuna.tell(trial._optuna, values, state)
        except UpdateFinishedTrialError:
            log.warning("trial %d was taken over by another process; what this one found is not counted", trial.number)
        self._mine.pop(trial._id, None)
