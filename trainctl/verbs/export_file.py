"""Where an export goes: what can be refused before work, and a file that takes its name when it was found good."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from trainctl.errors import UsageError
from trainctl.run import files

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}


def check(path: Path | None, force: bool = False) -> None:
    """Before anything is made: UsageError when `path` cannot take an export."""
    if path is None:
        return
    files.check_name(path)
    shown = files.shown(path)
    if path.suffix not in SUFFIXES.values():
        raise UsageError(
            f"cannot write `{shown}`: exports are .onnx, .pt2 (torch_export) or .safetensors; "
            f"e.g. `-o {path.stem}.onnx`"
        )
    if path.is_dir():
        raise UsageError(f"cannot write `{shown}`: it is a directory; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write `{shown}`: there is no directory `{files.shown(path.parent)}`")
    if path.exists() and not force:
        raise UsageError(f"`{shown}` exists; pass `--force` to replace it")


def check_suffix(path: Path, format: str) -> None:
    """UsageError when the file's ending is that of another format."""
    if path.suffix != SUFFIXES[format]:
        fitting = next(name for name, suffix in SUFFIXES.items() if suffix == path.suffix)
        raise UsageError(
            f"`{files.shown(path)}` does not fit `format={format}`, which is {SUFFIXES[format]}; "
            f"use `format={fitting}` or `-o {path.stem}{SUFFIXES[format]}`"
        )


@contextlib.contextmanager
def judged(path: Path, content: bytes) -> Iterator[Path]:
    """The content under a temporary name beside `path`; it takes the name when the block ends without an error.

    ResourceError when the disk is full or writing is not permitted; nothing is left behind then.
    """
    temporary = files.temp_path(path)
    try:
        try:
            files.write_atomic(temporary, content)
        except OSError as error:
            raise files.explain(error, path, len(content)) from error
        yield temporary
        try:
            os.replace(temporary, path)
            files.sync_directory(path.parent)
        except OSError as error:
            raise files.explain(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
