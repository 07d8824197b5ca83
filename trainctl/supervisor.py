"""Several processes for one run: start a worker per rank, forward signals once, collect how each ended.

The command line's process holds no rank. Workers run `trainctl.worker`, an entry point of its own, on a run
directory that exists already; so nothing re-reads the command line and there is one directory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainctl.errors import SIGNALS, Interrupted, Stopped, TrainctlError
from trainctl.run.run import Run

if TYPE_CHECKING:
    from trainctl.launch import Options

log = logging.getLogger("trainctl")

GRACE_S = 30.0  # for workers to stop after a signal
LAST_WORDS_S = 3.0  # for the other ranks after one has ended: most wait for it in vain


@dataclass
class Worker:
    """A rank's process, and the pipe on which it reports a failure (a full disk must not silence it)."""

    process: subprocess.Popen[bytes]
    told: int

    def report(self) -> dict[str, Any] | None:
        """What it wrote; only after it has ended."""
        os.set_blocking(self.told, False)  # a process that the worker left behind may still hold the other end
        with open(self.told, "rb", buffering=0) as pipe, contextlib.suppress(ValueError):
            report: dict[str, Any] = json.loads(pipe.read() or b"")
            return report
        return None


def run(run: Run, options: Options, source: Run | None, resume: bool, count: int) -> None:
    """Carry out the run's verb over `count` workers; raises what the first failing rank reported."""
    order = {
        # as the user named them: workers share the current directory, and their sentences name files too
        "run": str(run.path),
        "options": options.to_dict(),
        "source": str(source.path) if source else None,
        "resume": resume,
        "level": min((h.level for h in log.handlers if not isinstance(h, logging.FileHandler)), default=logging.INFO),
    }
    try:
        _attempt(run, order, count)
    except _PortTaken:
        log.debug("the port for the workers was taken meanwhile; trying another")
        _attempt(run, order, count)


def _attempt(run: Run, order: dict[str, Any], count: int) -> None:
    workers: list[Worker] = []
    stopped: Stopped | None = None
    try:
        _start(workers, run, order, count)
        stopped = _watch(workers)
    except Interrupted as interrupted:
        stopped = Stopped(interrupted.signum)
        with contextlib.suppress(Interrupted):  # a second signal: at once
            _signal(workers, interrupted.signum)
            _watch(workers, GRACE_S)
    finally:
        _kill(workers)
        reports = [report for worker in workers if (report := worker.report()) is not None]
    _raise_first(workers, reports, stopped)
    for rank in range(count):
        _remove_if_empty(run.path / log_name(rank))


def _start(workers: list[Worker], run: Run, order: dict[str, Any], count: int) -> None:
    port = _free_port()
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    for rank in range(count):
        told, tell = os.pipe()
        with open(run.path / log_name(rank), "ab") as output, open(tell, "wb"), open(_stderr(), "wb") as stderr:
            fds = {"tell": tell, "stderr": stderr.fileno()}
            process = subprocess.Popen(
                [sys.executable, "-m", "trainctl.worker", json.dumps({**order, **fds})],
                env={**os.environ, **rendezvous, "LOCAL_RANK": str(rank), "TRAINCTL_PARENT": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(fds.values()),
                start_new_session=True,  # Ctrl-C reaches this process alone, which forwards it once
            )
        workers.append(Worker(process, told))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _stderr() -> int:
    """The user's stderr once more, for rank 0's own lines; what libraries write stays in the ranks' logs."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # somebody's buffer in its place
        return os.dup(sys.stderr.fileno())
    return os.dup(2)


def log_name(rank: int) -> str:
    """Where a rank's output goes that is not meant for the user; removed when it stayed empty and all went well."""
    return f"rank{rank}.log"


def _watch(workers: list[Worker], patience: float | None = None) -> Stopped | None:
    """Wait until all have ended; when one has failed or `patience` is over, only until the others had time to notice.

    Returns what stopped a rank that was signalled from outside; the others are told then. Raises TrainctlError when
    a rank was killed: the others only report that they lost it.
    """
    deadline = None if patience is None else time.monotonic() + patience
    seen: dict[int, int] = {}
    stopped: Stopped | None = None
    while len(seen) < len(workers) and (deadline is None or time.monotonic() < deadline):
        for rank, worker in enumerate(workers):
            code = worker.process.poll()
            if code is None or rank in seen:
                continue
            seen[rank] = code
            signum = _stopping(code)
            if code < 0 and not signum and patience is None:
                raise TrainctlError(f"rank {rank} ended with signal {-code}; see `{log_name(rank)}` of the run")
            if signum and stopped is None and patience is None:
                stopped = Stopped(signum)
                _signal(workers, signum)
            if code:
                deadline = min(deadline or float("inf"), time.monotonic() + LAST_WORDS_S)
        time.sleep(0.02)
    return stopped


def _stopping(code: int) -> int:
    """The signal that asked a worker to stop, by its exit code; 0 for any other end."""
    signum = -code if code < 0 else code - 128
    return signum if signum in SIGNALS else 0


def _signal(workers: list[Worker], signum: int) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(signum)


def _kill(workers: list[Worker]) -> None:
    """End what is left."""
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.process.kill()
    for worker in workers:
        worker.process.wait()


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if not path.stat().st_size:
            path.unlink()


class _PortTaken(Exception):
    """Another process took the port between our choice and rank 0's use of it."""


def _raise_first(workers: list[Worker], reports: list[dict[str, Any]], stopped: Stopped | None) -> None:
    codes = [worker.process.returncode for worker in workers]
    if codes and not any(codes):
        return  # the outcome was settled before any signal came
    if any("EADDRINUSE" in report["message"] for report in reports):
        raise _PortTaken
    # a rank that lost its peer reports an internal error: the cause is the first of the others
    reports.sort(key=lambda report: (report["code"] == 1, report["at"]))
    if reports and (stopped is None or reports[0]["code"] != 1):
        raise _as_error(reports[0])
    if stopped is not None:
        raise stopped
    rank, code = next((rank, code) for rank, code in enumerate(codes) if code)
    raise TrainctlError(f"rank {rank} ended with exit code {code}; see `{log_name(rank)}` of the run")


def _as_error(report: dict[str, Any]) -> TrainctlError:
    error: TrainctlError
    if _stopping(report["code"]):
        error = Stopped(report["code"] - 128, report["message"])
    else:
        kinds = {kind.exit_code: kind for kind in TrainctlError.__subclasses__() if kind is not Stopped}
        error = kinds.get(report["code"], TrainctlError)(report["message"])
    error.add_note(f"\nIn rank {report['rank']}:\n{report['traceback']}")  # error.txt is to show where
    return error
