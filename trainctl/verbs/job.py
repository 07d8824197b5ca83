"""What a verb is given."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainctl.errors import raise_swallowed
from trainctl.run import checkpoints, files
from trainctl.run.run import Run

if TYPE_CHECKING:
    from trainctl.verbs.kept_data import KeptData


@dataclass(frozen=True)
class Hooks:
    """What a process that carries out many runs adds to each; nothing by default.

    on_epoch(run, row): told the row of each epoch; a reason that it returns ends the fit there.
    measure(task, data): further figures of the trained task. kept: data modules that are set up already.
    """

    on_epoch: Callable[[Run, dict[str, Any]], str | None] | None = None
    measure: Callable[[Any, Any], dict[str, float | None]] | None = None
    kept: KeptData | None = None


@dataclass
class Job:
    """A claimed run and how to carry it out; `rank` 0 alone writes to the run.

    `trains`: another config than the run's for a fit, as fine-tuning between two steps of a verb needs.
    """

    run: Run
    source: Run | None = None
    resume: bool = False
    quiet: bool = False
    allow_data_change: bool = False
    rank: int = 0
    timing: dict[str, float] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    hooks: Hooks = field(default_factory=Hooks)
    trains: dict[str, Any] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """What the job is done with: the run's config, or what `trains` puts in its place."""
        return self.run.config if self.trains is None else self.trains

    def clock(self, name: str, started: float) -> None:
        """Add the seconds since `started` (time.perf_counter) to `<name>_s`; Interrupted for a signal that got lost."""
        raise_swallowed()
        key = f"{name}_s"
        self.timing[key] = round(self.timing.get(key, 0.0) + time.perf_counter() - started, 3)

    @contextlib.contextmanager
    def clocked(self, name: str) -> Iterator[None]:
        """Add what happens inside to `<name>_s`, and its CPU seconds to `<name>_cpu_s`."""
        started, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.clock(name, started)
            key = f"{name}_cpu_s"
            self.timing[key] = round(self.timing.get(key, 0.0) + time.process_time() - cpu, 3)


@dataclass
class Outcome:
    """What a verb found: figures by `stage/name`, their intervals, files by name, and fields for run.json."""

    metrics: dict[str, float | None]
    intervals: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointStore:
    """The run's checkpoint files, as the Checkpoint callback asks for them."""

    path: Path

    def temp(self) -> Path:
        """A temporary name in the checkpoint folder."""
        return checkpoints.temp_path(self.path)

    def commit(self, temporary: Path, best: bool, info: dict[str, Any]) -> None:
        """Make the written file `last`, and `best` when it is."""
        checkpoints.commit(self.path, temporary, best=best, info=info)

    def failure(self, error: Exception, path: Path) -> Exception:
        """The sentence for a failed write; torch reports a full disk as a RuntimeError without a reason."""
        target = path.with_name("last.ckpt")
        if files.is_gone(self.path):
            return files.vanished(self.path)
        if isinstance(error, OSError):
            return files.explain(error, target)
        if not any(words in str(error) for words in ("PytorchStreamWriter", "inline_container", "iostream error")):
            return error
        try:  # torch does not say why: nothing can be made here, or nothing more fits
            path.touch()
            path.unlink()
            # of the two that may have ended it, a limit on files and the room on the disk, the smaller did
            longest, free = resource.getrlimit(resource.RLIMIT_FSIZE)[0], shutil.disk_usage(path.parent).free
            number = errno.EFBIG if 0 <= longest < free else errno.ENOSPC
            return files.explain(OSError(number, os.strerror(number)), target)
        except OSError as reason:
            return files.explain(reason, target)
