"""`python -m trainctl.tuning.process FD ORDER`: the process that workers are forked from, and the workers.

It imports torch, Lightning and the verb once and never computes anything: threads (OpenMP's, polars', CUDA's) do not
survive a fork. A child of its own reads and fits the data, which the workers map into memory.
"""

from __future__ import annotations

import array
import contextlib
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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainctl import launch
from trainctl.errors import SIGNALS, Interrupted, TrainctlError
from trainctl.tuning.talk import Line, Message, Talk
from trainctl.worker import die_with_parent

if TYPE_CHECKING:
    from trainctl.verbs.kept_data import KeptData

WARM = (
    "trainctl.verbs.train",
    "trainctl.verbs.train_stacked",
    "trainctl.verbs.kept_data",
    "trainctl.repeat",
    "trainctl.reporting.report",
    "trainctl.tuning.trial",
    "trainctl.data.tabular",
    "trainctl.data.synthetic",
    "trainctl.tasks.classification",
    "trainctl.tasks.regression",
    "trainctl.models.mlp",
)
GRACE_S = 2.0
_MOST_DESCRIPTORS = 64  # that come at once


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
            end = socket.socket(fileno=self.control.descriptors.pop(0))
            try:
                self.children[self.fork(lambda: work(Line(end), self, order))] = order["slot"]
            except OSError as error:
                why = f"no worker could be started: {(error.strerror or str(error)).lower()}"
                self.control.send({"event": "ended", "slot": order["slot"], "code": 1, "why": why})
            end.close()

    def fork(self, task: Callable[[], None], **environment: str) -> int:
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
        ours, theirs = socket.socketpair()
        pid = self.fork(lambda: prepare(FdLine(theirs), self, config))
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


class FdLine(Line):
    """A line that descriptors come over, too, in the order of the messages that speak of them."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self.descriptors: list[int] = []

    def _read(self, flags: int) -> bytes:
        try:
            # socket.recv_fds of Python 3.11 forgets the flags
            room = socket.CMSG_LEN(_MOST_DESCRIPTORS * array.array("i").itemsize)
            received, extra, _, _ = self.end.recvmsg(65_536, room, flags | socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise
        except OSError:
            return b""
        for _, kind, content in extra:
            if kind == socket.SCM_RIGHTS:
                self.descriptors += array.array("i", content[: len(content) // 4 * 4])
        return received


def prepare(line: FdLine, zygote: Zygote, config: dict[str, Any]) -> None:
    """Read and fit the data of a config (of every fold), hand it over packed, and measure a trial of it."""
    from trainctl import repeat
    from trainctl.data import shared
    from trainctl.data.base import Data
    from trainctl.run import failures, record
    from trainctl.tuning import facts
    from trainctl.verbs.kept_data import KeptData, key

    import torch

    torch.set_num_threads(zygote.threads)
    launch.user_code_importable(zygote.options)
    launch.quieten()
    try:
        whole = record.resolved(config)
        kind = repeat.wanted(whole)
        parts = [record.changed(whole, one) for one in repeat.children(kind, whole)] if kind else [whole]
        kept, found = KeptData(), {}
        for part in parts:
            name = key(part)
            if name in zygote.packed or any(name == key(before) for before in parts[: parts.index(part)]):
                continue
            data, _ = kept.lend(part)
            descriptor = shared.pack(data) if isinstance(data, Data) else None
            if descriptor is not None:
                message = json.dumps({"packed": name}).encode() + b"\n"
                socket.send_fds(line.end, [message], [descriptor])
                os.close(descriptor)
        found = facts.measure(parts[0], kept.lend(parts[0])[0])
        line.send({"event": "prepared", "facts": found})
    except Exception as error:
        if not isinstance(error, TrainctlError):
            logging.getLogger("trainctl").exception("the data could not be prepared")
            if failures.is_out_of_memory(error):
                error = TrainctlError("out of memory while the first trial was measured")
                error.exit_code = 5
        code, text = getattr(error, "exit_code", 1), str(error)
        message_text = text if isinstance(error, TrainctlError) else f"{type(error).__name__}: {text}"
        line.send({"event": "prepared", "error": {"code": code, "message": message_text}})


class Signalled:
    """A worker's ears between trials: a signal that comes while it gets ready is noted, not obeyed."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.listen()

    def listen(self) -> None:
        """Note signals from now on."""
        for signum in SIGNALS:
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: object) -> None:
        self.signum = signum

    def raise_noted(self) -> None:
        """Interrupted for the one that came."""
        if self.signum is not None:
            raise Interrupted(self.signum)


def work(line: Line, zygote: Zygote, start: Message) -> None:
    """A worker's life: order after order until the study's process is gone."""
    import torch

    from trainctl.tuning import trial
    from trainctl.verbs.kept_data import KeptData

    settle_in(start)
    torch.set_num_threads(zygote.threads)
    signalled, kept = Signalled(), KeptData(zygote.packed)
    while (order := line.receive()) is not None:
        signalled.signum = None
        line.send({"event": "begun", "pid": os.getpid()})
        talk = Talk(line, bool(order.get("wait")))
        if order["do"] == "group":
            group(order, talk, zygote.options, kept, signalled)
        else:
            trial.carry_out(order, talk, zygote.options, kept, signalled.raise_noted)
        signalled.listen()
        torch.set_num_threads(zygote.threads)
        torch.use_deterministic_algorithms(False)


def group(order: Message, talk: Talk, options: launch.Options, kept: KeptData, signalled: Signalled) -> None:
    """A group of trials as one stacked model; what it leaves untold failed for the reason that ended it."""
    from trainctl.reporting import report
    from trainctl.tuning import trial
    from trainctl.verbs import train_stacked

    around = train_stacked.Around(
        lambda one: trial.carry_out(dict(one), talk, options, kept, signalled.raise_noted),
        partial(trial.measured, order),
        lambda run, metrics, intervals: report.write(run, metrics, intervals, "completed", sync=False),
    )
    try:
        with launch.signals_raise():
            signalled.raise_noted()
            launch.quieten()
            train_stacked.run_group(order, talk, kept, around)
            error: BaseException = TrainctlError("the stacked group ended without a word on this trial")
    except BaseException as caught:
        error = caught
    for one in order["trials"]:
        if one["number"] not in talk.told:
            talk.done(one["number"], **trial.told_badly(Path(one["path"]), error))


def settle_in(start: Message) -> None:
    """Output to the worker's own log, its GPU, its share of the cores; the first to go when memory runs out."""
    with open(start["log"], "ab") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    os.environ.update(start["environment"])
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.StreamHandler(sys.stderr))
    log = logging.getLogger("trainctl")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(logging.NullHandler())


def _lost(code: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"the process that reads the data {how}" + (" (out of memory?)" if code == -9 else "")


def main(descriptor: str, order_text: str) -> None:
    """Import what trials need, then serve."""
    die_with_parent()
    order = json.loads(order_text)
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)  # the study's process decides
    for name in WARM:
        importlib.import_module(name)
    options = launch.Options(**order["options"])
    gc.collect()
    gc.freeze()  # what is imported is not garbage: no worker need look at it again, nor copy its pages
    Zygote(FdLine(socket.socket(fileno=int(descriptor))), options, order["threads"]).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
