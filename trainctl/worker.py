"""`python -m trainctl.worker ORDER`: one rank of a run, started by trainctl.supervisor."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from trainctl import launch
from trainctl.errors import SIGNALS, Interrupted, TrainctlError
from trainctl.run import failures
from trainctl.run.run import Run

log = logging.getLogger("trainctl")


def main(order_text: str) -> int:
    """Do this rank's part and report a failure to the supervisor; returns the exit code."""
    started = time.perf_counter()
    die_with_parent()
    rank, order = int(os.environ["LOCAL_RANK"]), json.loads(order_text)
    run = Run.open(Path(order["run"]))
    source = Run.open(Path(order["source"])) if order["source"] else None
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # or Lightning would replace the thread count chosen for the run
    try:
        speak(run, rank, order["stderr"], order["level"])
        launch.work(run, launch.Options(**order["options"]), source, order["resume"], started, rank)
        heed(signal.SIG_IGN)  # this rank's part is settled
        code = 0
    except BaseException as error:
        heed(signal.SIG_IGN)
        code = report(run, rank, error, order["tell"])
    leave_group(wait=code == 0)
    return code


def heed(handler: signal.Handlers | signal._HANDLER) -> None:
    """Set what the signals that stop a run do."""
    for signum in SIGNALS:
        signal.signal(signum, handler)


def interrupted_once(signum: int, frame: object) -> None:
    """A first signal ends this rank wherever it is; patience with that, and a second signal, are the supervisor's."""
    heed(signal.SIG_IGN)
    raise Interrupted(signum)


def report(run: Run, rank: int, error: BaseException, tell: int) -> int:
    """Say to the supervisor what happened; returns the exit code."""
    at = time.time()
    told = failures.explained(error, run)
    code = getattr(told, "exit_code", 1)
    first = (str(told).splitlines() or [""])[0]
    internal = f"internal error in rank {rank}: {type(told).__name__}: {first} (see error.txt of the run)"
    message = str(told) if isinstance(told, TrainctlError) else internal
    content = {"rank": rank, "code": code, "message": message, "at": at, "traceback": traceback.format_exc()[-20_000:]}
    with contextlib.suppress(OSError), open(tell, "w", encoding="ascii") as pipe:
        json.dump(content, pipe)  # a pipe holds 64 kB before its reader reads
    return int(code)


def die_with_parent() -> None:
    """A worker whose supervisor was killed must not go on alone (Linux; elsewhere the group's timeout ends it)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.environ.get("TRAINCTL_PARENT") not in (None, str(os.getppid())):
        os._exit(1)


def speak(run: Run, rank: int, stderr: int, level: int) -> None:
    """Rank 0 speaks for the run, on the user's stderr and in its log; all else goes to the ranks' own logs."""
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.StreamHandler(sys.stderr))
    if rank == 0:
        sys.stderr = open(stderr, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(Line())
    shown.setLevel(level if rank == 0 else logging.WARNING)
    log.addHandler(shown)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    if rank == 0:
        kept = logging.FileHandler(run.path / f"{run.verb}.log", encoding="utf-8")
        kept.setFormatter(logging.Formatter(failures.LOG_LINE))
        log.addHandler(kept)


class Line(logging.Formatter):
    """`warning: ...` for warnings, the bare text otherwise, as one process shows its lines."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return ("warning: " if record.levelno >= logging.WARNING else "") + record.getMessage()


def leave_group(wait: bool) -> None:
    """Without this, gloo's threads abort some processes at exit after all went well; `wait` for the other ranks."""
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(Exception):
            if wait:
                dist.barrier()
            dist.destroy_process_group()


if __name__ == "__main__":
    heed(interrupted_once)
    try:
        code = main(sys.argv[1])
    except Interrupted as interrupted:
        code = 128 + interrupted.signum
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
