"""Warm worker processes, seen from the study's process, which never imports torch.

`Pool` starts one process that imports and loads what all trials need; workers are forked from it when they are first
wanted or one is to be replaced. Everything here is non-blocking, so a signal is answered at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainctl import launch
from trainctl.check import machine
from trainctl.errors import ResourceError, Stopped, TrainctlError
from trainctl.run.run import Run
from trainctl.tuning.facts import Facts
from trainctl.tuning.talk import Line, Message

GRACE_S = 5.0  # from SIGTERM to SIGKILL for a trial that takes too long
CLOSE_S = 5.0
FOLDER = "workers"


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
class _Worker:
    """A worker's end of the line, the trials in its hands, and what is to become of it."""

    slot: int
    lane: int
    line: Line
    log: Path
    paths: dict[int, Path] = field(default_factory=dict)
    pid: int | None = None  # known once it has begun an order
    began: bool = False
    signum: int | None = None  # to be sent as soon as it has begun
    why: str | None = None  # given to `kill`
    kill_at: float | None = None
    ended: str | None = None  # how the process ended
    code: int = 1


class Pool:
    """At most `jobs` workers; the runs of their trials are below `study` (None: nothing is to be run)."""

    def __init__(
        self,
        jobs: int,
        options: launch.Options,
        study: Path | None,
        threads: int | None = None,
        gpus: Sequence[str] | None = None,
    ) -> None:
        self.jobs, self.options, self.study = max(1, jobs), options, study
        self.threads = threads or max(1, machine.cores() // self.jobs)
        self.gpus = visible_gpus() if gpus is None else list(gpus)
        self._workers: dict[int, _Worker] = {}
        self._slots = 0
        self._selector = selectors.DefaultSelector()
        self._prepared: dict[str, Any] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="trainctl-")) if study is None else study / FOLDER
        self._start_zygote()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Work

    def prepare(self, content: dict[str, Any], latency: bool = False) -> Facts:
        """Load the data of a config for all workers and measure a trial of it; what is wrong with it is raised."""
        self._control.send({"do": "prepare", "config": content})
        while True:
            self._selector.select(0.5)
            for message in self._control.arrived():
                if message["event"] == "prepared":
                    self._prepared = content
                    return _facts(message)
            if self._control.closed:
                raise self._zygote_error()

    @property
    def idle(self) -> int:
        """How many more orders can be started now."""
        return self.jobs - sum(bool(worker.paths) for worker in self._workers.values())

    def start(self, order: dict[str, Any]) -> int:
        """Hand a `trial` or `group` order to an idle worker, a new one when there is none; returns its slot."""
        free = [w for w in self._workers.values() if not w.paths and not w.line.closed and w.ended is None]
        worker = free[0] if free else self._fork()
        trials = order["trials"] if order["do"] == "group" else [order]
        worker.paths = {int(one["number"]): Path(one["path"]) for one in trials}
        worker.began, worker.signum, worker.why, worker.kill_at = False, None, None, None
        worker.line.push(order)
        self._watch(worker)
        return worker.slot

    def answer(self, slot: int, stop: Mapping[int, str]) -> None:
        """Answer a report of epochs: the trials that are to stop, and why."""
        worker = self._workers.get(slot)
        if worker is not None:
            worker.line.push({"stop": {str(number): why for number, why in stop.items()}})
            self._watch(worker)

    def stop_all(self, signum: int) -> None:
        """Have every trial save its place and end as `stopped`."""
        for worker in self._workers.values():
            if worker.paths:
                self._signal(worker, signum)

    def kill(self, slot: int, why: str, at_once: bool = False) -> None:
        """End a worker's trials as failed because of `why`: stopped with SIGTERM, by force after some seconds.

        `at_once`: by force now; their runs are marked as stopped.
        """
        worker = self._workers.get(slot)
        if worker is None or (worker.why is not None and not at_once):
            return
        worker.why, worker.kill_at = why, time.monotonic() + (0.0 if at_once else GRACE_S)
        worker.code = 128 + signal.SIGTERM if at_once else 1
        if not at_once:
            self._signal(worker, signal.SIGTERM)

    def events(self, timeout: float) -> Iterator[Event]:
        """What happened, waiting at most `timeout` seconds for something to happen."""
        limits = [w.kill_at - time.monotonic() for w in self._workers.values() if w.kill_at is not None]
        for ready, mask in self._selector.select(max(0.0, min([timeout, *limits]))):
            worker = ready.data
            if worker is not None and mask & selectors.EVENT_WRITE:
                worker.line.flush()
                self._watch(worker)
        self._hear_zygote()
        self._end_overdue()
        found: list[Event] = []
        for worker in list(self._workers.values()):
            found += self._heard(worker)
        return iter(found)

    def close(self) -> None:
        """End all workers; trials in their hands are cut off."""
        for worker in self._workers.values():
            if worker.paths and worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
            worker.line.end.close()
        self._control.end.close()
        try:
            self._zygote.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        self._selector.close()
        for worker in self._workers.values():
            _remove_if_empty(worker.log)
        _remove_if_empty(self._folder / "zygote.log")
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder) if self.study is None else self._folder.rmdir()

    # Processes

    def _start_zygote(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        order = {"options": self.options.to_dict(), "threads": self.threads}
        with theirs, open(self._folder / "zygote.log", "ab") as log:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "trainctl.tuning.process", str(theirs.fileno()), json.dumps(order)],
                env={**os.environ, "TRAINCTL_PARENT": str(os.getpid()), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C reaches this process alone
            )
        self._control = Line(ours)
        self._selector.register(ours, selectors.EVENT_READ, None)

    def _fork(self) -> _Worker:
        if self._control.closed:
            self._restart_zygote()
        for worker in [w for w in self._workers.values() if not w.paths]:
            self._forget(worker)
        lanes = {worker.lane for worker in self._workers.values()}
        lane = next(number for number in range(self.jobs) if number not in lanes)
        self._slots += 1
        ours, theirs = socket.socketpair()
        worker = _Worker(self._slots, lane, Line(ours), self._folder / f"{self._slots}.log")
        start = {"do": "fork", "slot": worker.slot, "log": str(worker.log.absolute()), "environment": self._share(lane)}
        with theirs, contextlib.suppress(OSError):  # a zygote that is gone shows in `events`
            socket.send_fds(self._control.end, [json.dumps(start).encode() + b"\n"], [theirs.fileno()])
        self._workers[worker.slot] = worker
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _share(self, lane: int) -> dict[str, str]:
        """What a worker finds in its environment: its part of the GPUs and of the cores."""
        share = {"POLARS_MAX_THREADS": str(self.threads)}
        if len(self.gpus) > 1:
            each = max(1, len(self.gpus) // self.jobs)
            leased = [self.gpus[(lane * each + k) % len(self.gpus)] for k in range(each)]
            share["CUDA_VISIBLE_DEVICES"] = ",".join(leased)
        return share

    def _restart_zygote(self) -> None:
        self._selector.unregister(self._control.end)
        self._control.end.close()
        self._zygote.kill()
        self._zygote.wait()
        self._start_zygote()
        if self._prepared is not None:
            self._control.send({"do": "prepare", "config": self._prepared})

    def _zygote_error(self) -> TrainctlError:
        code = self._zygote.wait()
        if code < 0:
            kind = ResourceError if code == -signal.SIGKILL else TrainctlError
            return kind(f"the process that workers come from {_how(code)}")
        text = (self._folder / "zygote.log").read_text(encoding="utf-8", errors="replace").strip()
        return TrainctlError(f"workers cannot be started: {(text.splitlines() or ['no reason was given'])[-1]}")

    # Hearing

    def _watch(self, worker: _Worker) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.line.unsent else 0)
        with contextlib.suppress(KeyError, ValueError):  # closed meanwhile
            self._selector.modify(worker.line.end, events, worker)

    def _hear_zygote(self) -> None:
        for message in self._control.arrived():
            worker = self._workers.get(message.get("slot", 0))
            if message["event"] == "ended" and worker is not None:
                worker.ended = message.get("why") or _how(message["code"])
                worker.code = worker.code if worker.why else 5 if message["code"] == -signal.SIGKILL else 1
        if self._control.closed:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._control.end)  # or it would be ready for ever
            how = self._zygote_error()
            for worker in self._workers.values():
                if worker.ended is None:
                    worker.ended = f"lost: {how}"
                    worker.code = worker.code if worker.why else how.exit_code

    def _heard(self, worker: _Worker) -> list[Event]:
        found: list[Event] = []
        for message in worker.line.arrived():
            event = self._event(worker, message)
            found += [event] if event is not None else []
        if worker.ended is not None:
            found += self._died(worker) if worker.paths else []
            self._forget(worker)
        elif worker.line.closed:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(worker.line.end)  # the zygote will say how it ended
        return found

    def _event(self, worker: _Worker, message: Message) -> Event | None:
        if message["event"] == "begun":
            worker.pid, worker.began = message["pid"], True
            if worker.signum is not None:
                self._signal(worker, worker.signum)
            return None
        if message["event"] == "epochs":
            rows = {int(number): row for number, row in message["rows"].items()}
            return Epochs(worker.slot, rows, bool(message["wait"]))
        fields = {key: value for key, value in message.items() if key not in ("event", "notes")}
        done = Done(worker.slot, **fields, notes=tuple(message["notes"]))
        path = worker.paths.pop(done.number, None)
        if worker.why is not None and done.status == "stopped" and path is not None:
            mark_failed(path, TrainctlError(worker.why))
            done = Done(**{**done.__dict__, "status": "failed", "code": 1, "message": worker.why})
        if not worker.paths:
            worker.kill_at = worker.signum = worker.why = None
        return done

    def _died(self, worker: _Worker) -> list[Event]:
        why = worker.why or str(worker.ended)
        kind = ResourceError if worker.code == ResourceError.exit_code else TrainctlError
        error = Stopped(signal.SIGTERM, why) if worker.code > 128 else kind(why)
        for path in worker.paths.values():
            mark_failed(path, error)
        return [Died(worker.slot, tuple(worker.paths), why)]

    def _forget(self, worker: _Worker) -> None:
        self._workers.pop(worker.slot, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(worker.line.end)
        worker.line.end.close()
        _remove_if_empty(worker.log)

    # Signals

    def _signal(self, worker: _Worker, signum: int) -> None:
        worker.signum = signum
        if worker.began and worker.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signum)

    def _end_overdue(self) -> None:
        for worker in self._workers.values():
            if worker.kill_at is None or worker.kill_at > time.monotonic():
                continue
            worker.kill_at = None
            if worker.pid is None:  # not even begun: without its line it ends by itself
                worker.line.end.shutdown(socket.SHUT_RDWR)
                worker.ended = "did not begin"
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)


