"""Files that are whole or absent: written under a temporary name in the target's directory, fsynced, renamed.

Every failure becomes one sentence: `ResourceError` for a full disk or a missing permission, `UsageError` for a
name that is too long. Nothing here knows what a run is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainctl.errors import ResourceError, RunError, TrainctlError, UsageError
from trainctl.run import machine

_TEMP = re.compile(r"^\.tmp-.*-(\d+)-[0-9a-f]{8}$", re.DOTALL)
_NAME_BYTES, _PATH_BYTES = 255, 4095


def shown(path: str | os.PathLike[str]) -> str:
    """The path as a user wants to read it: relative when below the current directory, control characters escaped."""
    absolute = os.path.abspath(path)
    with contextlib.suppress(OSError):
        here = os.getcwd()
        if absolute.startswith(here.rstrip(os.sep) + os.sep):
            absolute = os.path.relpath(absolute, here)
    return shown_text(absolute)


def shown_text(text: str) -> str:
    """Text with its control characters and broken bytes escaped, so that it stays on one line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def megabytes(size: float) -> str:
    """Bytes as a short text with a unit: `12 MB`, `4.5 MB`, `900 B`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 10 or size == int(size) else f"{size:.1f} {unit}"


def explain(error: OSError, path: Path, size: int | None = None) -> TrainctlError:
    """The error to raise for a failed write of `size` bytes to `path`."""
    what = f" {megabytes(size)}" if size is not None else ""
    if error.errno == errno.EFBIG:
        return ResourceError(f"the limit on file sizes (ulimit -f) is reached writing{what} to `{shown(path)}`")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            return ResourceError(f"disk full writing{what} ({megabytes(free)} free) to `{shown(path)}`")
        return ResourceError(f"disk full writing{what} to `{shown(path)}`")
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(_too_long(path))
    if error.errno == errno.ENOENT:
        return RunError(f"cannot write `{shown(path)}`: its directory is gone")
    reason = (error.strerror or str(error)).lower()
    return ResourceError(f"cannot write `{shown(path)}`: {reason}")


def _too_long(path: Path) -> str:
    longest = max(path.parts, key=lambda part: len(os.fsencode(part)))
    size, whole = len(os.fsencode(longest)), len(os.fsencode(os.path.abspath(path)))
    if size > _NAME_BYTES:
        return f"name too long: `{longest[:40]}...` has {size} bytes, at most {_NAME_BYTES} fit"
    return f"path too long: `{str(path)[:40]}...` has {whole} bytes, at most {_PATH_BYTES} fit"


def check_name(path: Path) -> None:
    """UsageError when the last part of `path` has more bytes than a file system takes."""
    if len(os.fsencode(path.name)) > _NAME_BYTES:
        raise explain(OSError(errno.ENAMETOOLONG, "File name too long"), path)


def temp_path(path: Path) -> Path:
    """A fresh name beside `path` that `sweep_temps` recognises once this process is gone."""
    name = os.fsencode(path.name)[:200].decode(errors="ignore")
    return path.parent / f".tmp-{name}-{os.getpid()}-{secrets.token_hex(4)}"


SETTLE_S = 5.0
_behind: list[float] = []  # when all that was written came to the disk last, for each `behind` around


@contextlib.contextmanager
def behind() -> Iterator[None]:
    """Inside, no single write waits for the disk: `settle` does, for all of them at once.

    For a process with many short runs. A kill loses nothing, since the system has what was written; a power cut
    loses what was written since the last `settle`.
    """
    _behind.append(time.monotonic())
    try:
        yield
    finally:
        _behind.pop()


def settle(directory: Path, due: bool = True) -> None:
    """Bring what was written `behind` to the disk; unless it is `due`, only when the last time is some seconds ago."""
    if _behind and (due or time.monotonic() - _behind[-1] > SETTLE_S):
        sync_all(directory)
        _behind[-1] = time.monotonic()


def sync_file(descriptor: int) -> None:
    """Bring an open file to the disk, now or with the next `settle`."""
    if not _behind:
        os.fsync(descriptor)


def write_atomic(path: Path, content: bytes | str, durable: bool = True, sync: bool = True) -> None:
    """Replace `path` by `content` (text as UTF-8): after a kill at any moment the old or the new file is there.

    `durable=False` leaves out the directory's fsync: after a power cut the old file may be back, whole. `sync=False`
    waits for no disk at all: the caller does, with `sync_all`, for many files at once.
    Raises ResourceError (disk full, permission), UsageError (name over 255 bytes), RunError (directory is gone).
    """
    check_name(path)
    payload = content.encode() if isinstance(content, str) else content
    temp = temp_path(path)
    try:
        with open(temp, "xb") as file:
            file.write(payload)
            file.flush()
            if sync:
                sync_file(file.fileno())
        os.replace(temp, path)
        if durable and sync:
            sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise explain(error, path, len(payload)) from error


def write_json(path: Path, content: Any, durable: bool = True, sync: bool = True) -> None:
    """`write_atomic` of strict, indented JSON (NaN is a programmer's error: ValueError)."""
    write_atomic(path, to_json(content), durable, sync)


def to_json(content: Any) -> str:
    """What `json.dumps` with two blanks of indent gives, and a line's end; ValueError for NaN.

    The library leaves its C code as soon as it indents, which is a millisecond for each record of a run.
    """
    if not isinstance(content, dict) or not content:
        return _indented(content, "\n") + "\n"
    parts = (f"\n  {_key(key)}: {_part(_encoded(value))}" for key, value in content.items())
    return f"{{{','.join(parts)}\n}}\n"


_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_KEPT_BYTES = 20_000


def _part(text: str) -> str:
    """A value below the top, given as JSON without indent; runs beside each other have most of them in common."""
    if text[0] not in "{[":
        return text
    return _indented_part(text) if len(text) < _KEPT_BYTES else _indented(json.loads(text), "\n  ")


@functools.lru_cache(maxsize=64)
def _indented_part(text: str) -> str:
    return _indented(json.loads(text), "\n  ")


def _indented(node: Any, margin: str) -> str:
    deeper = margin + "  "
    if isinstance(node, dict) and node:
        parts = (f"{deeper}{_key(key)}: {_indented(value, deeper)}" for key, value in node.items())
        return f"{{{','.join(parts)}{margin}}}"
    if isinstance(node, list | tuple) and node:
        return f"[{','.join(deeper + _indented(item, deeper) for item in node)}{margin}]"
    return _encoded(node)


def _key(key: Any) -> str:
    return _encoded(key) if isinstance(key, str) else f'"{_encoded(key)}"'


def read_json(path: Path) -> Any:
    """The content of a JSON file; RunError when it is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"no such file: `{shown(path)}`") from error
    except OSError as error:
        raise RunError(f"cannot read `{shown(path)}`: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"`{shown(path)}` is damaged: it is not JSON") from error


def sync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut; file systems that cannot are left alone."""
    if _behind:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def sync_all(directory: Path) -> None:
    """Bring all that was written to the file system of `directory` to the disk, in one call."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "syncfs"):
        os.sync()
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if library.syncfs(descriptor):
            raise explain(OSError(errno.EIO, os.strerror(errno.EIO)), directory)
    finally:
        os.close(descriptor)


def is_gone(directory: Path) -> bool:
    """Whether a directory was removed, as opposed to unreadable."""
    try:
        os.stat(directory)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def vanished(run_dir: Path) -> RunError:
    """What is said of a run whose directory was removed while it was written."""
    return RunError(f"run dir `{shown(run_dir)}` vanished; stopping")


def sha256(path: Path) -> str:
    """Hex digest of a file's content; memory does not grow with its size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep_temps(directory: Path) -> list[Path]:
    """Remove temporary files that dead processes left in `directory` (not below it); returns what was removed.

    One that nobody has waited for yet is dead, too: ranks whose parent was killed.
    """
    removed = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in directory.iterdir():
            match = _TEMP.match(path.name)
            if match and int(match[1]) != os.getpid() and machine.start_ticks(int(match[1])) is None:
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(path)
    return removed
