"""How the trials of a group end: recorded in their runs, brought to the disk, and told."""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainctl.data.base import Data
from trainctl.errors import SIGNALS, Interrupted, Stopped, TrainctlError
from trainctl.run import failures, files, machine
from trainctl.run.run import Run
from trainctl.tasks.base import Task
from trainctl.verbs.stacked_run import NO_CHECKPOINT, StackedRun

Figures = Mapping[str, float | None]
Order = Mapping[str, Any]


class Listener(Protocol):
    """Who is told of the trials: tuning.talk.Talk."""

    def tell(self, rows: Mapping[int, dict[str, Any]]) -> dict[int, str]:
        """The rows that an epoch ended with, by trial; returns why trials are to stop now."""

    def done(
        self, number: int, status: str = ..., metrics: Figures | None = ..., *, code: int = ..., message: str = ...,
        epochs: int = ..., best_epoch: int | None = ..., halted: Mapping[str, Any] | None = ..., seconds: float = ...,
        cpu_s: float = ...,
    ) -> None:  # fmt: skip
        """How a trial ended."""


@dataclass(frozen=True)
class Around:
    """What the process of the worker does for a group.

    alone(order): carries out one trial as an ordinary run, tells how it ended and returns its exit code.
    measure(task, data): further figures of a net, such as its size. report(run, metrics, intervals): report.html.
    """

    alone: Callable[[Order], int]
    measure: Callable[[Task, Data], Figures] = lambda task, data: {}
    report: Callable[[Run, Figures, Mapping[str, Any]], object] | None = None


class Signals:
    """Signals are noted, and raised as Interrupted only where nothing is being written."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._open = False

    def __enter__(self) -> Signals:
        self._previous = {signum: signal.signal(signum, self._note) for signum in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: object) -> None:
        self.received = signum
        if self._open:
            raise Interrupted(signum)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Inside, a signal interrupts at once, also one that came before."""
        self._open = True
        try:
            if self.received is not None:
                raise Interrupted(self.received)
            yield
        finally:
            self._open = False


class Ends:
    """The trials of an order that have not ended yet: `open` all of them, `begun` those whose run is made."""

    def __init__(self, order: Order, talk: Listener, around: Around) -> None:
        self.talk, self.around = talk, around
        self.parent = Path(order["parent"])
        self.facts = machine.facts(os.getpid())
        self.open: dict[int, Order] = {int(one["number"]): one for one in order["trials"]}
        self.begun: dict[int, StackedRun] = {}

    def begin(self, trials: Sequence[StackedRun], threads: int) -> list[StackedRun]:
        """Make the trials' runs; those whose directory cannot be written have failed, and are left out."""
        begun = []
        for trial in trials:
            try:
                shutil.rmtree(trial.path, ignore_errors=True)  # of a trial that was killed
                trial.path.mkdir(parents=True)
                trial.begin(self.parent, self.facts, threads=threads, stacked=len(trials))
            except (OSError, TrainctlError) as error:
                told = error if isinstance(error, TrainctlError) else files.explain(error, trial.path)
                self._failed(trial.number, told)
                continue
            self.begun[trial.number] = trial
            begun.append(trial)
        return begun

    def finish(self, weights: Mapping[int, Callable[[], Any]]) -> None:
        """End trials well: write all they came to, wait for the disk, say so in their records, tell it.

        weights: a function for each trial's number that gives its best weights. A trial whose files cannot be written
        has failed.
        """
        measured: Figures | None = None
        whole = []
        for number, take in weights.items():
            trial = self.begun[number]
            try:
                measured = self.around.measure(trial.task, trial.data) if measured is None else measured
                trial.keep(take(), measured)
                if self.around.report is not None:
                    self.around.report(trial.run, trial.metrics, trial.intervals)
                    trial.artifacts["report"] = "report.html"
                trial.seal()
            except Exception as error:
                self.fail(trial, error)
                continue
            whole.append(trial)
        if not whole:
            return
        files.sync_all(self.parent)
        for trial in whole:
            trial.complete()
        files.sync_all(self.parent)
        for trial in whole:
            figures = {"epochs": len(trial.rows), "best_epoch": trial.best_epoch, "halted": trial.halted}
            self._told(trial.number, "completed", trial.metrics, **figures, **cost(trial))

    def fail(self, trial: StackedRun, error: BaseException) -> None:
        """Record and tell that a trial whose run was made has failed."""
        told = failures.explained(error, trial.run)
        with suppress(TrainctlError):
            trial.write_log()
        trial.run.fail(told, getattr(told, "exit_code", 1), "".join(traceback.format_exception(error)))
        self._failed(trial.number, told, **cost(trial))

    def refuse(self, number: int, error: BaseException) -> None:
        """Record and tell that nothing could be made of a trial; its run holds the reason."""
        one = self.open[number]
        path = Path(one["path"])
        with suppress(OSError, TrainctlError):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            run = Run.create(path, "train", one["config"], list(one["overrides"]), self.parent, self.facts)
            error = failures.explained(error, run)
            run.fail(error, getattr(error, "exit_code", 1), "".join(traceback.format_exception(error)))
        self._failed(number, error)

    def stop(self, signum: int) -> None:
        """Record and tell that a signal ended all that is open."""
        for number in list(self.open):
            trial = self.begun.get(number)
            where = f" at epoch {len(trial.rows) + 1}" if trial is not None else ""
            name = signal.Signals(signum).name
            told = Stopped(signum, f"stopped by {name}{where}; {NO_CHECKPOINT}, so it begins anew with its study")
            if trial is not None:
                with suppress(TrainctlError):
                    trial.write_log()
                trial.run.stop(signum, str(told))
            self._told(number, "stopped", code=told.exit_code, message=str(told))

    def _failed(self, number: int, error: BaseException, **cost: float) -> None:
        first = (str(error).splitlines() or [""])[0]
        message = str(error) if isinstance(error, TrainctlError) else f"{type(error).__name__}: {first}"
        self._told(number, "failed", None, code=getattr(error, "exit_code", 1), message=message, **cost)

    def _told(self, number: int, status: str, metrics: Figures | None = None, **how: Any) -> None:
        del self.open[number]
        self.begun.pop(number, None)
        self.talk.done(number, status, metrics, **how)


def cost(trial: StackedRun) -> dict[str, float]:
    """The trial's share of the group's time."""
    return {"seconds": trial.seconds, "cpu_s": trial.cpu_s}
