"""The checkpoint file protocol: `last`, `prev` and `best`, so that a kill at any moment leaves last or prev whole.

The caller writes a temporary file in `<run>/checkpoints` (see `temp_path`), `commit` gives it its names:
its digest goes into manifest.json first, then hard links and renames move the names. `find` trusts only files whose
digest the manifest knows. What is inside a checkpoint is not this module's business.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainctl.errors import RunError
from trainctl.run import files
from trainctl.run.manifest import Manifest, sizes
from trainctl.run.record import inside, plain

NAMES = ("last", "prev", "best")
_ZIP = b"PK\x03\x04"  # what torch.save writes begins with it


@dataclass(frozen=True)
class Found:
    """A whole checkpoint; `warning` is a sentence for the user when it is not the one that was wanted."""

    path: Path
    name: str
    epoch: int | None
    step: int | None
    warning: str | None
    info: dict[str, Any]


def temp_path(run_dir: Path) -> Path:
    """Where to write the next checkpoint before `commit`; makes `<run>/checkpoints` when needed.

    RunError when the run directory is gone, ResourceError when it cannot be written.
    """
    folder = run_dir / "checkpoints"
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise files.vanished(run_dir) from error
    except OSError as error:
        raise files.explain(error, folder) from error
    return files.temp_path(folder / "last.ckpt")


def commit(run_dir: Path, temp: Path, *, best: bool, keep_last: bool = True, info: dict[str, Any]) -> str:
    """Give a written checkpoint its names: last (the former last becomes prev), and best when `best`.

    `info` (`epoch`, `step`, ... as plain values) is kept beside its digest. Returns the sha256. Raises ResourceError
    (disk full, permission) or RunError (run directory gone); the earlier checkpoints stay good.
    """
    folder = run_dir / "checkpoints"
    try:
        size = _sync(temp)
        digest = files.sha256(temp)
        manifest = Manifest.read(run_dir)
        here = _identify(folder, manifest)
        stat = temp.stat()
        entry = {"size": size, **plain(info), "file": [stat.st_ino, stat.st_mtime_ns]}
        manifest.checkpoints = {**{known: manifest.checkpoints[known] for known in here.values()}, digest: entry}
        manifest.names = dict(here)
        if keep_last:
            manifest.names |= {"prev": here["last"], "last": digest} if "last" in here else {"last": digest}
        if best:
            manifest.names["best"] = digest
        # Should a power cut bring the old manifest back, it still knows the old last, which prev is then.
        manifest.write(run_dir, durable=False)
        if best:
            _link(temp, folder / "best.ckpt")
        if keep_last:
            if (folder / "last.ckpt").is_file():
                _link(folder / "last.ckpt", folder / "prev.ckpt")
            os.replace(temp, folder / "last.ckpt")
        else:
            temp.unlink()
        files.sync_directory(folder)
        files.settle(run_dir, due=False)
    except OSError as error:
        if files.is_gone(run_dir):
            raise files.vanished(run_dir) from error
        raise files.explain(error, folder / "last.ckpt") from error
    return digest


def names(run_dir: Path) -> list[str]:
    """The checkpoints a run has, in the order last, prev, best, then others by name."""
    with contextlib.suppress(OSError):
        found = {path.stem for path in (run_dir / "checkpoints").iterdir() if path.suffix == ".ckpt"}
        return [name for name in NAMES if name in found] + sorted(found - set(NAMES))
    return []


def clear(run_dir: Path) -> None:
    """Remove a run's checkpoints: what comes next trains another net."""
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)


def find(run_dir: Path, name: str | None = None, set_aside: bool = True) -> Found:
    """A checkpoint whose size and digest are verified.

    Without a name: last, or prev with a warning when last is damaged (`set_aside`: it becomes `last.ckpt.damaged`).
    By name: RunError when it is missing, damaged or no checkpoint.
    """
    manifest = Manifest.read(run_dir)
    if name is not None:
        return _load(run_dir, name, manifest)
    try:
        return _load(run_dir, "last", manifest)
    except _Unfit as unfit:
        problem = str(unfit)
        try:
            found = _load(run_dir, "prev", manifest)
        except _Unfit:
            raise RunError(_nothing_left(run_dir, problem)) from unfit
        if set_aside:
            _set_aside(run_dir / "checkpoints" / "last.ckpt")
        epoch = "" if found.epoch is None else f" (epoch {found.epoch})"
        return Found(found.path, "prev", found.epoch, found.step, f"{problem}; using `prev`{epoch}", found.info)


