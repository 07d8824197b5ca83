"""One trial in a warm worker: an ordinary `train` run, new or gone on with, whose epochs are told as they end."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from trainctl import launch, resuming
from trainctl.errors import Interrupted, RunError, Stopped, TrainctlError
from trainctl.run import failures, files, machine
from trainctl.run.run import Run
from trainctl.tuning import facts
from trainctl.tuning.talk import Message, Talk
from trainctl.verbs.job import Hooks
from trainctl.verbs.kept_data import KeptData


def carry_out(order: Message, talk: Talk, options: launch.Options, kept: KeptData, arrived: Callable[[], None]) -> int:
    """Do the order's trial, tell how it ended and return its exit code; nothing that goes wrong comes out of here.

    `arrived()` raises Interrupted for a signal that came before this process was ready for it.
    """
    number, path = int(order["number"]), Path(order["path"])
    clock, cpu = time.perf_counter(), time.process_time()
    found: dict[str, Any]
    try:
        with launch.signals_raise(), files.behind():
            arrived()
            found = told(trained(order, path, replace(options, hooks=hooks(order, path, talk, kept))))
    except BaseException as error:
        found = told_badly(path, error)
    seconds, cpu_s = time.perf_counter() - clock, time.process_time() - cpu
    talk.done(number, **found, seconds=seconds, cpu_s=cpu_s, notes=order.get("notes", ()))
    return int(found.get("code", 0))


def hooks(order: Message, path: Path, talk: Talk, kept: KeptData) -> Hooks:
    """Epochs of the trial, or of its first fold or seed, go to the study; the net is measured when it is trained."""
    number, first = int(order["number"]), {path, path / "folds" / "0", path / "seeds" / "0"}

    def on_epoch(run: Run, row: dict[str, Any]) -> str | None:
        return talk.tell({number: row}).get(number) if run.path in first else None

    return Hooks(on_epoch, partial(measured, order), kept)


def measured(order: Message, task: Any, data: Any) -> dict[str, float | None]:
    """Figures of a trained net that the study may want beside those of its task."""
    if not order.get("measure"):
        return {}
    latency = {"latency_ms": facts.latency_ms(task, data)} if order.get("latency") else {}
    return {"parameters": facts.parameters(task), **latency}


def trained(order: Message, path: Path, options: launch.Options) -> Run:
    """The trial's finished run: made, gone on with from its checkpoint, or found complete."""
    before = begun(path)
    if before is not None and before.status == "completed":
        return before
    if before is not None and failures.is_resumable(before):
        return resuming.resume(before, [], options)
    shutil.rmtree(path, ignore_errors=True)  # it ended before there was anything to go on from
    path.mkdir(parents=True, exist_ok=True)
    seen = machine.facts(os.getpid())
    run = Run.create(path, "train", order["config"], order["overrides"], Path(order["parent"]), seen)
    with run.lock():
        return launch.carry_out(run, options, None, resume=False)


def begun(path: Path) -> Run | None:
    """The run of an earlier attempt; None without one, and for one that a power cut left damaged."""
    try:
        return Run.open(path) if path.exists() else None
    except RunError:
        return None


def told(run: Run) -> dict[str, Any]:
    """What the study is told of a completed run."""
    record = run.record
    return {
        "metrics": run.metrics,
        "epochs": int(record.get("epochs") or 0),
        "best_epoch": record.get("best_epoch"),
        "halted": record.get("halted"),
    }


def told_badly(path: Path, error: BaseException) -> dict[str, Any]:
    """What the study is told of a run that did not complete; its record says so too, and memory is given back."""
    if isinstance(error, Interrupted):
        error = Stopped(error.signum)
    settle(path, error)
    first = (str(error).splitlines() or [""])[0]
    known = isinstance(error, TrainctlError)
    message = str(error) if known else f"{type(error).__name__}: {first} (see `{files.shown(path / 'error.txt')}`)"
    status = "stopped" if isinstance(error, Stopped) else "failed"
    found = {"status": status, "code": int(getattr(error, "exit_code", 1)), "message": message}
    error.__traceback__ = error.__cause__ = error.__context__ = None
    gc.collect()
    return found


def settle(path: Path, error: BaseException) -> None:
    """End the record of a run that calls itself running though its trial is over."""
    try:
        run = Run.open(path)
    except TrainctlError:
        return
    if run.status not in ("running", "crashed"):
        return
    if isinstance(error, Stopped):
        run.stop(error.signum, str(error))
    else:
        run.fail(error, int(getattr(error, "exit_code", 1)), str(error) + "\n")
