"""The config of one trial after another: composed once for each choice of options, then only values change.

Hydra takes 60 ms for a config. Here a trial whose words give other values to the same keys is a copy of the first
one's plain containers; whatever is not a plain value of a key that exists goes through Hydra.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf

from trainctl import launch
from trainctl.check import check
from trainctl.config import listing, overrides, saved
from trainctl.config.compose import compose
from trainctl.config.mistakes import OWN_NAMES, unknown_key, walk
from trainctl.config.overrides import OverrideError
from trainctl.errors import UsageError

_NUMBER = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=(-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)")
_VALUE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*=")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:[^${}]*\}")
_KEPT = 256  # composed configs and the like in memory

Values = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A composed config whose `keys` may be given other values.

    `linked` says where else a key's value stands (`data.seed: ${seed}`); None when only OmegaConf can tell.
    """

    config: DictConfig
    content: dict[str, Any]
    linked: Mapping[str, Sequence[str]] | None

    def with_values(self, values: Values) -> dict[str, Any]:
        """The content of config.yaml with other values."""
        if self.linked is None:
            return saved.content(_updated(self.config, values))
        result: dict[str, Any] = _copied(self.content)
        for key, value in values.items():
            for path in (key, *self.linked.get(key, ())):
                _put(result, path, _copied(value))
        return result


class Composer:
    """Configs of `verb` from override words, quick where only values differ. One per study; no thread safety."""

    def __init__(self, verb: str, config_dir: Path | None) -> None:
        self.verb, self.config_dir = verb, config_dir
        self.folders = listing.folders(config_dir)
        self._bases: dict[Any, DictConfig] = {}
        self._shapes: dict[Any, Shape] = {}
        self._groups: dict[str, bool] = {}
        self._problems: dict[str, list[str]] = {}
        self._present: dict[tuple[tuple[str, ...], str], bool] = {}

    def content(self, words: Sequence[str]) -> dict[str, Any]:
        """What `Run.create` gets for a run with these words; UsageError as in `compose`."""
        others, values = self._divided(words)
        kinds = tuple((key, isinstance(value, list)) for key, value in values.items())
        shape = self._shapes.get((others, kinds))
        if shape is None:
            shape = self._shape(words, others, values)
            if shape is None:
                return saved.content(compose(self.verb, words, self.config_dir))
            _keep(self._shapes, (others, kinds), shape)
        return shape.with_values(values)

    def checked(self, words: Sequence[str]) -> dict[str, Any]:
        """`content` of a config that can be run; UsageError with all its problems otherwise."""
        content = self.content(words)
        problems = check(self.verb, saved.resolve(content), self.config_dir, self._problems)
        if problems:
            raise launch.refusal(problems)
        return content

    def has(self, words: Sequence[str], key: str) -> bool:
        """Whether the config of these words has `key`, so that it may be set without a `+`."""
        asked = (tuple(words), key)
        found = self._present.get(asked)
        if found is None:
            found = _has(self.base(words, key), key) or f"{key}.".startswith(OWN_NAMES)
            _keep(self._present, asked, found)
        return found

    def unknown(self, words: Sequence[str], key: str) -> UsageError:
        """The sentence for a key that the config of these words lacks."""
        base, parts = self.base(words, key), key.split(".")
        present, node, _ = walk(base, parts)
        return unknown_key(base, parts, present, node)

    def is_group(self, key: str) -> bool:
        """Whether `key` names a config group."""
        if key not in self._groups:
            self._groups[key] = any((folder / key).is_dir() for folder in self.folders)
        return self._groups[key]

    def base(self, words: Sequence[str], key: str = "") -> DictConfig:
        """The unresolved config of the words without those that only set a value elsewhere than at `key`."""
        others, values = self._divided(words)
        if any(_overlap(key, one) for one in values):
            others = tuple(words)
        found = self._bases.get(others)
        if found is None:
            found = compose(self.verb, others, self.config_dir)
            _keep(self._bases, others, found)
        return found

    def _divided(self, words: Sequence[str]) -> tuple[tuple[str, ...], Values]:
        """Words that only Hydra understands, and the plain values that the others give to keys."""
        others, values = [], {}
        for word in words:
            try:
                setting = _number(word) or _setting(word)
            except OverrideError:
                overrides.parse(words)  # says which of the words it is
                raise
            if setting is None or self.is_group(setting[0]):
                others.append(word)
            else:
                values[setting[0]] = setting[1]
        return tuple(others), values

    def _shape(self, words: Sequence[str], others: Sequence[str], values: Values) -> Shape | None:
        """None when the words depend on their order, or have a mistake: then Hydra has the say."""
        if any(_overlap(one, other) for one in values for other in (*values, *self._keys(others)) if one is not other):
            return None
        base = self.base(others)
        if not all(_has(base, key) for key in values):
            return None
        try:
            config = _updated(base, values)
        except Exception:  # compose says what is wrong, in a sentence
            return None
        return Shape(config, saved.content(config), _links(config, values))

    def _keys(self, words: Sequence[str]) -> list[str]:
        """Keys that are set by words which are no choice of an option."""
        keys = [override.key_or_group for override in overrides.parse(words)]
        return [key for key in keys if not self.is_group(key)]


