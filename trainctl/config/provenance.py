"""Which file or override set a value, and what it replaced: the answer of `config why KEY`.

The files are read again in the order in which Hydra merges them; then come the override words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from trainctl.config import listing
from trainctl.config.compose import compose, hydra_ready, searchpath
from trainctl.config.location import conf_dir
from trainctl.config.mistakes import text, unknown_key, walk
from trainctl.config.overrides import parse
from trainctl.config.source import CARRIED, EXPERIMENT, FROM_RUN, experiment_files, is_file_name, published

UNSET = object()


class Layer(NamedTuple):
    """One place that set a value: `file:line`, the source run, or an override; `replaced` is None for the first."""

    where: str
    value: Any
    replaced: Any


def read_arguments(verb_or_key: str, words: Sequence[str]) -> tuple[str, str, list[str]]:
    """(verb, key, override words) of `config why [VERB] KEY [OVERRIDES]...`; the verb is train unless named first."""
    is_verb = (conf_dir() / f"{verb_or_key}.yaml").is_file()
    if is_verb and words and "=" not in words[0] and not words[0].startswith("~"):
        return verb_or_key, words[0], list(words[1:])
    return "train", verb_or_key, list(words)


def why(
    verb: str,
    overrides: Sequence[str],
    key: str,
    config_dir: Path | None = None,
    source: Mapping[str, Any] | None = None,
) -> list[Layer]:
    """Every layer that set `key`, the last one being in force; a group's layers say who chose its option.

    Values are as written (`${seed}` stays so). UsageError for a key that the config lacks.
    """
    config = compose(verb, overrides, config_dir, source)
    parsed, folders = parse(overrides), listing.folders(config_dir)
    if key in listing.groups(folders):
        return _linked(list(_choices(verb, parsed, key, folders)))
    parts = key.split(".")
    present, node, _ = walk(config, parts)
    if len(present) < len(parts):
        raise unknown_key(config, parts, present, node)
    with published(source):
        files = list(_files(verb, parsed, folders))
    settings = [*_from_files(files, parts, folders, source), *_from_words(parsed, parts, folders)]
    return _linked(settings)


def _linked(settings: Sequence[tuple[str, Any]]) -> list[Layer]:
    """Settings in order, each with the value it replaced; a mapping only adds to the one before."""
    layers: list[Layer] = []
    for where, value in settings:
        before = layers[-1].value if layers else None
        layers.append(Layer(where, _merged(before, value), before))
    return layers


def _merged(before: Any, value: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(value, dict):
        return value
    return {**before, **{name: _merged(before.get(name), child) for name, child in value.items()}}


def _files(verb: str, parsed: Sequence[Override], folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(config path, package) of each file in the order of merging."""
    words = [text(override) for override in parsed]
    with hydra_ready(verb, folders), experiment_files(words):
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list(verb, [*searchpath(folders), *words], RunMode.RUN)
    for default in found.defaults:
        path = default.config_path
        if path is not None and not path.startswith("hydra"):
            yield path, default.package or ""


def _from_files(
    files: Sequence[tuple[str, str]], parts: Sequence[str], folders: Sequence[Path], source: Mapping[str, Any] | None
) -> Iterator[tuple[str, Any]]:
    for path, package in files:
        file = _file(path, folders)
        prefix = package.split(".") if package else []
        inside = list(parts[len(prefix) :])
        if list(parts[: len(prefix)]) != prefix[: len(parts)]:
            continue
        if path.rpartition("/")[2] == FROM_RUN:
            group = path.partition("/")[0]
            node = (
                (source or {}).get(group) if "/" in path else {k: v for k, v in (source or {}).items() if k in CARRIED}
            )
            value = _select(node, inside)
            if value is not UNSET:
                yield "the source run", value
        elif file is not None:
            root = yaml.compose(file.read_text(encoding="utf-8"), Loader=get_yaml_loader())
            line, value = _find(root, inside)
            if line:
                yield f"{_shown(file, folders)}:{line}", value


def _from_words(parsed: Sequence[Override], parts: Sequence[str], folders: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """Override words that set the key, a part of it, or a mapping that holds it."""
    for override in parsed:
        if override.is_delete() or _is_group(override, folders):
            continue
        own = override.key_or_group.split(".")
        value = OmegaConf.to_container(OmegaConf.create({"value": override.value()}))["value"]  # type: ignore[index,call-overload]
        if own == list(parts[: len(own)]):
            value = _select(value, parts[len(own) :])
        elif list(parts) == own[: len(parts)]:
            for part in reversed(own[len(parts) :]):
                value = {part: value}
        else:
            continue
        if value is not UNSET:
            yield f"override `{text(override)}`", value


def _choices(verb: str, parsed: Sequence[Override], group: str, folders: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """Who chose the option of a group: the verb's defaults, an experiment's `override`, a word."""
    for path, _ in _files(verb, parsed, folders):
        file = _file(path, folders)
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=get_yaml_loader()) if file else None
        for name, node in _pairs(root):
            for item in node.value if name.value == "defaults" and isinstance(node, yaml.SequenceNode) else ():
                for entry, option in _pairs(item):
                    if file and entry.value.removeprefix("override ").lstrip("/") == group and _top(path, entry.value):
                        yield f"{_shown(file, folders)}:{entry.start_mark.line + 1}", _value(option)
    for override in parsed:
        if override.key_or_group == group and _is_group(override, folders):
            yield f"override `{text(override)}`", None if override.is_delete() else override.value()


def _top(path: str, entry: str) -> bool:
    """Whether a defaults entry speaks of a top-level group: in the verb's own file, or by `override /group`."""
    return "/" not in path or entry.startswith("override /")


def _is_group(override: Override, folders: Sequence[Path]) -> bool:
    return any((folder / override.key_or_group).is_dir() for folder in folders)


def _file(path: str, folders: Sequence[Path]) -> Path | None:
    group, _, name = path.partition("/")
    if group == EXPERIMENT and is_file_name(name):
        return Path(name)
    return next((folder / f"{path}.yaml" for folder in folders if (folder / f"{path}.yaml").is_file()), None)


def _shown(file: Path, folders: Sequence[Path]) -> str:
    """Our own files as `conf/...`; the user's as they are reached from here."""
    if file.is_relative_to(folders[0]):
        return f"conf/{file.relative_to(folders[0]).as_posix()}"
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _find(node: yaml.Node | None, parts: Sequence[str]) -> tuple[int, Any]:
    """Line (from 1) and value of a dotted key in a YAML tree; line 0 when it is not there."""
    line = 1 if node is not None and not parts else 0
    for part in parts:
        for name, child in _pairs(node):
            if str(name.value) == part:
                node, line = child, name.start_mark.line + 1
                break
        else:
            return 0, None
    value = _value(node) if line and node is not None else None
    if isinstance(value, dict):
        value.pop("defaults", None)
    return line, value


def _value(node: yaml.Node) -> Any:
    return get_yaml_loader()("").construct_document(node)


def _pairs(node: yaml.Node | None) -> list[tuple[Any, Any]]:
    return list(node.value) if isinstance(node, yaml.MappingNode) else []


def _select(node: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if not isinstance(node, Mapping) or part not in node:
            return UNSET
        node = node[part]
    return node
