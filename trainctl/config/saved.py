"""The config.yaml of a run: resolved, so that nothing changes meaning in the next run, but without environment values.

What was written as `${oc.env:NAME}` stays as written, so no secret reaches the disk; it is resolved on reading.
"""

from __future__ import annotations

import copy
import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainctl.config.compose import plain
from trainctl.errors import RunError

ENV = "oc.env:"
_NAMES = re.compile(r"oc\.env:\s*([A-Za-z_]\w*)\s*[,}]")


def dump(config: DictConfig) -> str:
    """The text of config.yaml: resolved except for what comes from the environment; UsageError as in `plain`."""
    return str(yaml.safe_dump(content(config), sort_keys=False, allow_unicode=True, width=110))


def content(config: DictConfig) -> dict[str, Any]:
    """What config.yaml holds, as plain containers."""
    kept: list[str] = []

    def keep(interpolation: str) -> str:
        kept.append(re.sub(r"\$\{([\w.]+)\}", lambda found: str(OmegaConf.select(config, found[1])), interpolation))
        return f"\0{len(kept) - 1}\0"

    raw = OmegaConf.to_container(config, resolve=False)
    resolved = plain(OmegaConf.create(_map(raw, lambda text: _replace_env(text, keep))))
    final: dict[str, Any] = _map(resolved, lambda text: _put_back(text, kept))
    return final


def load(text: str) -> dict[str, Any]:
    """Plain containers from the text of a config.yaml, `${oc.env:...}` resolved; RunError when it is no config."""
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RunError("config.yaml of the run is damaged: it is not valid YAML") from error
    if not isinstance(loaded, dict):
        raise RunError("config.yaml of the run is damaged: it holds no keys")
    return resolve(loaded)


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of plain containers with `${oc.env:...}` resolved; RunError when a variable is not set."""
    resolved: dict[str, Any] = _map(dict(config), _resolve_env)
    return resolved


def _resolve_env(text: str) -> Any:
    if ENV not in text:
        return text
    names = _NAMES.findall(text)
    if text.count(ENV) > len(names):  # a name that is put together
        return _from_environment.__wrapped__(text, ())
    return copy.deepcopy(_from_environment(text, tuple(os.environ.get(name) for name in names)))


@functools.lru_cache(maxsize=256)
def _from_environment(text: str, values: tuple[str | None, ...]) -> Any:
    """What OmegaConf makes of `text` while the variables that it names have these values; half a millisecond."""
    found: list[str] = []
    _replace_env(text, lambda interpolation: found.append(interpolation) or "")  # type: ignore[func-returns-value]
    if not found:
        return text
    try:
        return OmegaConf.to_container(OmegaConf.create({"value": text}), resolve=True)["value"]  # type: ignore[index,call-overload]
    except OmegaConfBaseException as error:
        raise RunError(f"config.yaml of the run needs {found[0]}: {str(error).splitlines()[0]}") from error


def _replace_env(text: str, keep: Callable[[str], str]) -> str:
    """`text` with every outermost `${...}` that reads the environment replaced by `keep` of it."""
    pieces, start = [], 0
    while (begin := text.find("${", start)) >= 0:
        end = _closing(text, begin)
        inner = text[begin:end]
        pieces += [text[start:begin], keep(inner) if ENV in inner else inner]
        start = end
    return "".join([*pieces, text[start:]])


def _closing(text: str, begin: int) -> int:
    """The index after the brace that closes the interpolation at `begin`."""
    depth = 0
    for index in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0 and text[index] == "}":
            return index + 1
    return len(text)


def _put_back(text: str, kept: list[str]) -> str:
    for index, interpolation in enumerate(kept):
        text = text.replace(f"\0{index}\0", interpolation)
    return text


def _map(node: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(node, str):
        return change(node)
    if isinstance(node, dict):
        return {key: _map(value, change) for key, value in node.items()}
    return [_map(value, change) for value in node] if isinstance(node, list) else node
