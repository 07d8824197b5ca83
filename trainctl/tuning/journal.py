"""The study's journal: one JSON record per line, appended under a file lock, read by any number of processes.

Takes the place of Optuna's own file backend: its lock is the kernel's, so that a killed process never leaves one
behind; a line that a killed process left half-written is cut off before the next one; only records that must
outlive a power cut wait for the disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from trainctl.errors import ResourceError, RunError
from trainctl.run.files import explain, shown

log = logging.getLogger("trainctl")

WAIT_S = 60.0  # for the lock
_CREATE_STUDY, _CREATE_TRIAL, _SET_STATE = 0, 4, 6  # Optuna's op codes
_FINISHED = (1, 2, 3)  # Optuna's states: complete, pruned, fail
_CHUNK = 1 << 16


class Journal(BaseJournalBackend):
    """An append-only file of records that several processes share; ResourceError when it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path)
        self._closed = weakref.finalize(self, os.close, self._file)
        self._offset = 0  # bytes of whole lines read
        self._number = 0  # records read
        self._in_batch = False
        self._pending: list[bytes] = []
        self._shown = 0  # pending records that were read back already
        self._durable = False
        self._broken: Exception | None = None
        self._studies: list[int] = []  # of each trial, by its id
        self._touched: set[int] = set()

    def close(self) -> None:
        """Give the file back; the journal can no longer be used."""
        self._closed()
        self._file = -1

    # What Optuna calls

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Records from a number on; those of a batch count as written."""
        if log_number_from != self._number:
            self._rewind()
        if self._broken is not None:
            raise self._broken
        for line in self._new_lines():
            record = self._parsed(line)
            self._note(record)
            if self._number > log_number_from:
                yield record
        while self._shown < len(self._pending):
            record = json.loads(self._pending[self._shown])
            self._shown += 1
            self._number += 1
            self._note(record)
            yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records at the end, in one piece."""
        lines = [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in logs]
        durable = any(_must_last(record) for record in logs)
        if self._in_batch:
            self._pending += lines
            self._durable = self._durable or durable
            return
        with self._locked():
            self._write(b"".join(lines), durable)

    # What the study calls

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Nobody else writes meanwhile, and all records of the block are written at its end in one piece."""
        if self._in_batch:
            yield
            return
        with self._locked():
            self._in_batch, self._durable = True, False
            try:
                yield
            finally:
                self._in_batch = False
                lines, seen = self._pending, self._shown
                self._pending, self._shown = [], 0
                if lines:
                    self._end_batch(lines, seen)

    def changed(self, study_id: int) -> list[int]:
        """Ids of the study's trials with records that were read since the last call, ascending."""
        found = sorted(number for number in self._touched if self._studies[number] == study_id)
        self._touched.clear()
        return found

    # Inside

    def _end_batch(self, lines: list[bytes], seen: int) -> None:
        try:
            self._write(b"".join(lines), self._durable)
        except ResourceError as error:
            self._broken = error  # what was read back is not in the file
            raise
        self._offset += sum(map(len, lines[:seen]))

    def _new_lines(self) -> Iterator[bytes]:
        """Whole lines that are not read yet; each is counted as read before it is handed out."""
        left = os.fstat(self._file).st_size - self._offset
        if left <= 0:
            return
        content = os.pread(self._file, left, self._offset)
        start = 0
        while (end := content.find(b"\n", start)) >= 0:
            line, start = content[start:end], end + 1
            self._offset += len(line) + 1
            self._number += 1
            yield line

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or "op_code" not in record:
                raise ValueError("not a record")
        except ValueError as error:
            raise RunError(f"`{shown(self.path)}` is damaged: line {self._number} is not a record") from error
        return record

    def _note(self, record: dict[str, Any]) -> None:
        if "trial_id" in record:
            self._touched.add(record["trial_id"])
        elif record["op_code"] == _CREATE_TRIAL:
            self._touched.add(len(self._studies))
            self._studies.append(record["study_id"])

    def _rewind(self) -> None:
        self._offset = self._number = 0
        self._studies, self._touched = [], set()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock(self._file, self.path, "study")
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, content: bytes, durable: bool) -> None:
        try:
            self._cut_torn_line()
            written = os.write(self._file, content)
            while written < len(content):
                written += os.write(self._file, content[written:])
            if durable:
                os.fdatasync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut_torn_line(silent=True)
            raise explain(error, self.path, len(content)) from error

    def _cut_torn_line(self, silent: bool = False) -> None:
        """Whole lines stay even when their batch is not whole: another process may have read them."""
        size = os.fstat(self._file).st_size
        if size == 0 or os.pread(self._file, 1, size - 1) == b"\n":
            return
        end = size
        while end > 0:
            start = max(0, end - _CHUNK)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        os.ftruncate(self._file, end)
        if not silent:
            log.warning("repaired `%s`: dropped 1 torn line", shown(self.path))


def _opened(path: Path) -> int:
    """The file to read and append to; to read only where writing is not allowed."""
    flags = os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS):
            with contextlib.suppress(OSError):
                return os.open(path, os.O_RDONLY | flags)
        raise explain(error, path) from error


def lock(file: int, path: Path, what: str, wait: float | None = None) -> None:
    """Take the lock of an open file; RunError naming who holds it when it is not free in time."""
    until, pause = time.monotonic() + (WAIT_S if wait is None else wait), 0.0005
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                held = f"{what} `{shown(path)}` is locked by {holder(file)}"
                raise RunError(f"{held}, and has been for too long; end that process, or try again later") from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ResourceError(f"cannot lock `{shown(path)}`: {reason}; put it on another file system") from error
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def holder(file: int) -> str:
    """`pid 123` of the process that holds the lock of an open file, as far as the kernel tells."""
    inode = str(os.fstat(file).st_ino)
    with contextlib.suppress(OSError, IndexError), open("/proc/locks", encoding="utf-8") as lines:
        for fields in map(str.split, lines):
            if "->" not in fields and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                return f"pid {fields[4]}"
    return "another process"


def _must_last(record: dict[str, Any]) -> bool:
    """Whether a record must outlive a power cut: a new study or the end of a trial."""
    code = int(record["op_code"])
    return code == _CREATE_STUDY or (code == _SET_STATE and int(record["state"]) in _FINISHED)
