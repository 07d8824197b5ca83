"""Append-only logs of one JSON object per line; a line torn by a kill is cut, never read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from trainctl.errors import RunError
from trainctl.run.files import shown


def to_line(row: Mapping[str, Any]) -> bytes:
    """One object as strict JSON with its line's end."""
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()


def append(path: Path, line: bytes) -> None:
    """Add a line in one write; OSError as the system gives it. The directory must exist."""
    try:
        file: BinaryIO = open(path, "r+b", buffering=0)
    except FileNotFoundError:
        file = open(path, "ab", buffering=0)
    with file:
        _go_to_end(file)
        file.write(line)


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; none when the file does not exist. RunError when a whole line is not JSON."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read `{shown(path)}`: {(error.strerror or str(error)).lower()}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise RunError(f"`{shown(path)}` is damaged in line {number}")
        rows.append(row)
    return rows


def _go_to_end(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)