class _Unfit(RunError):
    """This checkpoint cannot be used; another may."""


def _load(run_dir: Path, name: str, manifest: Manifest) -> Found:
    shown = files.shown_text(name)
    name = name.removesuffix(".ckpt")
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise RunError(f"`{shown}` is not a checkpoint's name; the run has: {_have(run_dir)}")
    path = inside(run_dir, f"checkpoints/{name}.ckpt")
    if path.is_dir():
        raise _Unfit(f"`{shown}` is not a checkpoint")
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(4)
        digest = files.sha256(path)
    except FileNotFoundError as error:
        raise _Unfit(f"no checkpoint `{shown}`; the run has: {_have(run_dir)}") from error
    except OSError as error:
        raise _Unfit(f"cannot read checkpoint `{shown}`: {(error.strerror or str(error)).lower()}") from error
    info = manifest.checkpoints.get(digest)
    if info is None:
        expected = manifest.checkpoints.get(manifest.names.get(name, ""), {}).get("size")
        if head != _ZIP and size != expected:
            raise _Unfit(f"`{shown}` is not a checkpoint")
        if expected is not None and size != expected:
            raise _Unfit(f"`{shown}` is damaged (size {sizes(size, expected)})")
        raise _Unfit(f"`{shown}` fails its checksum")
    return Found(path, name, info.get("epoch"), info.get("step"), None, info)


def _identify(folder: Path, manifest: Manifest) -> dict[str, str]:
    """{last|prev|best: digest} of the files there now: by inode and time when they are ours, else by hashing.

    After a kill the manifest's own `names` may be one commit ahead of the directory; after a copy inodes are new.
    A file whose digest the manifest does not know is left out: it is damaged or foreign.
    """
    here = {}
    known = {tuple(entry.get("file") or ()): digest for digest, entry in manifest.checkpoints.items()}
    for name in NAMES:
        with contextlib.suppress(FileNotFoundError):
            stat = (folder / f"{name}.ckpt").stat()
            digest = known.get((stat.st_ino, stat.st_mtime_ns))
            if digest is None and (folder / f"{name}.ckpt").is_file():
                digest = files.sha256(folder / f"{name}.ckpt")
                if digest in manifest.checkpoints:
                    manifest.checkpoints[digest]["file"] = [stat.st_ino, stat.st_mtime_ns]
            if digest in manifest.checkpoints:
                here[name] = digest
    return here


def _sync(path: Path) -> int:
    with open(path, "rb") as file:
        files.sync_file(file.fileno())
        return os.fstat(file.fileno()).st_size


def _link(source: Path, target: Path) -> None:
    """Make `target` another name of `source` (a copy where links do not work), atomically."""
    temp = files.temp_path(target)
    try:
        os.link(source, temp)
    except OSError:
        shutil.copy2(source, temp)
        _sync(temp)
    os.replace(temp, target)
    # rename(2) does nothing when both names are already one file, and leaves the temporary name behind.
    temp.unlink(missing_ok=True)


def _set_aside(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.replace(path, path.with_name(path.name + ".damaged"))


def _have(run_dir: Path) -> str:
    return ", ".join(names(run_dir)) or "none"


def _nothing_left(run_dir: Path, problem: str) -> str:
    if not names(run_dir) and (run_dir / "model.safetensors").exists():  # of a stack, or removed
        shown = files.shown(run_dir)
        return f"run `{shown}` keeps no checkpoint; begin from its weights with `trainctl train --from {shown}`"
    if not names(run_dir):
        return f"run `{files.shown(run_dir)}` has no checkpoint: it ended before its first one"
    rest = "; `best` is still there: start a new run from it with `--from`" if "best" in names(run_dir) else ""
    return f"{problem}, and `prev` cannot be used either{rest}"
