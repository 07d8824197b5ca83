"""Runs that are made and ended many at a time, in one process, where writing them one by one would cost more than
training them.

What they hold is what any run holds. Nothing waits for the disk until `files.sync_all`, which whoever ends them calls
before their records say `completed` and once more afterwards. A kill loses nothing that was written, since the system
has it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainctl.run import files, lines
from trainctl.run.manifest import Manifest
from trainctl.run.run import Run


class RunTogether(Run):
    """A run beside others of its process, which alone writes it."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        super().__init__(path, record)
        self._digests: dict[str, dict[str, Any]] = {}

    def know(self, config: dict[str, Any]) -> None:
        """Take `config` as the run's resolved one."""
        self.__dict__["config"] = config

    def add(self, name: str, content: bytes) -> None:
        """Write a file of the run that nobody reads before the run is completed; its folder is made when needed."""
        path = self.path / name
        try:
            if "/" in name:
                path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise self._failure(error, path, len(content)) from error
        self._digest(name, content)

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """As of any run; nothing of an earlier process can stand at the end of the file."""
        path, line = self.path / "metrics.jsonl", lines.to_line(row)
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        except OSError as error:
            raise self._failure(error, path, len(line)) from error

    def seal(self) -> None:
        """As of any run; what was written here is not read again."""
        manifest = Manifest()
        manifest.list_files(self.path, self._digests)
        manifest.write(self.path, sync=False)

    def _write(self, name: str, content: str | bytes) -> None:
        payload = content.encode() if isinstance(content, str) else content
        files.write_atomic(self.path / name, payload, sync=False)
        self._digest(name, payload)

    def _digest(self, name: str, content: bytes) -> None:
        self._digests[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def _latest(self) -> dict[str, Any]:
        return self.record
