"""A run: a directory with a config, a record (run.json), a metrics log and, at the end, metrics and a manifest.

`Run.create` when a verb starts, `Run.open` for every later verb. All paths inside are relative, so a run that was
moved or copied keeps working. Opening never executes anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from trainctl.errors import RunError, TrainctlError
from trainctl.run import files, lines, lock, machine
from trainctl.run.manifest import Manifest
from trainctl.run.record import (
    as_written,
    dump_yaml,
    inside,
    load_yaml,
    misshapen,
    placed,
    plain,
    plain_overrides,
    resolved,
)

SCHEMA = 1
STATUSES = ("running", "completed", "failed", "stopped", "crashed", "damaged")
_QUIET_AFTER_S = 600.0
_OWN_FILES = ("run.json", "config.yaml", "metrics.json", "metrics.jsonl", "manifest.json", "test_looks.jsonl")


class Run:
    """One run directory; `record` is run.json, `config` config.yaml (read when first asked for)."""

    _content: Mapping[str, Any] | None = None  # of config.yaml, where it is known

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, record

    @classmethod
    def create(
        cls, path: Path, verb: str, config: Mapping[str, Any], overrides: list[str], parent: Path | None = None,
        facts: Mapping[str, Any] | None = None, **fields: Any,
    ) -> Self:  # fmt: skip
        """Write config.yaml, then run.json with status `running`; `path` is a claimed directory.

        Extra `fields` go into run.json; `facts`: what `machine.facts` found before. Raises ResourceError when the
        directory cannot be written.
        """
        git = machine.start_git() if facts is None else None
        run = cls(path, {})
        run._write("config.yaml", dump_yaml(config))
        run._content = config
        record = {
            "schema": SCHEMA,
            "verb": verb,
            "status": "running",
            "started": _now(),
            "parent": os.path.relpath(Path(parent).resolve(), path.resolve()) if parent else None,
            "overrides": plain_overrides(overrides),
            "seed": config.get("seed"),
            **({**machine.process(), **machine.surroundings(git)} if facts is None else facts),
        }
        run._save({**record, **plain(fields)})
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read a run directory. RunError when it is none, is damaged, or names files outside itself."""
        try:
            return cls._open(Path(path))
        except OSError as error:
            raise RunError(f"cannot read `{files.shown(path)}`: {(error.strerror or str(error)).lower()}") from error

    @classmethod
    def _open(cls, path: Path) -> Run:
        if not path.is_dir():
            raise RunError(f"no run directory `{files.shown(path)}`")
        for name in (*_OWN_FILES, "checkpoints"):
            inside(path, name)
        if not (path / "run.json").exists():
            raise RunError(f"`{files.shown(path)}` is not a run directory: it has no run.json")
        record = files.read_json(path / "run.json")
        if not isinstance(record, dict) or not isinstance(record.get("verb"), str) or "status" not in record:
            raise RunError(f"`{files.shown(path / 'run.json')}` is damaged: it lacks `verb` or `status`")
        wrong = misshapen(record)
        if wrong:
            raise RunError(f"`{files.shown(path / 'run.json')}` is damaged: `{wrong[0]}` is not a {wrong[1]}")
        for relative in (*(record.get("artifacts") or {}).values(), *Manifest.read(path).files):
            inside(path, relative)
        run = cls(path, record)
        if record["status"] == "running" and not run.is_alive():
            record["status"] = "crashed"
        return run

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config as plain values, environment included; RunError when config.yaml is damaged."""
        return resolved(load_yaml(self.path / "config.yaml") if self._content is None else self._content)

    def rewrite_config(self, config: dict[str, Any]) -> None:
        """Replace config.yaml by a changed `config`; what came from the environment stays written as it was."""
        written = load_yaml(self.path / "config.yaml")
        self._write("config.yaml", dump_yaml(as_written(written, self.config, config)))
        self.__dict__["config"] = config

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """metrics.json (flat, `stage/name`: value); empty before the run finished."""
        if not (self.path / "metrics.json").exists():
            return {}
        metrics = files.read_json(self.path / "metrics.json")
        if not isinstance(metrics, dict):
            raise RunError(f"`{files.shown(self.path / 'metrics.json')}` is damaged: it is not a mapping")
        return metrics

    @property
    def verb(self) -> str:
        """The verb that made the run."""
        return str(self.record.get("verb"))

    @property
    def status(self) -> str:
        """One of STATUSES."""
        return str(self.record.get("status"))

    @property
    def name(self) -> str:
        """`<time>` of a run, `<time>/folds/0` of a child."""
        parts = self.path.absolute().parts
        start = max((i for i, part in enumerate(parts) if part == self.verb), default=len(parts) - 2)
        return "/".join(parts[start + 1 :])

    @property
    def parent(self) -> Path | None:
        """Directory of the source run, None without one (it may have been moved since)."""
        parent = self.record.get("parent")
        return Path(os.path.normpath(self.path.absolute() / parent)) if isinstance(parent, str) else None

    def is_alive(self) -> bool:
        """Whether the process that writes the run still lives; on another host: whether it wrote lately."""
        known = machine.alive(self.record)
        if known is not None:
            return known
        times = [0.0]
        for name in ("run.json", "metrics.jsonl"):
            with contextlib.suppress(OSError):
                times.append((self.path / name).stat().st_mtime)
        return time.time() - max(times) < _QUIET_AFTER_S

    def update(self, **fields: Any) -> None:
        """Set fields of run.json, atomically."""
        self._save({**self._latest(), **plain(fields)})

    def resume(self, overrides: list[str] | None = None) -> None:
        """Make this process the writer of an earlier run again: status `running`, stray temporary files removed."""
        files.sweep_temps(self.path)
        files.sweep_temps(self.path / "checkpoints")
        earlier = [*self.record.get("resumed", []), {"at": _now(), "overrides": plain_overrides(overrides or [])}]
        record = {key: value for key, value in self._latest().items() if key not in ("error", "stopped_by", "ended")}
        self._save({**record, **machine.process(), "status": "running", "resumed": earlier})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing; RunError naming the holder when another process does."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(lock.hold(self.path / ".lock"))
            except OSError as error:
                raise self._failure(error, self.path / ".lock") from error
            yield

    def stored_config(self) -> dict[str, Any]:
        """config.yaml as it stands: what is `${oc.env:...}` there is not resolved."""
        return load_yaml(self.path / "config.yaml")

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; a line torn by an earlier kill is cut first."""
        self._append("metrics.jsonl", row)

    def metrics_log(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a torn last line is left out."""
        return lines.read(self.path / "metrics.jsonl")

    def cut_metrics(self, epoch: int) -> None:
        """Drop logged rows of epochs after `epoch`: they will be logged again by the resumed run."""
        rows = self.metrics_log()
        kept = [row for row in rows if not isinstance(row.get("epoch"), int) or row["epoch"] <= epoch]
        if len(kept) < len(rows):
            self._write("metrics.jsonl", b"".join(lines.to_line(row) for row in kept))

    def finish(
        self,
        metrics: Mapping[str, float | None],
        intervals: Mapping[str, Any] | None = None,
        timing: Mapping[str, float] | None = None,
        artifacts: Mapping[str, str | Path] | None = None,
        **fields: Any,
    ) -> None:
        """Write metrics.json and manifest.json, then run.json with status `completed` as the last file.

        `artifacts` maps a name to a path, absolute or relative to the run; one outside the run (a `-o FILE`) is
        recorded under `outputs`. `intervals` maps a metric to [low, high].
        """
        self.write_metrics(metrics)
        self.seal()
        files.settle(self.path)
        self.complete(artifacts, intervals=intervals or {}, timing=timing or {}, **fields)
        files.settle(self.path)

    def write_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Write metrics.json (`finish` does it)."""
        self.__dict__["metrics"] = flat = plain(metrics)
        self._write("metrics.json", files.to_json(flat))

    def complete(self, artifacts: Mapping[str, str | Path] | None = None, **fields: Any) -> None:
        """Set status `completed`; all other files are there (`finish` does it)."""
        ending = {**placed(self.path, artifacts or {}), **plain(fields), "status": "completed", "ended": _now()}
        self._save({**self._latest(), **ending})

    def fail(self, error: BaseException, code: int, traceback_text: str) -> None:
        """Record a failure: error.txt gets the traceback, run.json the sentence and the exit code."""
        # The error itself is about to be shown; a record that cannot be written must not replace it.
        with contextlib.suppress(TrainctlError):
            self._write("error.txt", traceback_text)
            problem = {"kind": type(error).__name__, "message": str(error), "code": code}
            self._save({**self._latest(), "status": "failed", "ended": _now(), "error": problem})

    def stop(self, signum: int, message: str) -> None:
        """Record that a signal ended the run; `message` is the sentence shown to the user."""
        with contextlib.suppress(TrainctlError):
            problem = {"kind": "Stopped", "message": message, "code": 128 + signum}
            name = signal.Signals(signum).name
            ending = {"status": "stopped", "stopped_by": name, "ended": _now(), "error": problem}
            self._save({**self._latest(), **ending})

    def seal(self) -> None:
        """Write size and sha256 of every file that matters to manifest.json (`finish` does it)."""
        if files.is_gone(self.path):
            raise self._failure(FileNotFoundError(), self.path)
        manifest = Manifest.read(self.path)
        manifest.list_files(self.path)
        manifest.write(self.path)

    def verify(self, relative: str) -> Path:
        """The path of a file of the run after its checksum was compared with the manifest's; RunError otherwise."""
        path = inside(self.path, relative)
        Manifest.read(self.path).verify(path, relative)
        return path

    def count_test_look(self, by: str | None = None) -> int:
        """Record that the test split was looked at (`by`: the run that looked); returns the count."""
        self._append("test_looks.jsonl", {"at": _now(), "by": by})
        return self.test_looks()

    def test_looks(self) -> int:
        """How often the test split was looked at."""
        return len(lines.read(self.path / "test_looks.jsonl"))

    def _latest(self) -> dict[str, Any]:
        # Another process of the same run (a rank, a supervisor) may have added fields since this one read them.
        with contextlib.suppress(RunError):
            on_disk = files.read_json(self.path / "run.json")
            return on_disk if isinstance(on_disk, dict) else self.record
        return self.record

    def _save(self, record: dict[str, Any]) -> None:
        self._write("run.json", files.to_json(record))
        self.record = record

    def _write(self, name: str, content: str | bytes) -> None:
        if files.is_gone(self.path):
            raise self._failure(FileNotFoundError(), self.path)
        files.write_atomic(self.path / name, content)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        line = lines.to_line(plain(row))
        try:
            lines.append(self.path / name, line)
        except OSError as error:
            raise self._failure(error, self.path / name, len(line)) from error

    def _failure(self, error: OSError, path: Path, size: int | None = None) -> TrainctlError:
        if files.is_gone(self.path):
            return files.vanished(self.path)
        return files.explain(error, path, size)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
