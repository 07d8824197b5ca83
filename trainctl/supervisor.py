"""Several processes for one run: start a worker per rank, forward signals once, collect how each ended.

The command line's process holds no rank. Workers run `trainctl.worker`, an entry point of its own, on a run
directory that exists already; so nothing re-reads the command line and there is one directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from trainctl.errors import Interrupted, Stopped, TrainctlError
from trainctl.run.run import Run

if TYPE_CHECKING:
    from trainctl.launch import Options

GRACE_S = 30.0  # for workers to stop after a signal
LAST_WORDS_S = 5.0  # for the other ranks after one has failed


def run(run: Run, options: Options, source: Run | None, resume: bool, count: int) -> None:
    """Carry out the run's verb over `count` workers; raises what the first failing rank reported."""
    workers = _start(run, options, source, resume, count)
    try:
        _wait(workers)
    except Interrupted as interrupted:
        stopped = Stopped(interrupted.signum)
        _forward(workers, stopped.signum)
        _raise_first(run, workers, otherwise=stopped)
    finally:
        _end(workers, 0.0)
    _raise_first(run, workers, otherwise=None)


def _start(run: Run, options: Options, source: Run | None, resume: bool, count: int) -> list[subprocess.Popen[bytes]]:
    order = {
        "run": str(run.path.resolve()),
        "options": options.to_dict(),
        "source": str(source.path.resolve()) if source else None,
        "resume": resume,
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    workers = []
    for rank in range(count):
        (run.path / f"rank{rank}.error").unlink(missing_ok=True)
        with open(run.path / f"rank{rank}.log", "ab") if rank else contextlib.nullcontext() as log:
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "trainctl.worker", json.dumps(order)],
                    env={**os.environ, **rendezvous, "LOCAL_RANK": str(rank), "TRAINCTL_PARENT": str(os.getpid())},
                    stdin=subprocess.DEVNULL,
                    stdout=log or sys.stderr.fileno(),
                    stderr=log or None,
                    start_new_session=True,  # Ctrl-C reaches this process alone, which forwards it once
                )
            )
    return workers


def _wait(workers: list[subprocess.Popen[bytes]]) -> None:
    """Until all have ended, or one has failed and the others had time to notice.

    Raises TrainctlError when a rank was killed: the others only report that they lost it.
    """
    while True:
        codes = [w.poll() for w in workers]
        for rank, code in enumerate(codes):
            if code is not None and code < 0:
                _end(workers, 0.0)
                raise TrainctlError(f"rank {rank} ended with signal {-code}; see `{log_name(rank)}` of the run")
        if None not in codes:
            return
        if any(codes):
            _end(workers, LAST_WORDS_S)
            return
        time.sleep(0.05)


def log_name(rank: int) -> str:
    """Where a rank's own output goes; rank 0 speaks for the run."""
    return f"rank{rank}.log" if rank else "train.log"


def _forward(workers: list[subprocess.Popen[bytes]], signum: int) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(signum)
    with contextlib.suppress(Interrupted):  # a second signal: at once
        _end(workers, GRACE_S)


def _end(workers: list[subprocess.Popen[bytes]], patience: float) -> None:
    """Wait up to `patience` seconds for workers to end by themselves, then kill what is left."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(w.poll() is None for w in workers):
        time.sleep(0.05)
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
    for worker in workers:
        worker.wait()


def _raise_first(run: Run, workers: list[subprocess.Popen[bytes]], otherwise: Stopped | None) -> None:
    told = [report for rank in range(len(workers)) if (report := _reported(run, rank)) is not None]
    # a rank that lost its peer says so too; the cause is the one that ended first
    told.sort(key=lambda report: report["at"])
    if told:
        raise _as_error(told[0])
    for rank, worker in enumerate(workers):
        if worker.returncode and otherwise is None:
            how = f"signal {-worker.returncode}" if worker.returncode < 0 else f"exit code {worker.returncode}"
            raise TrainctlError(f"rank {rank} ended with {how}; see `{run.path / log_name(rank)}`")
    if otherwise is not None:
        raise otherwise


def _reported(run: Run, rank: int) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        report = json.loads((run.path / f"rank{rank}.error").read_text(encoding="utf-8"))
        return report if isinstance(report, dict) else None
    return None


def _as_error(report: dict[str, Any]) -> TrainctlError:
    if report["code"] in (128 + s for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
        return Stopped(report["code"] - 128, report["message"])
    kinds = {kind.exit_code: kind for kind in TrainctlError.__subclasses__() if kind is not Stopped}
    return kinds.get(report["code"], TrainctlError)(report["message"])
