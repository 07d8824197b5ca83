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
from pathlib import Path
from typing import Any

from trainctl import launch
from trainctl.check import machine
from trainctl.errors import ResourceError, Stopped, TrainctlError
from trainctl.tuning.facts import Facts
from trainctl.tuning.talk import Line, Message
from trainctl.tuning.workers import Died, Done, Epochs, Event, Worker, how_it_ended

__all__ = ["Died", "Done", "Epochs", "Event", "Facts", "Pool"]

CLOSE_S = 5.0
FOLDER = "workers"


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
        self._workers: dict[int, Worker] = {}
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
        worker.take({int(one["number"]): Path(one["path"]) for one in trials})
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
                worker.signal(signum)

    def kill(self, slot: int, why: str, at_once: bool = False) -> None:
        """End a worker's trials as failed because of `why`: stopped with SIGTERM, by force after some seconds.

        `at_once`: by force now; their runs are marked as stopped.
        """
        worker = self._workers.get(slot)
        if worker is not None:
            worker.end(why, at_once)

    def events(self, timeout: float) -> Iterator[Event]:
        """What happened, waiting at most `timeout` seconds for something to happen."""
        limits = [w.kill_at - time.monotonic() for w in self._workers.values() if w.kill_at is not None]
        for ready, mask in self._selector.select(max(0.0, min([timeout, *limits]))):
            worker = ready.data
            if worker is not None and mask & selectors.EVENT_WRITE:
                worker.line.flush()
                self._watch(worker)
        self._hear_zygote()
        found: list[Event] = []
        for worker in list(self._workers.values()):
            worker.end_when_overdue()
            found += worker.heard()
            if worker.ended is not None:
                self._forget(worker)
            elif worker.line.closed:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(worker.line.end)  # the zygote will say how it ended
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

    def _fork(self) -> Worker:
        if self._control.closed:
            self._restart_zygote()
        for worker in [w for w in self._workers.values() if not w.paths]:
            self._forget(worker)
        lanes = {worker.lane for worker in self._workers.values()}
        lane = next(number for number in range(self.jobs) if number not in lanes)
        self._slots += 1
        ours, theirs = socket.socketpair()
        worker = Worker(self._slots, lane, Line(ours), self._folder / f"{self._slots}.log")
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
        with contextlib.suppress(KeyError, ValueError):
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
            return kind(f"the process that workers come from was {how_it_ended(code)}")
        text = (self._folder / "zygote.log").read_text(encoding="utf-8", errors="replace").strip()
        return TrainctlError(f"workers cannot be started: {(text.splitlines() or ['no reason was given'])[-1]}")

    # Hearing

    def _watch(self, worker: Worker) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.line.unsent else 0)
        with contextlib.suppress(KeyError, ValueError):  # closed meanwhile
            self._selector.modify(worker.line.end, events, worker)

    def _hear_zygote(self) -> None:
        for message in self._control.arrived():
            worker = self._workers.get(message.get("slot", 0))
            if message["event"] == "ended" and worker is not None:
                code = ResourceError.exit_code if message["code"] == -signal.SIGKILL else 1
                worker.lost(message.get("why") or how_it_ended(message["code"]), code)
        if self._control.closed:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._control.end)  # or it would be ready for ever
            how = self._zygote_error()
            for worker in self._workers.values():
                worker.lost(str(how), how.exit_code)

    def _forget(self, worker: Worker) -> None:
        self._workers.pop(worker.slot, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(worker.line.end)
        worker.line.end.close()
        _remove_if_empty(worker.log)


def visible_gpus() -> list[str]:
    """The GPUs that workers may share out, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part.strip() for part in given.split(",")][: machine.gpus()]
    return [str(number) for number in range(machine.gpus())]


def _facts(message: Message) -> Facts:
    if "error" not in message:
        found = message["facts"]
        return Facts(**{**found, "produced": tuple(found.get("produced", ()))})
    problem = message["error"]
    kinds = {kind.exit_code: kind for kind in TrainctlError.__subclasses__() if kind is not Stopped}
    raise kinds.get(problem["code"], TrainctlError)(problem["message"])


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if not path.stat().st_size:
            path.unlink()
