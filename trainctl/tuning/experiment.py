"""A trial's override words as an experiment file, and as the command that trains it again."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from trainctl.run.record import dump_yaml, load_yaml

_INCLUDED = ("experiment", "debug")  # groups whose options set keys anywhere; an experiment file takes them in itself


def command(words: Sequence[str]) -> str:
    """`trainctl train ...`, to paste into a shell."""
    return " ".join(["trainctl", "train", *map(shlex.quote, words)])


def groups(config_dir: Path | None) -> list[str]:
    """Config groups that an override may choose from."""
    from trainctl.config import listing

    return listing.groups(listing.folders(config_dir))


def text(words: Sequence[str], groups: Collection[str], title: str) -> str:
    """An experiment file that gives the config that `trainctl train WORDS` has.

    Words that a file cannot say (`~key`, an item of a list) stand in a comment, to be typed behind `experiment=`.
    """
    included: list[Any] = []
    chosen: dict[str, Any] = {}
    values: dict[str, Any] = {}
    unsaid: list[str] = []
    for word, override in zip(words, _parsed(words), strict=True):
        key, value = override.key_or_group, override.value()
        if override.is_delete() or any(part.isdecimal() for part in key.split(".")) or "[" in key:
            unsaid.append(word)
        elif key in _INCLUDED and isinstance(value, str):
            _include(key, value, included, chosen, values)
        elif key in groups and not isinstance(value, dict):
            name = f"/{key}@{override.package}" if override.package else f"/{key}"
            chosen[name if override.is_add() else f"override {name}"] = value
        else:
            _nest(values, key.split("."), value)
    entries = [*included, *(["_self_"] if included else []), *({name: option} for name, option in chosen.items())]
    body = ({"defaults": entries} if entries else {}) | values
    head = ["# @package _global_", f"# {title}: {command(words)}"]
    head += [f"# to be added on the command line: {shlex.join(unsaid)}"] if unsaid else []
    return "\n".join(head) + "\n" + (dump_yaml(body) if body else "{}\n")


def _parsed(words: Sequence[str]) -> list[Any]:
    from trainctl.config import overrides

    return overrides.parse(words)


def _include(group: str, option: str, included: list[Any], chosen: dict[str, Any], values: dict[str, Any]) -> None:
    """Take in a shipped option by its name; what a file given by its path says is copied."""
    if not option.endswith((".yaml", ".yml")):
        included.append(f"/{group}/{option}")
        return
    content = load_yaml(Path(option))
    for entry in content.pop("defaults", []):
        if isinstance(entry, dict):
            chosen.update(entry)
        elif entry != "_self_":
            included.append(entry)
    _merge(values, content)


def _nest(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in reversed(path):
        value = {part: value}
    _merge(values, value)


def _merge(values: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value
