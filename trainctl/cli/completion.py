"""What may follow on the command line: groups, options and keys, read from conf/ without Hydra or torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainctl.config import listing
from trainctl.errors import UsageError

RECIPES = ("experiment", "debug")  # groups whose options set values anywhere, not below their own name


def complete(incomplete: str, words: Sequence[str] = (), config_dir: Path | None = None) -> list[str]:
    """Words that `incomplete` may become; `words` are those already typed, the verb among them when there is one.

    `optim` -> `optimizer=`, `optimizer.`; `model=m` -> `model=mlp`; `model.hid` -> `model.hidden_dims=`, of the option
    that the words choose; a true/false key offers both. Nothing rather than an error when conf/ cannot be read.
    """
    try:
        return sorted(dict.fromkeys(_candidates(incomplete, words, listing.folders(config_dir))))
    except (UsageError, OSError, yaml.YAMLError):
        return []


def _candidates(incomplete: str, words: Sequence[str], folders: Sequence[Path]) -> Iterator[str]:
    bare = incomplete.lstrip("+~")
    sign = incomplete[: len(incomplete) - len(bare)]
    key, equals, value = bare.partition("=")
    groups = listing.groups(folders)
    if equals and key in groups:
        first, comma, last = value.rpartition(",")
        names = [file.stem for file in listing.files(key, folders)]
        yield from (f"{sign}{key}={first}{comma}{name}" for name in names if name.startswith(last))
        return
    config = _config(words, folders, key.partition(".")[0] if "." in key else None)
    if equals:
        known = _leaf(config, key.split("."))
        choices = ["true", "false"] if isinstance(known, bool) else []
        yield from (f"{sign}{key}={choice}" for choice in choices if choice.startswith(value))
        return
    parent, dot, last = key.rpartition(".")
    node = _leaf(config, parent.split(".")) if parent else {**config, **dict.fromkeys(groups)}
    for name, child in node.items() if isinstance(node, Mapping) else ():
        if str(name).startswith(last) and name != "_target_":
            stem = f"{sign}{parent}{dot}{name}"
            is_group = not parent and name in groups
            if child if isinstance(child, Mapping) else is_group and name not in RECIPES:
                yield f"{stem}."
            if is_group or not child or not isinstance(child, Mapping):
                yield f"{stem}="


def _config(words: Sequence[str], folders: Sequence[Path], section: str | None) -> dict[str, Any]:
    """The verb's own values and, when asked for, the chosen option's values of one group."""
    verb = next((word for word in words if (folders[0] / f"{word}.yaml").is_file()), "train")
    config = _read(f"{verb}.yaml", folders)
    choices = {**_defaults(_read("train.yaml", folders)), **_defaults(config)}
    typed = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    for layer in RECIPES:
        chosen = typed.get(layer)
        choices.update(_defaults(_read(f"{layer}/{chosen}.yaml", folders)) if chosen else {})
    option = typed.get(section or "") or choices.get(section or "")
    if section and option:
        if option == "from_run":
            option = _defaults(_read("train.yaml", folders)).get(section)
        config = {**config, section: _option(section, str(option), folders)}
    config.pop("defaults", None)
    return config


def _option(group: str, option: str, folders: Sequence[Path], hops: int = 5) -> dict[str, Any]:
    """The keys of an option, those it takes from others of its group included."""
    node = _read(f"{group}/{option}.yaml", folders)
    keys: dict[str, Any] = {}
    for entry in node.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and hops:
            keys.update(_option(group, entry, folders, hops - 1))
    return {**keys, **node}


def _defaults(node: Mapping[str, Any]) -> dict[str, str]:
    """Group -> option of a defaults list, `override /group` included."""
    entries = [entry for entry in node.get("defaults", []) if isinstance(entry, dict)]
    return {str(group).split("/")[-1]: option for entry in entries for group, option in entry.items() if option}


def _read(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    for folder in folders:
        if (folder / name).is_file():
            node = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
            return node if isinstance(node, dict) else {}
    return {}


def _leaf(config: Mapping[str, Any], parts: Sequence[str]) -> Any:
    node: Any = config
    for part in parts:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
