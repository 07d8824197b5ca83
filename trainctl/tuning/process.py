"""`python -m trainctl.tuning.process FD ORDER`: the process that workers are forked from, and the workers.

It imports torch, Lightning and the verb once and never computes anything: threads (OpenMP's, polars', CUDA's) do not
survive a fork. A child of its own reads and fits the data, which the workers map into memory.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

from trainctl import launch
from trainctl.errors import SIGNALS
from trainctl.tuning.talk import FdLine, Line, Message
from trainctl.worker import die_with_parent

WARM = (
    "trainctl.tuning.warm",
    "trainctl.tuning.preparing",
    "trainctl.verbs.train",
    "trainctl.data.tabular",
    "trainctl.data.synthetic",
    "trainctl.tasks.classification",
    "trainctl.tasks.regression",
    "trainctl.models.mlp",
)
GRACE_S = 2.0


class Zygote:
    """Obeys the study's process: forks workers, has data prepared, says which child ended how."""

    def __init__(self, control: FdLine, options: launch.Options, threads: int) -> None:
        self.control, self.options, self.threads = control, options, threads
        self.children: dict[int, int] = {}  # pid -> slot
        self.packed: dict[str, int] = {}  # key of the data -> descriptor

    def run(self) -> None:
        """Until the study's process is gone."""
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        woken.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.control, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while not self.control.closed:
                self.reap()
                selector.select()
                with contextlib.suppress(BlockingIOError):
                    wake.recv(4096)
                for order in self.control.arrived():
                    self.obey(order)
        self.end()

    def obey(self, order: Message) -> None:
        """Fork a worker for the next descriptor that came, or prepare data."""
        if order["do"] == "prepare":
            self.control.send(self.prepare(order["config"]))
        else:
            with socket.socket(fileno=self.control.descriptors.pop(0)) as end:
                self.begin(end, order)

    def begin(self, end: socket.socket, order: Message) -> None:
        """A worker that talks on `end`."""
        from trainctl.tuning import warm

        try:
            pid = self.fork(lambda: warm.work(Line(end), order, self.options, self.threads, self.packed))
        except OSError as error:
            why = f"no worker could be started: {(error.strerror or str(error)).lower()}"
            self.control.send({"event": "ended", "slot": order["slot"], "code": 1, "why": why})
            return
        self.children[pid] = order["slot"]

    def fork(self, task: Callable[[], None]) -> int:
        """A child that does `task` and ends; returns its pid."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.environ["TRAINCTL_PARENT"] = str(parent)
            die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.control.end.close()
            task()
            code = 0
        except BaseException:
            logging.getLogger("trainctl").exception("a worker ended")
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def prepare(self, config: dict[str, Any]) -> Message:
        """What the child found that reads the data of `config`, whose packed data is kept for all workers."""
        from trainctl.tuning import preparing

        ours, theirs = socket.socketpair()
        pid = self.fork(lambda: preparing.prepare(theirs, config, self.options, self.packed))
        theirs.close()
        line = FdLine(ours)
        answer = line.receive()
        while answer is not None and "packed" in answer:
            self.packed[answer["packed"]] = line.descriptors.pop(0)
            answer = line.receive()
        _, status = os.waitpid(pid, 0)
        ours.close()
        if answer is not None:
            return answer
        code = os.waitstatus_to_exitcode(status)
        return {"event": "prepared", "error": {"code": 5 if code == -9 else 1, "message": _lost(code)}}

    def reap(self) -> None:
        """Tell how children ended."""
        while self.children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            slot = self.children.pop(pid, None)
            if slot is not None:
                with contextlib.suppress(OSError):
                    code = os.waitstatus_to_exitcode(status)
                    self.control.send({"event": "ended", "slot": slot, "code": code})

    def end(self) -> None:
        """End the workers that are left: an idle one ends by itself, now that its study is gone."""
        deadline = time.monotonic() + GRACE_S
        while self.children and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.005)
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _lost(code: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"the process that reads the data {how}" + (" (out of memory?)" if code == -9 else "")


def main(descriptor: str, order_text: str) -> None:
    """Import what trials need, then serve."""
    die_with_parent()
    order = json.loads(order_text)
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)  # the study's process decides
    # Lightning looks through all installed packages for every Trainer
    metadata.entry_points = functools.cache(metadata.entry_points)  # type: ignore[assignment]
    for name in WARM:
        importlib.import_module(name)
    options = launch.Options(**order["options"])
    gc.collect()
    gc.freeze()  # what is imported is not garbage: no worker need look at it again, nor copy its pages
    Zygote(FdLine(socket.socket(fileno=int(descriptor))), options, order["threads"]).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
