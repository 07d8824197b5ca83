"""manifest.json: size and sha256 of every file of a run that matters, by relative path, and of its checkpoints.

Files are listed when the run ends; a checkpoint's digest is added *before* the checkpoint gets its name, so at every
moment each file called last, prev or best is a known one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainctl.errors import RunError
from trainctl.run import files

_GROWING = ("run.json", "manifest.json", "error.txt", "test_looks.jsonl")


@dataclass
class Manifest:
    """`files`: {relative path: {size, sha256}}; `checkpoints`: {sha256: {size, epoch, step, ...}};
    `names`: {last|prev|best: sha256} as the latest commit means them."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    checkpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, run_dir: Path) -> Manifest:
        """The run's manifest, empty when there is none yet; RunError when it is damaged."""
        path = run_dir / "manifest.json"
        if not path.exists():
            return cls()
        content = files.read_json(path)
        tables = (
            [content.get(key, {}) for key in ("files", "checkpoints", "names")] if isinstance(content, dict) else []
        )
        entries = [entry for table in tables[:2] if isinstance(table, dict) for entry in table.values()]
        if not all(isinstance(part, dict) for part in (content, *tables, *entries)):
            raise RunError(f"`{files.shown(path)}` is damaged: it is not a manifest")
        return cls(*tables)

    def write(self, run_dir: Path, durable: bool = True, sync: bool = True) -> None:
        """Replace the run's manifest.json atomically."""
        content = {"files": self.files, "names": self.names, "checkpoints": self.checkpoints}
        files.write_json(run_dir / "manifest.json", content, durable, sync)

    def list_files(self, run_dir: Path, known: Mapping[str, dict[str, Any]] | None = None) -> None:
        """Fill `files` from the directory: no logs, records that still grow, temporary files, child runs, links.

        `known`: entries of files that were digested as they were written.
        """
        self.files = {}
        self._list(os.fspath(run_dir), "", known or {})

    def _list(self, folder: str, prefix: str, known: Mapping[str, dict[str, Any]]) -> None:
        """Add what is in a folder, whose path in the run is `prefix`, then what is in the folders inside it."""
        entries: list[os.DirEntry[str]] = []
        with contextlib.suppress(OSError), os.scandir(folder) as listed:
            entries += sorted(listed, key=lambda entry: entry.name)
        for entry in entries:
            name, relative = entry.name, prefix + entry.name
            hidden = name.startswith((".tmp-", ".lock")) or name.endswith((".log", ".damaged"))
            if hidden or entry.is_dir() or entry.is_symlink() or relative in _GROWING:
                continue
            digest = known.get(relative)
            self.files[relative] = digest or {"size": entry.stat().st_size, "sha256": files.sha256(Path(entry.path))}
        for entry in entries:
            whole = entry.is_dir(follow_symlinks=False) and prefix + entry.name != "checkpoints"
            if whole and not _is_run(Path(entry.path)):
                self._list(entry.path, f"{prefix}{entry.name}/", known)

    def verify(self, path: Path, relative: str) -> None:
        """RunError unless the file at `path`, called `relative` in the run, is whole."""
        expected = self.files.get(relative)
        if expected is None:
            raise RunError(f"`{relative}` is not in the manifest of `{files.shown(path.parent)}`")
        if not path.is_file():
            raise RunError(f"`{relative}` is missing from its run; restore it or run again")
        size = path.stat().st_size
        if size != expected.get("size"):
            raise RunError(f"`{relative}` is damaged (size {sizes(size, expected.get('size', 0))})")
        if files.sha256(path) != expected.get("sha256"):
            raise RunError(f"`{relative}` fails its checksum")


def sizes(actual: int, expected: int) -> str:
    """`4 of 8 MB`: both in the unit of the larger one; in bytes when the rounded numbers would be equal."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if max(actual, expected) >= scale:
            first, second = f"{actual / scale:.3g}", f"{expected / scale:.3g}"
            if first != second:
                return f"{first} of {second} {unit}"
    return f"{actual} of {expected} B"


def _is_run(path: Path) -> bool:
    return (path / "run.json").exists() or path.name in ("folds", "seeds", "trials")
