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
from trainctl.errors import TrainctlError
from trainctl.run import files
from trainctl.run.run import Run

log = logging.getLogger("trainctl")


def main(order_text: str) -> int:
    """Do this rank's part; a failure is left in `<run>/rank<k>.error` for the supervisor."""
    started = time.perf_counter()
    die_with_parent()
    rank = int(os.environ["LOCAL_RANK"])
    order = json.loads(order_text)
    run = Run.open(Path(order["run"]))
    source = Run.open(Path(order["source"])) if order["source"] else None
    log_to(run, rank)
    try:
        with launch.signals_raise():
            launch.work(run, launch.Options(**order["options"]), source, order["resume"], started, rank)
    except BaseException as error:
        at = time.time()
        told = launch.explained(error, run)
        code = getattr(told, "exit_code", 1)
        message = str(told) if isinstance(told, TrainctlError) else f"rank {rank}: {type(told).__name__}: {told}"
        report = {"code": code, "message": message, "at": at, "traceback": traceback.format_exc()}
        files.write_json(run.path / f"rank{rank}.error", report)
        return code
    finally:
        leave_group()
    return 0


def die_with_parent() -> None:
    """A worker whose supervisor was killed must not go on alone (Linux; elsewhere the group's timeout ends it)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.environ.get("TRAINCTL_PARENT") not in (None, str(os.getppid())):
        os._exit(1)


def log_to(run: Run, rank: int) -> None:
    """Rank 0 speaks for the run; the others write to their own logs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    if rank == 0:
        log.addHandler(logging.FileHandler(run.path / f"{run.verb}.log", encoding="utf-8"))


def leave_group() -> None:
    """Without this, gloo's threads abort some processes at exit after all went well."""
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(Exception):
            if sys.exc_info()[0] is None:
                dist.barrier()
            dist.destroy_process_group()


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
