"""What conf/ offers: groups, their options with the first comment line of each, and the keys of a section.

Reads the files directly, so that completion and `trainctl list` stay fast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from trainctl.config.location import conf_dir
from trainctl.errors import UsageError, did_you_mean


def folders(config_dir: Path | None = None) -> list[Path]:
    """Where options are looked up: our conf/ first, then the user's (given, or ./conf) if there is one."""
    ours = conf_dir().resolve()
    if config_dir is not None and not config_dir.is_dir():
        raise UsageError(f"config folder `{config_dir}` does not exist; pass a folder with `--config-dir`")
    user = (config_dir or Path("conf")).absolute()
    return [ours, user] if user.is_dir() and user.resolve() != ours else [ours]


def options(group: str | None = None, config_dir: Path | None = None) -> dict[str, list[tuple[str, str]]]:
    """Options of each group (or of one) as (name, what its first comment says), sorted; UsageError: no such group."""
    where = folders(config_dir)
    have = groups(where)
    if group is not None and group not in have:
        raise UsageError(f"no group `{group}`; have: {', '.join(have)}{did_you_mean(group, have)}")
    return {name: [(file.stem, comment(file)) for file in files(name, where)] for name in have if group in (None, name)}


def groups(where: Sequence[Path]) -> list[str]:
    """Sorted names of the folders that hold options."""
    found = {child.name for folder in where for child in folder.iterdir() if child.is_dir()}
    return sorted(name for name in found if name[0] not in "._" and files(name, where))


def files(group: str, where: Sequence[Path]) -> list[Path]:
    """The option files of a group, sorted by name; of two with one name the first folder's."""
    found: dict[str, Path] = {}
    for folder in where:
        for file in (folder / group).glob("*.yaml"):
            found.setdefault(file.stem, file)
    return [found[name] for name in sorted(found)]


def quantizes(compressor: Path) -> bool:
    """Whether an option of `compressor` is of `quantize`: they have a key that no other has, `backend`."""
    return "\nbackend:" in compressor.read_text(encoding="utf-8")


def comment(file: Path) -> str:
    """The first comment line of a file without `# ` and without the command that it may begin with."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return re.sub(r"^(trainctl \w+ )?([\w.]+=[^\s:]+ ?)+(: |$)", "", line.lstrip("# ").strip())
        if line and not line.startswith("#"):
            break
    return ""


@cache
def shipped_keys(verb: str, section: str) -> tuple[str, ...]:
    """The keys of a section without a `_target_` in our own files: trainer/auto.yaml, or the verb's yaml."""
    file = conf_dir() / "trainer" / "auto.yaml" if section == "trainer" else conf_dir() / f"{verb}.yaml"
    node = _read(file) if section == "trainer" else _read(file).get(section)
    return tuple(node) if isinstance(node, dict) else ()


def _read(file: Path) -> dict[str, Any]:
    import yaml

    loaded = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    return loaded if isinstance(loaded, dict) else {}