def _number(word: str) -> tuple[str, Any] | None:
    """Key and number of the commonest words, without Hydra's parser."""
    found = _NUMBER.fullmatch(word)
    if found is None or f"{found[1]}.".startswith(OWN_NAMES):
        return None
    return found[1], float(found[2]) if found[3] or found[4] else int(found[2])


@lru_cache(maxsize=4096)
def _setting(word: str) -> tuple[str, Any] | None:
    """Key and value of a word that sets a plain value, None for any other."""
    if not _VALUE.match(word) or word.startswith(OWN_NAMES):
        return None
    (override,) = overrides.parse([word])
    if override.type != OverrideType.CHANGE or override.is_sweep_override():
        return None
    value = override.value()
    return (override.key_or_group, value) if _is_plain(value) else None


def _has(config: DictConfig, key: str) -> bool:
    present, _, _ = walk(config, key.split("."))
    return len(present) == key.count(".") + 1


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return "${" not in value and value != "???"
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float)


def _links(config: DictConfig, values: Values) -> dict[str, list[str]] | None:
    """For each key in `values` the paths that stand for it as `${key}`; None when a reference says more than that."""
    texts = dict(_interpolations(OmegaConf.to_container(config, resolve=False)))
    references = {path: _REFERENCE.findall(text) for path, text in texts.items()}
    if any("${" in _FROM_ENVIRONMENT.sub("", _REFERENCE.sub("", text)) for text in texts.values()):
        return None
    links: dict[str, list[str]] = {}
    for path, found in references.items():
        for reference in found:
            for key in filter(lambda key: _overlap(key, reference), values):
                again = any(_overlap(path, other) for others in references.values() for other in others)
                if reference != key or texts[path] != f"${{{key}}}" or again or "[" in path:
                    return None
                links.setdefault(key, []).append(path)
    return links


def _interpolations(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, text) of all that refers to something; a `[` in the path of what is inside a list."""
    if isinstance(node, str) and "${" in node:
        yield path, node
    elif isinstance(node, dict):
        for name, child in node.items():
            yield from _interpolations(child, f"{path}.{name}" if path else str(name))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _interpolations(child, f"{path}[{index}]")


def _updated(config: DictConfig, values: Values) -> DictConfig:
    """A copy with the values set as Hydra sets them."""
    result = copy.deepcopy(config)
    for key, value in values.items():
        OmegaConf.update(result, key, value, merge=True)
    return result


def _overlap(one: str, other: str) -> bool:
    """Whether two dotted keys are the same or one is inside the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _copied(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        content = content[parent]
    content[name] = value


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Remember the latest few."""
    kept[key] = value
    if len(kept) > _KEPT:
        del kept[next(iter(kept))]