def mark_failed(path: Path, error: TrainctlError) -> None:
    """Say in the record of a run whose process is gone, or gave up, what ended it; checkpoints stay to go on from."""
    with contextlib.suppress(TrainctlError):
        run = Run.open(path)
        if run.status == "completed":
            return
        if isinstance(error, Stopped):
            run.stop(error.signum, str(error))
        else:
            run.fail(error, error.exit_code, f"{error}\n")


def visible_gpus() -> list[str]:
    """The GPUs that workers may share out, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part.strip() for part in given.split(",")][: machine.gpus()]
    return [str(number) for number in range(machine.gpus())]


def _facts(message: Message) -> Facts:
    if "error" not in message:
        return Facts(**message["facts"])
    problem = message["error"]
    kinds = {kind.exit_code: kind for kind in TrainctlError.__subclasses__() if kind is not Stopped}
    raise kinds.get(problem["code"], TrainctlError)(problem["message"])


def _how(code: int) -> str:
    """How a process ended, by its exit code; negative: by that signal."""
    if code == -signal.SIGSEGV:
        return "ended by a segmentation fault"
    if code == -signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    if code < 0:
        return f"killed by signal {-code}"
    return f"the worker ended with exit code {code}"


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if not path.stat().st_size:
            path.unlink()
