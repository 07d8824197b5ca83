"""How a run ends when it does not complete: in a user's words, in its record, or without a trace when refused."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import shutil
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

from trainctl.errors import (
    DataError,
    Interrupted,
    ResourceError,
    RunError,
    Stopped,
    TrainctlError,
    UsageError,
)
from trainctl.run import checkpoints, files
from trainctl.run.run import Run

log = logging.getLogger("trainctl")

LOG_LINE = "%(asctime)s %(levelname)s %(message)s"
REFUSED = (UsageError.exit_code, DataError.exit_code, RunError.exit_code)
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


class LogFile(logging.FileHandler):
    """The run's log; a disk that is full or gone is told by what matters more, not by a traceback from logging."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """What is still to be written may not fit either."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def recorded(run: Run) -> Iterator[None]:
    """Whatever ends the verb is written into the run's record and log; users' errors become one sentence."""
    handler = LogFile(run.path / f"{run.verb}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_LINE))
    log.addHandler(handler)
    try:
        yield
    except BaseException as error:
        # torch's handler raises once more for every further worker that ends, also in the middle of what follows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        told = explained(error, run)
        told_in_log = {"levelno": logging.DEBUG, "levelname": "DEBUG", "msg": traceback.format_exc()}
        handler.handle(logging.makeLogRecord(told_in_log))  # the screen shows it for --traceback only
        if discardable(run, told):
            shutil.rmtree(run.path, ignore_errors=True)
        elif isinstance(told, Stopped):
            run.stop(told.signum, str(told))
        else:
            run.fail(told, getattr(told, "exit_code", 1), traceback.format_exc())
        if told is error:
            raise
        raise told from error
    finally:
        log.removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def kept_when_refused(run: Run) -> Iterator[None]:
    """A resume that is refused (other data, a damaged file) leaves record and config as they were."""
    before = {name: (run.path / name).read_bytes() for name in ("run.json", "config.yaml")}
    told = (run.path / "error.txt").exists()
    try:
        yield
    except TrainctlError as error:
        if error.exit_code in REFUSED and not files.is_gone(run.path):
            for name, content in before.items():
                files.write_atomic(run.path / name, content)
            if not told:
                (run.path / "error.txt").unlink(missing_ok=True)
        raise


def discardable(run: Run, error: BaseException) -> bool:
    """What is refused before training leaves nothing; a child keeps its record for its parent, a search its points."""
    begun = any(path.suffix == ".ckpt" or path.name == "metrics.jsonl" for path in run.path.rglob("*"))
    begun = begun or (run.verb == "compress" and (run.path / "trials").is_dir())
    return getattr(error, "exit_code", 1) in REFUSED and not is_child(run) and not begun


def is_child(run: Run) -> bool:
    """Whether it is a fold, a seed or a job of a sweep."""
    return run.path.name.isdecimal()


def explained(error: BaseException, run: Run) -> BaseException:
    """The TrainctlError that says what happened, where there is one."""
    if isinstance(error, Interrupted):
        error = Stopped(error.signum)
    if files.is_gone(run.path) and not isinstance(error, Stopped):
        return files.vanished(run.path)
    if isinstance(error, Stopped):
        hint = f"; resume with `trainctl {run.verb} --resume {shlex.quote(files.shown(run.path))}`"
        known = is_child(run) or not is_resumable(run) or hint in str(error)
        return error if known else Stopped(error.signum, f"{error}{hint}")
    return error if isinstance(error, TrainctlError) else explain(error, run) or error


def is_resumable(run: Run) -> bool:
    """Whether there is something to go on from: a checkpoint, or children."""
    children = ("trials",) if run.verb == "compress" else ("folds", "seeds")
    return bool(checkpoints.names(run.path)) or any((run.path / kind).is_dir() for kind in children)


def explain(error: BaseException, run: Run) -> TrainctlError | None:
    """The sentence for an error that no part of trainctl worded; None for one that is ours to mend."""
    if is_out_of_memory(error):
        return out_of_memory(run)
    if re.search(r"DataLoader worker .*(killed|exited unexpectedly)", str(error)):
        return ResourceError("a process that loads data was killed; if memory ran out, use fewer of them (num_workers)")
    if type(error).__name__ == "MisconfigurationException":  # of Lightning, which is not imported here
        return UsageError(str(error).split(". ")[0].strip())
    system = os_error(error)
    if system is not None and system.errno in (1, 12, 13, 27, 28, 30, 122):
        name = system.filename if isinstance(system.filename, str) else None
        if name is None or system.errno not in (1, 13) or run.path.resolve() in Path(name).resolve().parents:
            return files.explain(system, Path(name) if name else run.path)
        return ResourceError(f"cannot open `{files.shown(name)}`: {(system.strerror or str(system)).lower()}")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or the system could not give memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        not isinstance(error, ImportError) and any(words in text for words in _NO_MEMORY)
    )


def out_of_memory(run: Run, epoch: int | None = None) -> ResourceError:
    """The sentence that names what to make smaller; `epoch` counts from 1."""
    if run.verb == "predict":
        return ResourceError("out of memory; try a smaller `predict.rows=`")
    key = "batch_size" if run.verb == "train" else "eval_batch_size"
    size, where = run.config.get("data", {}).get(key), "" if epoch is None else f" in epoch {epoch}"
    batch = f" (batch {size})" if size else ""
    less = "" if epoch is not None else ", less data or a smaller net"
    return ResourceError(f"out of memory{where}{batch}; try a smaller `data.{key}=`{less}")


def os_error(error: BaseException) -> OSError | None:
    """The system's error, also when polars or safetensors (both in Rust) give its number in their text only."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None
