"""What a pool of workers tells, and one worker as the pool sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainctl.errors import ResourceError, Stopped, TrainctlError
from trainctl.run.run import Run
from trainctl.tuning.talk import Line, Message

GRACE_S = 5.0  # from SIGTERM to SIGKILL for a trial that takes too long


@dataclass(frozen=True)
class Epochs:
    """Rows of metrics.jsonl by trial; with `wait` the worker waits for `Pool.answer`."""

    slot: int
    rows: dict[int, dict[str, Any]]
    wait: bool


@dataclass(frozen=True)
class Done:
    """How a trial ended: `completed`, `failed` or `stopped`; `halted` is {epoch, why} of one that a stopper ended."""

    slot: int
    number: int
    status: str
    code: int
    message: str
    metrics: dict[str, float | None]
    epochs: int
    best_epoch: int | None
    halted: dict[str, Any] | None
    seconds: float
    cpu_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Died:
    """A worker is gone, and with it these trials; their runs are marked failed."""

    slot: int
    numbers: tuple[int, ...]
    why: str


Event = Epochs | Done | Died


@dataclass
class Worker:
    """A worker's end of the line, the trials in its hands, and what is to become of it."""

    slot: int
    lane: int
    line: Line
    log: Path
    paths: dict[int, Path] = field(default_factory=dict)
    pid: int | None = None  # known once it has begun an order
    began: bool = False
    signum: int | None = None  # to be sent as soon as it has begun
    why: str | None = None  # given to `end`
    kill_at: float | None = None
    ended: str | None = None  # how the process ended
    code: int = 1

    def take(self, paths: dict[int, Path]) -> None:
        """Have the trials whose runs are at `paths` in hand."""
        self.paths, self.began, self.signum, self.why, self.kill_at, self.code = paths, False, None, None, None, 1

    def end(self, why: str, at_once: bool) -> None:
        """Have its trials end because of `why`: with SIGTERM, and by force after some seconds or `at_once`."""
        if self.why is not None and not at_once:
            return
        self.why, self.kill_at = why, time.monotonic() + (0.0 if at_once else GRACE_S)
        self.code = 128 + signal.SIGTERM if at_once else 1
        if not at_once:
            self.signal(signal.SIGTERM)

    def signal(self, signum: int) -> None:
        """Send a signal that its trials are to answer: once it has begun with them, or it would be lost."""
        self.signum = signum
        if self.began and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def end_when_overdue(self) -> None:
        """By force, once its time is over."""
        if self.kill_at is None or self.kill_at > time.monotonic():
            return
        self.kill_at = None
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            return
        self.ended = "did not begin"  # without its line it ends by itself
        with contextlib.suppress(OSError):
            self.line.end.shutdown(socket.SHUT_RDWR)

    def lost(self, how: str, code: int) -> None:
        """Its process ended like that; an end that was asked for keeps its own reason."""
        if self.ended is None:
            self.ended, self.code = how, self.code if self.why else code

    def heard(self) -> list[Event]:
        """What it said since the last time, and its end."""
        found = [event for message in self.line.arrived() if (event := self._event(message)) is not None]
        if self.ended is not None and self.paths:
            found.append(self._died())
        return found

    def _event(self, message: Message) -> Event | None:
        if message["event"] == "begun":
            self.pid, self.began = message["pid"], True
            if self.signum is not None:
                self.signal(self.signum)
            return None
        if message["event"] == "epochs":
            rows = {int(number): row for number, row in message["rows"].items()}
            return Epochs(self.slot, rows, bool(message["wait"]))
        fields = {key: value for key, value in message.items() if key not in ("event", "notes")}
        done = Done(self.slot, **fields, notes=tuple(message["notes"]))
        path = self.paths.pop(done.number, None)
        if self.why is not None and self.code == 1 and done.status == "stopped" and path is not None:
            mark_ended(path, TrainctlError(self.why))
            done = replace(done, status="failed", code=1, message=self.why)
        if not self.paths:
            self.kill_at = self.signum = self.why = None
        return done

    def _died(self) -> Died:
        why = self.why or str(self.ended)
        kind = ResourceError if self.code == ResourceError.exit_code else TrainctlError
        error = Stopped(signal.SIGTERM, why) if self.code > 128 else kind(why)
        for path in self.paths.values():
            mark_ended(path, error)
        numbers, self.paths = tuple(self.paths), {}
        return Died(self.slot, numbers, why)


def mark_ended(path: Path, error: TrainctlError) -> None:
    """Say in the record of a run whose process is gone, or gave up, what ended it; checkpoints stay to go on from."""
    with contextlib.suppress(TrainctlError):
        run = Run.open(path)
        if run.status == "completed":
            return
        if isinstance(error, Stopped):
            run.stop(error.signum, str(error))
        else:
            run.fail(error, error.exit_code, f"{error}\n")


def how_it_ended(code: int) -> str:
    """How a process ended, by its exit code; negative: by that signal."""
    if code == -signal.SIGSEGV:
        return "ended by a segmentation fault"
    if code == -signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    if code < 0:
        return f"killed by signal {-code}"
    return f"the worker ended with exit code {code}"
