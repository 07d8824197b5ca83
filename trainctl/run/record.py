"""What a run's text files hold: plain JSON and YAML without secrets, with paths that stay inside the run."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainctl.errors import RunError
from trainctl.run.files import shown

_SECRET = re.compile(
    r"(^|_)(password|passwd|secret|api_?key|access_?key|private_?key|auth_?token|access_?token|credentials?)$",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")
_HIDDEN = "***"
_SHAPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("artifacts", "outputs", "timing", "intervals", "error", "git", "versions"), (dict, "mapping")),
    **dict.fromkeys(("overrides", "resumed"), (list, "list")),
    **dict.fromkeys(("verb", "status", "parent", "host", "user", "started", "ended"), (str, "text")),
}
_OTHER_KEYS = ('"true":', '"false":', '"null":')  # of a mapping, as JSON spells what is no text
# YAML 1.2 (and OmegaConf) reads 1e-3 as a number where PyYAML writes the text without quotes.
_FLOAT_LIKE = re.compile(r"^[-+]?(\d[\d_]*)?\.?\d*[eE][-+]?\d+$")


def plain(value: Any) -> Any:
    """A copy made of JSON's types: tuples become lists, paths text, NaN and infinities null, secrets `***`."""
    if isinstance(value, Mapping):
        return {str(key): _hide(str(key), plain(item)) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, str):
        return _LOGIN.sub(rf"\1:{_HIDDEN}@", value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None


def plain_overrides(overrides: list[str]) -> list[str]:
    """Overrides as typed, but the value of a key that names a secret is `***` unless it is an interpolation."""
    kept = []
    for override in overrides:
        key, equals, value = override.partition("=")
        name = key.lstrip("+~").rsplit(".", 1)[-1].rsplit("/", 1)[-1]
        kept.append(f"{key}{equals}{_hide(name, plain(value))}" if equals else key)
    return kept


def dump_yaml(config: Mapping[str, Any]) -> str:
    """A config as YAML in the given key order; non-finite numbers stay numbers (`.inf`, `.nan`)."""
    sections = (_json(key, value) for key, value in config.items())
    return "".join(map(_section, sections)) or "{}\n"


def _json(key: Any, value: Any) -> str:
    """One key of a config as JSON; what JSON has no type for, or writes otherwise as a key, is made plain first."""
    with contextlib.suppress(TypeError):
        text = json.dumps({key: value})
        if not any(name in text for name in _OTHER_KEYS):
            return text
    return json.dumps(_yaml_plain({key: value}))


@functools.lru_cache(maxsize=256)
def _section(content: str) -> str:
    """One key of a config, given as JSON, as YAML: the configs of many trials differ in few of them."""
    options = {"sort_keys": False, "allow_unicode": True, "width": 110}
    return str(_yaml().dump(_yaml_plain(json.loads(content)), Dumper=_dumper(), **options))


@functools.cache
def _dumper() -> Any:
    """A class of our own: representers are kept on the class, and the library's must stay as it is."""
    yaml = _yaml()

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if _FLOAT_LIKE.match(value) else None)

    Dumper = type("Dumper", (getattr(yaml, "CSafeDumper", yaml.SafeDumper),), {"ignore_aliases": lambda *_: True})
    Dumper.add_representer(str, text)  # type: ignore[attr-defined]
    return Dumper


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; nothing is constructed but plain values. RunError when it is damaged."""
    yaml = _yaml()
    try:
        with open(path, "rb") as file:
            content = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError as error:
        raise RunError(f"no such file: `{shown(path)}`") from error
    except OSError as error:
        raise RunError(f"cannot read `{shown(path)}`: {(error.strerror or str(error)).lower()}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RunError(f"`{shown(path)}` is damaged: it is not YAML of plain values") from error
    if not isinstance(content, dict):
        raise RunError(f"`{shown(path)}` is damaged: it is not a mapping")
    return content


def as_written(written: Any, old: Any, new: Any) -> Any:
    """`new` as to be written: a value that is still its `old` one keeps its `written` form, an interpolation."""
    if isinstance(new, Mapping) and isinstance(old, Mapping) and isinstance(written, Mapping):
        return {key: as_written(written.get(key), old.get(key), value) for key, value in new.items()}
    return written if new == old else new


def misshapen(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first field of run.json that has another type than it must, and what it must be; None when all fit."""
    for name, (kind, word) in _SHAPES.items():
        if record.get(name) is not None and not isinstance(record[name], kind):
            return name, word
    return None


def inside(root: Path, relative: object) -> Path:
    """`root / relative` when it stays below `root`, symlinks followed; RunError otherwise."""
    if not isinstance(relative, str) or not relative or "\0" in relative or not _stays(os.fspath(root), relative):
        raise RunError(f"manifest of `{shown(root)}` points outside the run dir; refused")
    return root / relative


def placed(root: Path, artifacts: Mapping[str, str | Path]) -> dict[str, dict[str, str]]:
    """`artifacts`: relative paths of those below `root`, by name; `outputs`: absolute paths of the others."""
    here = os.path.abspath(root)
    found: dict[str, dict[str, str]] = {"artifacts": {}, "outputs": {}}
    for name, path in artifacts.items():
        whole = os.path.abspath(root / path)
        relative = os.path.relpath(whole, here)
        outside = relative.split(os.sep)[0] == ".."
        found["outputs" if outside else "artifacts"][name] = whole if outside else relative
    return found


def _stays(root: str, relative: str) -> bool:
    if os.path.isabs(relative):
        return False
    place, linked = root, False
    for part in relative.split("/"):
        if part == "..":
            return False
        place = os.path.join(place, part)
        linked = linked or os.path.islink(place)
    # Resolving is slow beside asking for links, and a list of runs asks thousands of times.
    return not linked or os.path.realpath(place).startswith(os.path.realpath(root) + os.sep)


def _yaml() -> Any:
    # Imported when first needed: `trainctl runs` reads no config.
    return importlib.import_module("yaml")


def _hide(name: str, value: Any) -> Any:
    secret = isinstance(value, str) and value and "${" not in value and _SECRET.search(name)
    return _HIDDEN if secret else value


def _yaml_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _hide(str(key), _yaml_plain(item)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_yaml_plain(item) for item in value]
    return value if isinstance(value, float) else plain(value)


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `config` with `${oc.env:...}` resolved; RunError when a variable is not set."""
    # Imported when a config is read: `trainctl runs` reads none.
    from trainctl.config import saved

    return saved.resolve(config)


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with values replaced by dotted key."""
    result = copy.deepcopy(dict(config))
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return result
